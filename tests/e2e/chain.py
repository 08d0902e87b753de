"""Whole traces, compared with what the services themselves say: every call between two services has an id in its path, and
the callee answers with the trace context that it received (tests/apps/chain_*).

Owns: the load whose answers are the truth, the verdict about each call (linked to the request that made it, joined to its
server span, named by its header), and the programs beside Python that speak the same. Refuses: to take one thing for
another: a span that is not there is missing, one without a parent is none, any other parent is wrong.
"""
import asyncio
import json
import os
import re
import shutil
import subprocess
from collections import Counter, deque
from dataclasses import dataclass, field

import services
import truth_load
from seen import CLIENT, SERVER

# Everybody wants both cores here and every span is counted: the agent gets its share, and room to wait.
UNSTARVED = ("--nice", "0", "--ring-size", "64M")
READY_SECONDS = 40  # on a busy machine the syscall collector takes its time to load
ROUTES = ("call", "fanout", "sync")
ID = re.compile(r"/(call|fanout|sync|tail|forward|broken|chain)/([\w.-]+)|truth:([\w.-]+)")
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
FIGURE = re.compile(r"\b(events|connections|spans|linked|joined|injected|exported) (\d+)")
WHATS = ("linked", "joined", "header", "redis")
EXAMPLES_MAX = 3
SPLIT_SECONDS = 0.003


def start(tracing, *args, **how):
    """The agent, for tests of which every span counts."""
    return tracing.start(*UNSTARVED, *args, timeout=READY_SECONDS, **how)


@dataclass
class Answer:
    """One request as its client saw it."""

    path: str
    status: int
    body: dict
    port: int  # the client's own; with `turn`: which connection, and for which time
    turn: int

    @property
    def id(self):
        return self.path.split("?")[0].rsplit("/", 1)[1]

    @property
    def calls(self):
        """What the request called: {"id", "traceparent", "tracestate"} as the callee received it."""
        return self.body.get("calls", [])


class Client(truth_load.Client):
    """One kept connection that knows its own port."""

    turn = 0

    async def get(self, path, headers=""):
        reopened = not self.writer or self.writer.is_closing() or self.reader.at_eof()
        await self.open()
        self.turn = 1 if reopened else self.turn + 1
        port = self.writer.get_extra_info("sockname")[1]
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode("latin-1"))
        status, body = await self.answer()
        return Answer(path, status, json.loads(body) if status == 200 else {}, port, self.turn)


async def _run(port, paths, connections, headers):
    queue, answers = deque(paths), []

    async def worker():
        client = Client(port)
        try:
            while queue:
                answers.append(await asyncio.wait_for(client.get(queue.popleft(), headers), 60))
        finally:
            client.close()

    await asyncio.gather(*(worker() for _ in range(connections)))
    return answers


def run(port, paths, connections=8, headers=""):
    """Sends every path once; the Answers, in no special order. `headers`: lines that end with CRLF."""
    return asyncio.run(_run(port, paths, connections, headers))


def paths(tag, requests, routes=ROUTES):
    """So many requests, the routes by turns."""
    return [f"/{routes[n % len(routes)]}/{tag}{n}" for n in range(requests)]


async def _send(port, pieces):
    client = Client(port)
    await client.open()
    try:
        for n, piece in enumerate(pieces):
            await asyncio.sleep(SPLIT_SECONDS if n else 0)
            client.writer.write(piece)
        status, body = await asyncio.wait_for(client.answer(), 20)
        return status, json.loads(body) if status == 200 else {}
    finally:
        client.close()


def send(port, data, cuts=()):
    """(status, JSON body) of one request that is sent as it stands, cut at these offsets."""
    at = [0, *sorted({c for c in cuts if 0 < c < len(data)}), len(data)]
    return asyncio.run(_send(port, [data[a:b] for a, b in zip(at, at[1:])]))


