"""A client span and the server span at the other end of the same request are parent and child: every pair is compared with
the id that the call carried, and every header that was received with the span that it has to name.
"""
import signal
import time

import chain
import pytest
import services
from seen import CLIENT, SERVER, servers

REQUESTS, CONNECTIONS = 500, 64  # the long form: tests/bench/chain_truth.py
PROPAGATE = ("off", "headers")
NO_HEADER_SHARE = 0.02  # of calls whose header the guards may leave out once the process is known


@pytest.fixture
def callee_env(redis):
    return {"REDIS_PORT": redis.port}


def flaws(verdict, calls, propagate="off", headers=None):
    """What is not as it should be, as text. headers: whether calls have to carry one (None: they may)."""
    found = verdict.problems()
    right, none = verdict.total("right", "header"), verdict.total("none", "header")
    if verdict.total("right", "joined") != calls:
        found.append(f"{verdict.total('right', 'joined')} of {calls} joined")
    if right and (propagate == "off" or headers is False):
        found.append(f"{right} headers that should not be there")
    if headers and propagate != "off" and none > NO_HEADER_SHARE * calls:
        found.append(f"{none} of {calls} without a header")
    return found


def check(verdict, calls, propagate="off", headers=None, tracing=None):
    found = flaws(verdict, calls, propagate, headers)
    assert not found, "\n".join([*found, verdict.markdown(), tracing.agent.output()[-3000:] if tracing else ""])


# --- gateway and agent service -------------------------------------------------------------------------------------------

GATEWAYS = ("uvloop", "asyncio", "gthread", "sync")


def gateway(stack, kind, env):
    if kind in ("gthread", "sync"):
        app = stack.python_app("chain_flask", server=kind, env=env, workers=2)
    else:
        app = stack.uvicorn("chain_gateway", env=env, loop=kind)
    app.pids = set(chain.family(app.pid))
    return app


