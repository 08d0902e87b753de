"""The part `python` of the benchmarks: what tracing adds to a FastAPI service, without anything, with the agent, and with
the OpenTelemetry Python SDK in the process, in alternating runs; BPF time and uprobe hits for each route.

Owns: the two processes that are compared (the same application, tests/apps/app, once plain and once under tests/apps/sdk.py)
and the tables about them. The SDK is what its documentation says: FastAPI, HTTPX and Redis instrumentations, a batch
processor and OTLP over HTTP, at its defaults. env: BENCH_CONNECTIONS (default 16)
"""
import json
import os
import re
import statistics
import subprocess
import time
from dataclasses import dataclass, field

import services
import venvs

CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "16"))
MODES = ("none", "agent", "sdk")
FLUSH_SECONDS = 1.2  # what waits in a batch is part of the work
SPAN_RULE = "--span", "app.services.a2a_client:call_agent=a2a.call,agent.type=gateway"
CALL = "POST /a2a/{agent}/rpc"
LUA = """wrk.method = "POST"
wrk.body = '{"text": "hello"}'
wrk.headers["Content-Type"] = "application/json"
"""
ROUTES = {"GET /health": ("/health", False), CALL: ("/a2a/writer/rpc", True),
          "GET /fanout/{agent} (three calls)": ("/fanout/writer", False),
          "GET /report/{agent} (def)": ("/report/writer", False)}
UNITS = {"": 1e6, "us": 1, "ms": 1e3, "s": 1e6}
APP_BAR, ALL_BAR, LATENCY_BAR = 0.1, 0.2, 1.03


@dataclass
class Figures:
    """Of one mode on one route; µs."""

    app: list = field(default_factory=list)
    agent: list = field(default_factory=list)
    latency: list = field(default_factory=list)

    def median(self, what):
        return statistics.median(getattr(self, what) or [0])


class Load:
    def __init__(self, log_dir, seconds):
        self.seconds, self.script = seconds, os.path.join(log_dir, "post.lua")
        with open(self.script, "w") as f:
            f.write(LUA)

    def run(self, port, route, connections, seconds=None):
        """(requests, median latency in µs)"""
        path, post = ROUTES[route]
        argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds or self.seconds))}s", "--latency",
                *(["-s", self.script] if post else []), f"http://127.0.0.1:{port}{path}"]
        text = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout
        if "Non-2xx" in text or "Socket errors" in text:
            raise RuntimeError(f"{route}: {text}")
        value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", text).groups()
        return int(re.search(r"(\d+) requests in", text)[1]), float(value) * UNITS[unit]