def id_of(span):
    """(route, id) of what the span says that it is about; (None, None) when it says nothing."""
    text = span.attrs.get("url.full") or span.attrs.get("url.path") or span.attrs.get("db.query.text") or ""
    m = ID.search(text)
    return (m[1] or "redis", m[2] or m[3]) if m else (None, None)


@dataclass
class Tally:
    right: int = 0
    wrong: int = 0
    none: int = 0
    missing: int = 0
    examples: list = field(default_factory=list)

    def note(self, what, *about):
        setattr(self, what, getattr(self, what) + 1)
        if what != "right" and len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{what}: " + ", not under ".join(brief(a) for a in about))


class Verdict:
    """Tallies by (route, what)."""

    def __init__(self):
        self.tallies = {}

    def note(self, route, what, how, *about):
        self.tallies.setdefault((route, what), Tally()).note(how, *about)

    def total(self, how, what=None):
        return sum(getattr(t, how) for (_, w), t in self.tallies.items() if what in (None, w))

    def problems(self, none_allowed=("header",)):
        """What must not be, as text."""
        return [f"{route} {what}: {t.right} right, {t.wrong} wrong, {t.none} none, {t.missing} missing; {t.examples}"
                for (route, what), t in sorted(self.tallies.items())
                if t.wrong or t.missing or (t.none and what not in none_allowed)]

    def markdown(self):
        lines = ["| route | what | right | wrong | none | not exactly once |", "| --- | --- | ---: | ---: | ---: | ---: |"]
        lines += [f"| {route} | {what} | {t.right} | {t.wrong} | {t.none} | {t.missing} |"
                  for (route, what), t in sorted(self.tallies.items())]
        return "\n".join(lines)


class Seen:
    """The spans of a run by what they are about."""

    def __init__(self, spans, callee_pids=None, caller_pids=None):
        self.requests, self.clients, self.callees, self.redis = {}, {}, {}, {}
        for span in spans:
            route, which = id_of(span)
            if route == "chain" and span.kind == SERVER and (callee_pids is None or span.pid in callee_pids):
                self.callees.setdefault(which, []).append(span)
            elif route == "chain" and span.kind == CLIENT and (caller_pids is None or span.pid in caller_pids):
                self.clients.setdefault(which, []).append(span)
            elif route == "redis" and span.kind == CLIENT:
                self.redis.setdefault(which, []).append(span)
            elif route not in (None, "chain", "redis") and span.kind == SERVER:
                self.requests.setdefault(which, []).append(span)


def brief(what):
    """A span, or anything else, in a few words for messages."""
    if not hasattr(what, "span_id"):
        return str(what)
    return f"[{what.name} {id_of(what)[1]} of {what.pid}: {what.span_id} under {what.parent_id or 'none'} in {what.trace_id[-8:]}]"


def under(child, parent):
    """How a span is related to the one that should be its parent."""
    if not child.parent_id:
        return "none"
    return "right" if (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id) else "wrong"


def named(received, client):
    """How the headers that came are related to the client span that they should name."""
    if not received:
        return "none"
    m = TRACEPARENT.fullmatch(received[0])
    right = len(received) == 1 and m and (m[1], m[2]) == (client.trace_id, client.span_id) and int(m[3], 16) & 1
    return "right" if right else "wrong"


def judge_call(verdict, seen, route, call, request_id=None, redis=False):
    """One call: `call` is what its callee received, request_id what made it (None: the client program itself)."""
    which = call["id"]
    clients, callees = seen.clients.get(which, []), seen.callees.get(which, [])
    if len(clients) != 1 or len(callees) != 1:
        verdict.note(route, "joined", "missing", f"{which}: {len(clients)} client spans, {len(callees)} server spans")
        return
    client, callee = clients[0], callees[0]
    verdict.note(route, "joined", under(callee, client), callee, client)
    verdict.note(route, "header", named(call.get("traceparent", []), client), call, client)
    if callee.parent_id == client.span_id and callee.start < client.start:
        verdict.note(route, "joined", "wrong", f"{which}: begins {client.start - callee.start} ns before its call")
    if request_id is not None:
        requests = seen.requests.get(request_id, [])
        if len(requests) != 1:
            verdict.note(route, "linked", "missing", f"{request_id}: {len(requests)} server spans")
        else:
            verdict.note(route, "linked", under(client, requests[0]), client, requests[0])
    for command in seen.redis.get(which, []) if redis else []:
        verdict.note(route, "redis", under(command, callee), command, callee)