@pytest.mark.parametrize("propagate", PROPAGATE)
@pytest.mark.parametrize("kind", GATEWAYS)
def test_gateway_and_agent_service(tracing, stack, redis, callee_env, kind, propagate):
    """Each call of a gateway under load: joined to its server span, under its request, its commands below; one trace."""
    agent = chain.start_callee(stack, "uvicorn", callee_env, loop=kind if kind in ("uvloop", "asyncio") else "uvloop")
    app = gateway(stack, kind, {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    chain.start(t, f"--propagate={propagate}", pids=[app.pid, agent.pid])
    warm = chain.run(app.port, chain.paths("warm", 120), 8)
    answers = chain.run(app.port, chain.paths("r", REQUESTS), CONNECTIONS)
    spans = t.finish()
    verdict = chain.judge(spans, answers, agent.pids, app.pids)
    calls = sum(len(a.calls) for a in answers)
    check(verdict, calls, propagate, headers=True, tracing=t)
    assert verdict.total("right", "linked") == calls
    assert verdict.total("right", "redis") == calls
    # While a process is not known yet headers may be missing, and no span may be wrong.
    early = chain.judge(spans, warm, agent.pids, app.pids)
    assert not early.problems(), "\n".join(early.problems())
    whole, seen = chain.traces(spans), chain.Seen(spans)
    for answer in answers:
        (request,) = seen.requests[answer.id]
        ids = {chain.id_of(s)[1] for s in whole[request.trace_id]} - {None}
        assert ids == {answer.id, *(c["id"] for c in answer.calls)}, (answer, whole[request.trace_id])


@pytest.mark.parametrize("propagate", PROPAGATE)
def test_other_collector(tracing, stack, redis, callee_env, propagate):
    agent = chain.start_callee(stack, "uvicorn", callee_env)
    app = gateway(stack, "uvloop", {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    chain.start(t, "--collector", "syscall", f"--propagate={propagate}", pids=[app.pid, agent.pid])
    answers = chain.run(app.port, chain.paths("r", 300), 16)
    check(chain.judge(t.finish(), answers, agent.pids, app.pids), sum(len(a.calls) for a in answers), propagate, tracing=t)


def test_two_agents_are_two_hosts(tracing, stack, redis, callee_env):
    """What only the header can link: each service has an agent of its own, as on hosts of their own."""
    agent = chain.start_callee(stack, "uvicorn", callee_env)
    app = gateway(stack, "uvloop", {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    here, there = tracing(), tracing("http/protobuf")
    chain.start(here, "--propagate=headers", pids=[app.pid])
    chain.start(there, "--propagate=headers", pids=[agent.pid])
    warm = chain.run(app.port, chain.paths("warm", 120), 8)
    answers = chain.run(app.port, chain.paths("r", 400), 16)
    spans = here.finish() + there.finish()
    calls = sum(len(a.calls) for a in answers)
    for some in (warm, answers):
        verdict = chain.judge(spans, some, agent.pids, app.pids)
        assert verdict.total("wrong") == verdict.total("missing") == 0, verdict.problems()
        # The one is there exactly when the other is.
        assert verdict.total("right", "header") == verdict.total("right", "joined"), verdict.markdown()
    assert verdict.total("right", "joined") >= (1 - NO_HEADER_SHARE) * calls, verdict.markdown()


@pytest.mark.parametrize("traced", ["caller", "callee"])
def test_one_side_is_not_traced(tracing, stack, redis, callee_env, traced):
    """No join, and nothing is guessed in its place."""
    agent = chain.start_callee(stack, "uvicorn", callee_env)
    app = gateway(stack, "uvloop", {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    chain.start(t, "--propagate=off", pids=[app.pid if traced == "caller" else agent.pid])
    answers = chain.run(app.port, chain.paths("r", 300), 16)
    spans = t.finish()
    seen = chain.Seen(spans)
    ids = {c["id"] for a in answers for c in a.calls}
    roots = servers(spans)
    assert all(not s.parent_id for s in roots), [s for s in roots if s.parent_id][:3]
    assert len({s.trace_id for s in roots}) == len(roots)
    assert set(seen.clients if traced == "caller" else seen.callees) == ids
    assert not (seen.callees if traced == "caller" else seen.clients)


def test_redis_server_is_not_joined_to_another(tracing, stack, callee_env):
    """A traced Redis: each of its server spans is under the client span of the same command, or under none."""
    store = stack.redis()
    agent = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": store.port})
    app = gateway(stack, "uvloop", {"REDIS_PORT": store.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    chain.start(t, "--propagate=headers", pids=[app.pid, agent.pid, store.pid])
    answers = chain.run(app.port, chain.paths("r", 300), 16)
    spans = t.finish()
    assert not chain.judge(spans, answers, agent.pids, app.pids).problems()
    by_id = {(s.trace_id, s.span_id): s for s in spans}
    wrong = [s for s in servers(spans, [store.pid]) if s.parent_id and chain.id_of(by_id[s.trace_id, s.parent_id]) != chain.id_of(s)]
    assert not wrong, wrong[:3]


def test_lost_records_join_nothing_wrong(tracing, stack, redis, callee_env):
    """
    The agent does not run for a while and its ring is small. What a lost record told is missing then, a parent's span too;
    no span is under one that is there and not its own.
    """
    agent = chain.start_callee(stack, "uvicorn", callee_env)
    app = gateway(stack, "uvloop", {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    spanloom = t.start("--ring-size", "64K", "--propagate=off", timeout=chain.READY_SECONDS, pids=[app.pid, agent.pid])
    answers = chain.run(app.port, chain.paths("a", 100), 8)
    for n in range(4):
        spanloom.process.send_signal(signal.SIGSTOP)
        answers += chain.run(app.port, chain.paths(f"stopped{n}-", 150), 16)
        spanloom.process.send_signal(signal.SIGCONT)
        answers += chain.run(app.port, chain.paths(f"between{n}-", 60), 16)
    time.sleep(0.5)
    last = chain.run(app.port, chain.paths("z", 60), 1)
    spans = t.finish()
    assert t.drops().get("ring_full"), t.agent.output()
    by_id, astray = {s.span_id: s for s in spans}, []
    for span in spans:
        parent, (route, which) = by_id.get(span.parent_id), chain.id_of(span)
        if parent and which:
            its = chain.id_of(parent)[1]
            own = its == which if (route, span.kind) == ("chain", SERVER) else its in (which, which.split(".")[0])
            if not own or span.kind == parent.kind:
                astray.append(f"{chain.brief(span)}, under {chain.brief(parent)}")
    assert not astray, "\n".join(astray[:10])
    verdict = chain.judge(spans, last, agent.pids, app.pids)
    assert verdict.total("right", "joined") > 0, verdict.markdown()


# --- clients and callees of other kinds ----------------------------------------------------------------------------------

CLIENTS = ["requests", "requests-timeout", "urllib", "http.client", "http.client-post", "urllib3", "httpx", "httpx-async",
           "aiohttp", "curl", "pipelined", "pipelined-cut"]
CALLEES = ["stdlib", "gthread", "sync"]
# Toolchains that are on this machine.
if chain.GO:
    CLIENTS.append("go")
    CALLEES.append("go")
if chain.NODE:
    CLIENTS += ["node-http", "node-fetch"]
    CALLEES.append("node")


def check_clients(t, programs, propagate="off", headers=None):
    """`programs`: [(name, Program, callee)], run one after the other under one agent. Gives all spans."""
    ran = [(name, program.go(), callee) for name, program, callee in programs]
    spans = t.finish()
    problems, seen = [], chain.Seen(spans)
    for name, calls, callee in ran:
        problems += flaws(chain.judge_client(spans, calls, callee.pids, route=name), len(calls), propagate, headers)
        # Calls that no request makes are roots, each of a trace of its own.
        roots = [span for call in calls for span in seen.clients.get(call["id"], [])]
        if any(s.parent_id for s in roots) or len({s.trace_id for s in roots}) != len(calls):
            problems.append(f"{name}: not a trace for each call")
    assert not problems, "\n".join(problems) + "\n" + t.agent.output()[-3000:]
    return spans


@pytest.mark.parametrize("propagate", PROPAGATE)
def test_clients(tracing, stack, callee_env, propagate):
    """What each client sends is joined; who sends without blocking may have a header as well."""
    callee = chain.start_callee(stack, "uvicorn", callee_env)
    programs = [(how, chain.Program(stack, how, f"http://127.0.0.1:{callee.port}", tag=how), callee) for how in CLIENTS]
    t = tracing()
    chain.start(t, f"--propagate={propagate}", pids=[callee.pid, *(p.pid for _, p, _ in programs)])
    check_clients(t, programs, propagate)


@pytest.mark.parametrize("propagate", PROPAGATE)
def test_callees(tracing, stack, callee_env, propagate):
    callees = [chain.start_callee(stack, kind, callee_env) for kind in CALLEES]
    programs = [(kind, chain.Program(stack, "httpx-async", f"http://127.0.0.1:{callee.port}", tag=kind), callee)
                for kind, callee in zip(CALLEES, callees)]
    t = tracing()
    chain.start(t, f"--propagate={propagate}", pids=[s.pid for s in callees] + [p.pid for _, p, _ in programs])
    check_clients(t, programs, propagate)


def test_clients_by_the_other_collector(tracing, stack, callee_env):
    callee = chain.start_callee(stack, "uvicorn", callee_env)
    programs = [(how, chain.Program(stack, how, f"http://127.0.0.1:{callee.port}", tag=how), callee)
                for how in ("requests", "httpx-async", "pipelined", "curl")]
    t = tracing()
    chain.start(t, "--collector", "syscall", pids=[callee.pid, *(p.pid for _, p, _ in programs)])
    check_clients(t, programs, "auto")


def test_ipv6(tracing, stack, callee_env):
    callee = chain.start_callee(stack, "uvicorn", callee_env, host="::1")
    program = chain.Program(stack, "httpx-async", f"http://[::1]:{callee.port}")
    t = tracing()
    chain.start(t, "--propagate=off", pids=[program.pid, callee.pid])
    spans = check_clients(t, [("IPv6", program, callee)])
    assert {s.attrs["network.peer.address"] for s in servers(spans)} == {"::1"}


MAPPED = [("127.0.0.1", "::ffff:127.0.0.1"), ("[::ffff:127.0.0.1]", "127.0.0.1"), ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1")]


def test_ipv4_mapped(tracing, stack, callee_env):
    """IPv4 on an IPv6 socket at the callee, at the client, at both."""
    programs = []
    for n, (client, bind) in enumerate(MAPPED):
        callee = chain.start_callee(stack, "stdlib", callee_env, BIND=bind)
        programs.append((f"{client} to {bind}", chain.Program(stack, "http.client", f"http://{client}:{callee.port}", tag=f"m{n}"),
                         callee))
    t = tracing()
    chain.start(t, "--propagate=off", pids=[s.pid for _, program, callee in programs for s in (program, callee)])
    spans = check_clients(t, programs)
    assert {s.attrs["network.peer.address"] for s in servers(spans)} == {"127.0.0.1"}


UNIX = [("httpx-unix", "uvicorn"), ("http.client-unix", "uvicorn"), ("http.client-unix", "stdlib")]


@pytest.mark.parametrize("propagate", PROPAGATE)
def test_unix_sockets(tracing, stack, callee_env, log_dir, propagate):
    programs = []
    for n, (how, kind) in enumerate(UNIX):
        path = f"{log_dir}/chain-{n}-{propagate}.sock"
        callee = chain.start_callee(stack, kind, callee_env, **({"uds": path} if kind == "uvicorn" else {"UNIX": path}))
        programs.append((f"{how} to {kind}", chain.Program(stack, how, path, tag=f"u{n}"), callee))
    t = tracing()
    chain.start(t, f"--propagate={propagate}", pids=[s.pid for _, program, callee in programs for s in (program, callee)])
    check_clients(t, programs, propagate, headers=False)


def test_agent_that_comes_later(tracing, stack, redis, callee_env):
    """Connections that were open before are joined from their next request on."""
    agent = chain.start_callee(stack, "uvicorn", callee_env)
    app = gateway(stack, "uvloop", {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    chain.run(app.port, chain.paths("before", 200), 16)
    t = tracing()
    chain.start(t, "--propagate=headers", pids=[app.pid, agent.pid])
    answers = chain.run(app.port, chain.paths("r", 300), 16)
    verdict = chain.judge(t.finish(), answers, agent.pids, app.pids)
    check(verdict, sum(len(a.calls) for a in answers), "headers", tracing=t)
    assert verdict.total("right", "header") > 0, verdict.markdown()


# --- proxies -------------------------------------------------------------------------------------------------------------


def judge_proxy(spans, web, callee, answers):
    """By ids: client → proxy's server span → its client span → the service's server span → its commands."""
    verdict = chain.Verdict()
    at_proxy = chain.Seen([s for s in spans if s.pid in web.pids])
    behind = chain.Seen([s for s in spans if s.pid in callee.pids])
    for answer in answers:
        outer, inner = at_proxy.callees.get(answer.id, []), behind.callees.get(answer.id, [])
        calls = at_proxy.clients.get(answer.id, [])
        if not len(outer) == len(inner) == len(calls) == 1:
            verdict.note("proxy", "joined", "missing", f"{answer.id}: {len(outer)}, {len(calls)}, {len(inner)} spans")
            continue
        verdict.note("proxy", "linked", chain.under(calls[0], outer[0]), calls[0], outer[0])
        verdict.note("proxy", "joined", chain.under(inner[0], calls[0]), inner[0], calls[0])
        for command in behind.redis.get(answer.id, []):
            verdict.note("proxy", "redis", chain.under(command, inner[0]), command, inner[0])
    return verdict


@pytest.mark.parametrize("propagate", PROPAGATE)
@pytest.mark.parametrize("connections", [1, 16, 64])
@pytest.mark.parametrize("keepalive", [True, False], ids=["keepalive", "close"])
def test_proxy(tracing, stack, callee_env, keepalive, connections, propagate):
    """nginx in front of uvicorn. Within nginx a link is right or missing, never wrong; what goes over a socket is joined."""
    callee = chain.start_callee(stack, "uvicorn", callee_env)
    web = chain.nginx(stack, f"127.0.0.1:{callee.port}", keepalive)
    t = tracing()
    chain.start(t, f"--propagate={propagate}", pids=[web.pid, callee.pid])
    answers = chain.run(web.port, [f"/chain/p{n}" for n in range(400)], connections)
    verdict = judge_proxy(t.finish(), web, callee, answers)
    print(f"\nnginx, {connections} connections, {'kept' if keepalive else 'closed'}, --propagate={propagate}: "
          f"{verdict.total('right', 'linked')} right, {verdict.total('wrong', 'linked')} wrong, "
          f"{verdict.total('none', 'linked')} none")
    assert not verdict.problems(none_allowed=("linked",)), "\n".join(verdict.problems()) + "\n" + t.agent.output()[-2000:]
    assert verdict.total("right", "joined") == len(answers)
    assert connections > 1 or verdict.total("none", "linked") == 0, "\n".join(verdict.problems())


def turns(spans):
    """{(peer's port, which time on that connection): server span}. Ports are not used again in a short run."""
    found, counts = {}, {}
    for span in sorted(spans, key=lambda s: s.start):
        port = span.attrs.get("network.peer.port")
        counts[port] = counts.get(port, 0) + 1
        found[port, counts[port]] = span
    return found


@pytest.mark.parametrize("connections", [1, 16, 64])
def test_proxy_with_identical_requests(tracing, stack, callee_env, connections):
    """Requests that look all the same: which belongs to which is told by the ports at both ends."""
    callee = chain.start_callee(stack, "uvicorn", callee_env)
    web = chain.nginx(stack, f"127.0.0.1:{callee.port}")
    t = tracing()
    chain.start(t, "--propagate=off", pids=[web.pid, callee.pid])
    answers = chain.run(web.port, ["/port"] * 500, connections)
    spans = t.finish()
    outer, inner = turns(servers(spans, web.pids)), turns(servers(spans, callee.pids))
    by_id = {(s.trace_id, s.span_id): s for s in spans}
    tally = chain.Tally()
    for answer in answers:
        wanted, at_service = outer[answer.port, answer.turn], inner[answer.body["port"], answer.body["turn"]]
        call = by_id.get((at_service.trace_id, at_service.parent_id))
        assert call and call.kind == CLIENT and call.pid in web.pids, f"not joined: {at_service}"
        tally.note(chain.under(call, wanted), call, wanted)
    print(f"\nnginx, {connections} connections, identical requests: {tally.right} right, {tally.wrong} wrong, {tally.none} none")
    assert not tally.wrong, tally.examples
    assert connections > 1 or not tally.none, tally.examples


@pytest.mark.parametrize("propagate", PROPAGATE)
def test_proxy_hands_a_traceparent_on(tracing, stack, callee_env, propagate):
    """nginx sends on what came: everything is in the trace of who sent it, and the header is as it was."""
    callee = chain.start_callee(stack, "uvicorn", callee_env)
    web = chain.nginx(stack, f"127.0.0.1:{callee.port}")
    t = tracing()
    chain.start(t, f"--propagate={propagate}", pids=[web.pid, callee.pid])
    sent, answers = {}, []
    for n in range(60):
        sent[f"t{n}"] = (f"{n + 1:032x}", f"{n + 1:016x}")
        answers += chain.run(web.port, [f"/chain/t{n}"], 1, f"traceparent: 00-{n + 1:032x}-{n + 1:016x}-01\r\n")
    spans = t.finish()
    at_proxy = chain.Seen([s for s in spans if s.pid in web.pids])
    behind = chain.Seen([s for s in spans if s.pid in callee.pids])
    for answer in answers:
        trace, remote = sent[answer.id]
        assert answer.body["traceparent"] == [f"00-{trace}-{remote}-01"]
        (outer,), (inner,) = at_proxy.callees[answer.id], behind.callees[answer.id]
        (call,) = at_proxy.clients[answer.id]
        assert (outer.trace_id, outer.parent_id) == (trace, remote)
        # The header says that the service was called by who sent the request; the join knows better.
        assert inner.trace_id == trace and inner.parent_id in (remote, call.span_id), (inner, call)
        assert chain.under(call, outer) == "right", (call, outer)


def test_gateway_behind_a_proxy(tracing, stack, redis, callee_env):
    """One trace from the first hop to the last: nginx, the gateway, the agent service, Redis."""
    agent = chain.start_callee(stack, "uvicorn", callee_env)
    app = gateway(stack, "uvloop", {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    web = chain.nginx(stack, f"127.0.0.1:{app.port}")
    t = tracing()
    chain.start(t, pids=[web.pid, app.pid, agent.pid])
    answers = chain.run(web.port, chain.paths("r", 60), 1)
    spans = t.finish()
    by_id, seen = {(s.trace_id, s.span_id): s for s in spans}, chain.Seen(spans, agent.pids)
    for answer in answers:
        for call in answer.calls:
            (span,), way = seen.callees[call["id"]], []
            while span:
                way.append((span.kind, span.pid))
                root, span = span, by_id.get((span.trace_id, span.parent_id))
            assert not root.parent_id
            assert way == [(SERVER, agent.pid), (CLIENT, app.pid), (SERVER, app.pid), (CLIENT, web.pid), (SERVER, web.pid)]
