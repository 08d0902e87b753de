"""The part `propagate` of the benchmarks: what one trace across processes costs a gateway, and what sampling saves of it.

Owns: the gateway and the agent service of tests/apps, both traced, under uvicorn and uvloop; alternating rounds of each way to
propagate and of each sampling ratio (with headers), against none; the run time of BPF programs for all and for few requests.
Invariant: the same processes serve all rounds. The bar: at 0.01 the application's added CPU is a third of that at 1.0 at most.
"""
import json
import os
import re
import statistics
import subprocess
import time
from dataclasses import dataclass, field

import services

CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "16"))
FLUSH_SECONDS = 1.2  # what waits in a batch is part of the work
ROUTES = ["/call", "/health"]
NONE, JOIN, HEADERS, TCP = "none", "join only", "headers", "headers, tcp"
RATIOS = {"0.1": "headers, 0.1", "0.01": "headers, 0.01", "0": "headers, 0"}
BAR = 1 / 3


@dataclass
class Figures:
    """Of one mode on one route: CPU in µs a request."""

    app: list = field(default_factory=list)
    agent: list = field(default_factory=list)

    def median(self, what):
        return statistics.median(getattr(self, what) or [0])


def modes():
    """{mode: (arguments, environment) of its agent}"""
    found = {JOIN: (["--propagate=off"], {}), HEADERS: (["--propagate=headers"], {}),
             TCP: (["--propagate=headers,tcp"], {})}
    for ratio, name in RATIOS.items():
        found[name] = (["--propagate=headers"], {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                                                 "OTEL_TRACES_SAMPLER_ARG": ratio})
    return found


def requests_of(app, route, seconds):
    argv = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{max(1, round(seconds))}s", f"http://127.0.0.1:{app.port}{route}"]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{route}: {text}")
    return int(re.search(r"(\d+) requests in", text)[1])


def measure(b, app, route, figures, agent=None):
    """Connections that were idle have expired in the pools and are made anew by the first second: that is not counted."""
    requests_of(app, route, 1)
    begin, agent_begin = b.cpu_ns(app.pid), agent and b.cpu_ns(agent.pid)
    requests = requests_of(app, route, b.seconds)
    time.sleep(FLUSH_SECONDS)
    figures.app.append((b.cpu_ns(app.pid) - begin) / 1000 / requests)
    if agent:
        figures.agent.append((b.cpu_ns(agent.pid) - agent_begin) / 1000 / requests)


def compare(b, apps, route):
    """{mode: Figures}: in every round all modes, and none before every other one."""
    figures = {mode: Figures() for mode in (NONE, *modes())}
    for _ in range(b.rounds):
        for n, (mode, (args, env)) in enumerate(modes().items()):
            if n % 2 == 0:
                measure(b, apps[0], route, figures[NONE])
            agent = b.agent(*(app.pid for app in apps), args=args, env=env)
            time.sleep(b.settle)
            measure(b, apps[0], route, figures[mode], agent)
            text = b.end(agent)
            b.note_losses(text)
            if route == ROUTES[0] and mode == HEADERS and "injected 0" in text:
                b.notes.append(f"{route}, {mode}: no header was put in")
            time.sleep(b.settle)
    return figures


def cost_rows(b, route, figures):
    none = figures[NONE].median("app")
    full = figures[HEADERS].median("app") - none
    rows = []
    for mode, f in figures.items():
        adds = f.median("app") - none
        share = adds / full if full > 0 else float("nan")
        bar = ""
        if mode == RATIOS["0.01"]:
            verdict = "nothing but noise was added" if full <= 0 else "ok" if share <= BAR else "**missed**"
            bar = f"≤ {BAR:.2f} {verdict}"
        shown = "" if mode == NONE else f"{adds:+.1f}"
        rows.append(f"| {route} | {mode} | {f.median('app'):.1f} | {shown} | {f.median('app') / none:.3f} | "
                    f"{f.median('agent'):.1f} | {share:.2f} {bar} |")
        print(f"  {route} {mode}: {f.median('app'):.1f} µs {shown}, agent {f.median('agent'):.1f} µs; of headers at 1.0 "
              f"{share:.2f} {bar}", flush=True)
    return rows


def program_rows(b, apps, route):
    """What ran in the kernel when all and when few requests are sampled, in runs of their own because the counting costs."""
    rows = []
    for mode in (JOIN, HEADERS, RATIOS["0.01"], RATIOS["0"]):
        args, env = modes()[mode]
        agent = b.agent(*(app.pid for app in apps), args=args, env=env)
        time.sleep(b.settle)
        with b.counting():
            n = requests_of(apps[0], route, b.seconds)
            programs = [json.loads(b.run(b.bpftool(), "-j", "prog", "show", "id", number))
                        for kind, number in services.bpf_objects(agent.pid) if kind == "prog"]
        b.end(agent)
        ran = sorted((p for p in programs if p.get("run_cnt", 0) >= n / 100), key=lambda p: -p["run_time_ns"])
        rows += [f"| {route} | {mode} | {p.get('name', p['id'])} | {p['type']} | {p['run_cnt'] / n:.2f} | "
                 f"{p['run_time_ns'] / p['run_cnt']:.0f} | {p['run_time_ns'] / n / 1000:.2f} |" for p in ran]
        whole = sum(p["run_time_ns"] for p in ran) / n / 1000
        rows.append(f"| {route} | {mode} | all | | {sum(p['run_cnt'] for p in ran) / n:.1f} | | {whole:.2f} |")
        print(f"  {route} {mode}: {whole:.2f} µs of BPF programs a request", flush=True)
    return rows


def bench_propagate(b):
    redis = b.stack.redis()
    callee = b.stack.uvicorn("agent_service", env={"REDIS_PORT": redis.port})
    gateway = b.stack.uvicorn("gateway", env={"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{callee.port}"})
    apps, costs, programs = (gateway, callee), [], []
    for route in ROUTES:
        requests_of(gateway, route, 1)
        costs += cost_rows(b, route, compare(b, apps, route))
    for route in ROUTES:
        programs += program_rows(b, apps, route)
    b.sections.append("\n".join([
        f"One trace across processes: the gateway of tests/apps under uvicorn and uvloop, {CONNECTIONS} connections, it and "
        "the service that it calls traced; the gateway's CPU in µs a request, the agent's own beside it (for both services). A "
        "number is the sampling ratio, else all is sampled. The bar: at 0.01 a third at most of what is added at 1.0.", "",
        "| route | mode | gateway | added | ratio | agent's own | of headers at 1.0 |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |", *costs, "",
        "| route | mode | BPF program | type | runs a request | ns a run | µs a request |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |", *programs]))