def start(b):
    """The two processes, by one interpreter and with the same packages."""
    python = venvs.venv(requirements=venvs.BENCH_REQUIREMENTS).python
    redis, backend = b.stack.redis(), b.stack.truth_backend(at_once=True)
    env = {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{backend.port}", "OTEL_SERVICE_NAME": "gateway"}
    plain = b.stack.python_app("app.main", python=python, env=env)
    sdk = b.stack.python_app("sdk", python=python, env={
        **env, "SDK_APP": "app.main", "OTEL_EXPORTER_OTLP_ENDPOINT": b.env["OTEL_EXPORTER_OTLP_ENDPOINT"]})
    return plain, sdk


def rules(route):
    """The custom span where the SDK has one, too."""
    return SPAN_RULE if route == CALL else ()


def measure(b, load, route, service, figures, agent=None):
    """CPU of a loaded service, then the latency of one client at a time. Connections that were idle have expired in its
    pools and the first requests make them anew: that is not counted."""
    load.run(service.port, route, CONNECTIONS, 1)
    begin, agent_begin = b.cpu_ns(service.pid), agent and b.cpu_ns(agent.pid)
    requests, _ = load.run(service.port, route, CONNECTIONS)
    time.sleep(FLUSH_SECONDS)
    figures.app.append((b.cpu_ns(service.pid) - begin) / 1000 / requests)
    if agent:
        figures.agent.append((b.cpu_ns(agent.pid) - agent_begin) / 1000 / requests)
    _, latency = load.run(service.port, route, 1, load.seconds / 3)
    figures.latency.append(latency)


def compare(b, load, route, plain, sdk):
    """{mode: Figures} of alternating rounds."""
    figures = {mode: Figures() for mode in MODES}
    for _ in range(b.rounds):
        measure(b, load, route, plain, figures["none"])
        agent = b.agent(plain.pid, args=rules(route))
        time.sleep(b.settle)
        measure(b, load, route, plain, figures["agent"], agent)
        b.note_losses(b.end(agent))
        time.sleep(b.settle)
        measure(b, load, route, sdk, figures["sdk"])
    return figures


def verdict(good):
    return "ok" if good else "**missed**"


def cost_row(b, route, figures):
    none, agent, sdk = (figures[mode] for mode in MODES)
    adds = agent.median("app") - none.median("app")
    sdk_adds = sdk.median("app") - none.median("app")
    share, whole = adds / sdk_adds, (adds + agent.median("agent")) / sdk_adds
    slower = agent.median("latency") / none.median("latency")
    bars = [verdict(share <= APP_BAR), verdict(whole <= ALL_BAR),
            verdict(slower <= LATENCY_BAR) if route == CALL else ""]
    print(f"  {route}: {none.median('app'):.0f} µs, agent {adds:+.1f} and {agent.median('agent'):.1f} of its own, "
          f"SDK {sdk_adds:+.0f}: {share:.3f} {bars[0]}, {whole:.3f} {bars[1]}; latency {slower:.3f} {bars[2]}", flush=True)
    return (f"| {route} | {none.median('app'):.0f} | {adds:+.1f} | {agent.median('agent'):.1f} | {sdk_adds:+.0f} | "
            f"{share:.3f} {bars[0]} | {whole:.3f} {bars[1]} | {none.median('latency'):.0f} | {agent.median('latency'):.0f} "
            f"({slower:.3f}) {bars[2]} | {sdk.median('latency'):.0f} |")


def count_programs(b, load, plain):
    """Rows of what ran in the kernel for each route, in runs of their own because the counting costs."""
    rows, uprobes = [], []
    for route in ROUTES:
        agent = b.agent(plain.pid, args=rules(route))
        time.sleep(b.settle)
        with b.counting():
            n, _ = load.run(plain.port, route, CONNECTIONS)
            programs = [json.loads(b.run(b.bpftool(), "-j", "prog", "show", "id", number))
                        for kind, number in services.bpf_objects(agent.pid) if kind == "prog"]
        b.end(agent)
        ran = sorted((p for p in programs if p.get("run_cnt", 0) >= n / 100), key=lambda p: -p["run_time_ns"])
        for p in ran:
            rows.append(f"| {route} | {p.get('name', p['id'])} | {p['type']} | {p['run_cnt'] / n:.2f} | "
                        f"{p['run_time_ns'] / p['run_cnt']:.0f} | {p['run_time_ns'] / n / 1000:.2f} |")
        hits = sum(p["run_cnt"] for p in ran if p["type"] == "kprobe")
        uprobes.append(f"| {route} | {hits / n:.1f} | {sum(p['run_time_ns'] for p in ran) / n / 1000:.2f} |")
        print(f"  {route}: {hits / n:.1f} uprobe hits a request", flush=True)
    return uprobes, rows


def bench_python(b):
    plain, sdk = start(b)
    load = Load(b.stack.log_dir, b.seconds)
    costs = [cost_row(b, route, compare(b, load, route, plain, sdk)) for route in ROUTES]
    uprobes, programs = count_programs(b, load, plain)
    b.sections.append("\n".join([
        f"A FastAPI service under uvicorn and uvloop, {CONNECTIONS} connections; CPU in µs a request; latency: the median of "
        "one client, in µs. The bars: of what the SDK adds to the application, the agent adds at most a tenth, with its own "
        "CPU a fifth; the median latency of the call grows by less than 3%. On the call both make the custom span a2a.call.", "",
        "| route | none | agent adds | agent's own | SDK adds | agent / SDK | with its own | latency, none | agent | SDK |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- | ---: | --- | ---: |", *costs, "",
        "| route | uprobe hits a request | BPF µs a request, all programs |", "| --- | ---: | ---: |", *uprobes, "",
        "| route | BPF program | type | runs a request | ns a run | µs a request |", "| --- | --- | --- | ---: | ---: | ---: |",
        *programs]))