def judge(spans, answers, callee_pids=None, caller_pids=None, redis=True):
    """The Verdict over the Answers of a gateway: all its calls, and that nothing is there that nobody asked for."""
    verdict, seen = Verdict(), Seen(spans, callee_pids, caller_pids)
    known = set()
    for answer in answers:
        route = answer.path.split("/")[1]
        if answer.status != 200:
            raise RuntimeError(f"{answer.path}: {answer.status}")
        for call in answer.calls:
            known.add(call["id"])
            judge_call(verdict, seen, route, call, answer.id, redis)
    return verdict


class Pair:
    """A gateway under uvicorn and the agent service that it calls: .port of the gateway, .app, .agent."""

    def __init__(self, stack, redis, python=None, **how):
        env = {"REDIS_PORT": redis.port}
        self.agent = start_callee(stack, "uvicorn", env)
        env["AGENT_URL"] = f"http://127.0.0.1:{self.agent.port}"
        if python:
            how["python"] = python.python
            env.update(python.env)
        self.app = stack.python_app("chain_gateway", env=env, **how)
        self.port = self.app.port

    def trace(self, tracing):
        """An agent that puts headers into their calls."""
        t = tracing()
        start(t, "--propagate=headers", pids=[self.app.pid, self.agent.pid])
        return t

    def expect(self, t, spans, answers, whats=("linked", "header")):
        """Of the calls behind the Answers nothing is wrong or missing, and these are right for each of them."""
        verdict = judge(spans, answers, self.agent.pids, family(self.app.pid))
        said = verdict.markdown() + t.agent.output()[-3000:]
        assert not verdict.problems(), said
        for what in whats:
            assert verdict.total("right", what) == sum(len(a.calls) for a in answers), said


def judge_client(spans, calls, callee_pids=None, route="call"):
    """The Verdict over what a client program printed: calls that no request made."""
    verdict, seen = Verdict(), Seen(spans, callee_pids)
    for call in calls:
        judge_call(verdict, seen, route, call)
    return verdict


def traces(spans):
    """{trace id: [spans]}"""
    found = {}
    for span in spans:
        found.setdefault(span.trace_id, []).append(span)
    return found


def figures(agent):
    """{name: count} of the agent's last summary: events, connections, spans, linked, exported."""
    return {name: int(n) for name, n in FIGURE.findall(agent.output())}


def count(agent, reason):
    """What the agent's last summary says of one reason for dropping, of one word or more."""
    found = re.findall(rf"dropped {reason} (\d+)", agent.output())
    return int(found[-1]) if found else 0


def family(pid):
    """A process and all that descend from it."""
    found = [pid]
    for p in found:
        with open(f"/proc/{p}/task/{p}/children") as f:
            found += [int(c) for c in f.read().split()]
    return found


# --- programs ------------------------------------------------------------------------------------------------------------


# None without the toolchain.
GO = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin")
NODE = shutil.which("node")


def go_program():
    """Path of tests/apps/chain.go, built when it is newer than what is there."""
    source, out = os.path.join(services.APPS, "chain.go"), os.path.join(services.BUILD, "e2e", "chain-go")
    if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(out), exist_ok=True)
        env = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        subprocess.run([GO, "build", "-o", out, source], check=True, env=env, cwd=services.BUILD, timeout=300)
    return out


def node_program():
    return [NODE, os.path.join(services.APPS, "chain.mjs")]


CURL = """while [ ! -e {after} ]; do sleep 0.05; done
for n in $(seq 0 $(({count} / 2 - 1))); do
  curl -sS --noproxy '*' -w '\\n' {base}/chain/{tag}.$((n * 2)) {base}/chain/{tag}.$((n * 2 + 1)) || exit 1
done
sleep 0.3"""


def client_argv(how, base, count, tag, after):
    """How one of the client programs is started."""
    rest = [base, str(count), tag, after]
    if how == "curl":
        return ["sh", "-c", "echo waits; " + CURL.format(base=base, count=count, tag=tag, after=after)]
    if how == "go":
        return [go_program(), "client", *rest]
    if how.startswith("node-"):
        return [*node_program(), how.removeprefix("node-"), *rest]
    return [services.PYTHON, os.path.join(services.APPS, "chain_client.py"), how, *rest]


class Program:
    """A client program that waits until it may begin, so that the agent can come first."""

    def __init__(self, stack, how, base, count=60, tag="c"):
        self.after = os.path.join(stack.log_dir, f"after-{how}-{len(os.listdir(stack.log_dir))}")
        self.tag, self.count = tag, count
        self.service = stack.start(f"client-{how}", client_argv(how, base, count, tag, self.after))
        self.service.wait_ready(lambda: "waits" in self.service.output())

    @property
    def pid(self):
        return self.service.pid

    def go(self, timeout=60):
        """Lets it run; what the callee received: [{"id", "traceparent"}]."""
        open(self.after, "w").close()
        code = self.service.process.wait(timeout)
        calls = [json.loads(line) for line in self.service.output().splitlines() if line.startswith("{")]
        assert code == 0 and len(calls) == self.count, f"{code}, {len(calls)} answers:\n{self.service.output()[-2000:]}"
        assert {c["id"] for c in calls} == {f"{self.tag}.{n}" for n in range(self.count)}
        return calls


def start_callee(stack, kind, env, **how):
    """A callee: .port, .pids (all its processes), .base."""
    if kind == "go":
        service = stack.start("chain-go", [go_program(), "server"])
    elif kind == "node":
        service = stack.start("chain-node", [*node_program(), "server"])
    elif kind == "stdlib":
        service = stack.start("chain-stdlib", [services.PYTHON, "-u", "chain_stdlib.py"], env={**env, **how}, cwd=services.APPS)
    elif kind in ("gthread", "sync"):
        service = stack.python_app("chain_flask", server=kind, env=env)
    else:
        service = stack.uvicorn("chain_agent", env=env, **how)
    if kind in ("go", "node", "stdlib"):
        line = service.wait_ready(lambda: re.search(r"^(?:port (\d+)|unix .*)$", service.output(), re.M))
        service.port = int(line[1]) if line[1] else None
    service.pids = set(family(service.pid))
    return service


NGINX = """daemon off; master_process {master}; worker_processes {workers};
user root; pid {root}/pid; error_log {root}/error.log warn;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 10000000; default_type text/plain;
  client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
  scgi_temp_path {root}/s;
  upstream service {{ server {upstream}; {keepalive} }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://service; proxy_http_version {version};
    proxy_set_header Connection ""; }} }} }}
"""


def nginx(stack, upstream, keepalive=True, workers=1):
    """A reverse proxy in front of `upstream` (HOST:PORT or unix:PATH), which keeps its connections to it or not."""
    port = services.free_port()
    root = os.path.join(stack.log_dir, f"proxy-{port}")
    os.makedirs(root)
    conf = os.path.join(root, "nginx.conf")
    with open(conf, "w") as f:
        f.write(NGINX.format(root=root, port=port, upstream=upstream, workers=workers, master="on" if workers > 1 else "off",
                             keepalive="keepalive 128;" if keepalive else "", version="1.1" if keepalive else "1.0"))
    service = stack.start("nginx", ["nginx", "-p", root, "-e", f"{root}/error.log", "-c", conf])
    service.port = port
    service.wait_ready(lambda: services.port_open(port))
    service.pids = set(family(service.pid))
    return service


def order(items):
    """How often each of these is there, for messages."""
    return dict(Counter(items).most_common(5))
