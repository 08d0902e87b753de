#!/usr/bin/env python3
"""What tracing costs, measured in alternating runs (none, agent, none, agent, …) against the bars of the project.

Owns: the table on stdout and in build/bench.md. Refuses: to report a mean; every figure is a median of its runs.
The spans go as OTLP over HTTP to a sink that costs next to nothing (tests/bench/sink.c).
env: BENCH_SECONDS (per run, default 4), BENCH_ROUNDS (pairs, default 5), BENCH_COLLECTOR (auto, sock, syscall),
     BENCH_ONLY (words of the rows wanted, by comma)
"""
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import services  # noqa: E402
from propagate_cost import bench_propagate  # noqa: E402
from python_cost import bench_python  # noqa: E402

SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
COLLECTOR = os.environ.get("BENCH_COLLECTOR", "auto")
ONLY = [w for w in os.environ.get("BENCH_ONLY", "").split(",") if w]
BENCH = os.path.join(services.BUILD, "bench")
SETTLE_SECONDS = 0.3


def run(*argv):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=120)
    if p.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {p.stdout}{p.stderr}")
    return p.stdout + p.stderr


def cpu_ns(pid):
    """Time on a core of all threads of a process, from the scheduler's own clock."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as f:
            total += int(f.read().split()[0])
    return total


def wrk(port, path="/", connections=16):
    """(requests, requests per second)"""
    text = run("wrk", "-t", 1, "-c", connections, "-d", f"{SECONDS:g}s", f"http://127.0.0.1:{port}{path}")
    return int(re.search(r"(\d+) requests in", text)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])


class Bench:
    run, cpu_ns = staticmethod(run), staticmethod(cpu_ns)

    def __init__(self, stack):
        self.stack, self.seconds, self.rounds, self.settle = stack, SECONDS, ROUNDS, SETTLE_SECONDS
        self.sink = stack.start("sink", [os.path.join(BENCH, "sink")])
        port = self.sink.wait_ready(lambda: re.search(r"port (\d+)", self.sink.output()))[1]
        self.env = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        self.rows, self.notes, self.sections = [], [], []
        self.rss, self.maps, self.starts = [], [], []

    def agent(self, *pids, env=None, args=()):
        args = [*args, *(a for pid in pids for a in ("--pid", pid))]
        agent = self.stack.spanloom("--collector", COLLECTOR, *args, env={**self.env, **(env or {})})
        self.starts.append(agent.ready_seconds)
        return agent

    def end(self, agent):
        """Its memory is taken after its work, then it ends; its last lines tell what was lost."""
        self.rss.append(services.rss_bytes(agent.pid))
        self.maps.append(services.bpf_map_bytes(agent.pid))
        if agent.stop(timeout=30) != 0:
            raise RuntimeError(f"the agent failed:\n{agent.output()[-3000:]}")
        return agent.output()

    @staticmethod
    @contextlib.contextmanager
    def counting():
        """The kernel counts the runs and the time of BPF programs, which costs."""
        switch = "/proc/sys/kernel/bpf_stats_enabled"
        with open(switch) as f:
            before = f.read()
        try:
            with open(switch, "w") as f:
                f.write("1")
            yield
        finally:
            with open(switch, "w") as f:
                f.write(before)

    @staticmethod
    def bpftool():
        return run(os.path.join(services.TOP, "tools", "find-bpftool")).strip()

    def row(self, what, none, agent, ratio, bar, good):
        self.rows.append((what, none, agent, ratio, bar, good))
        mark = "" if good is None else "ok" if good else "MISSED"
        print(f"  {what}: {none} | {agent} | {ratio} | {bar} {mark}", flush=True)

    def pairs(self, pids, measure, spans_of):
        """
        Alternating runs. measure() gives (figure, units of work); gives the medians without and with, and the agent's
        CPU in µs a span.
        """
        without, with_agent, per_span = [], [], []
        for _ in range(ROUNDS):
            without.append(measure()[0])
            agent = self.agent(*pids)
            time.sleep(SETTLE_SECONDS)
            begin = cpu_ns(agent.pid)
            figure, work = measure()
            time.sleep(1.2)  # what waits in a batch is part of the work
            per_span.append((cpu_ns(agent.pid) - begin) / 1000 / spans_of(work))
            with_agent.append(figure)
            self.note_losses(self.end(agent))
            time.sleep(SETTLE_SECONDS)
        return statistics.median(without), statistics.median(with_agent), statistics.median(per_span)

    def note_losses(self, text):
        for word, n in re.findall(r"\b(ring_full|queue_full|export_failed)\b[ :=]+(\d+)", text):
            if int(n):
                self.notes.append(f"{word}: {n}")

    def agent_row(self, load, per_span):
        self.row(f"agent, CPU a span ({load})", "", f"{per_span:.1f} µs", "", "≤ 20 µs", per_span <= 20)


def bench_uvicorn(b):
    app = b.stack.uvicorn("gateway")
    wrk(app.port, "/health")

    def measure():
        begin = cpu_ns(app.pid)
        n, _ = wrk(app.port, "/health")
        return (cpu_ns(app.pid) - begin) / 1000 / n, n

    none, agent, per_span = b.pairs([app.pid], measure, lambda n: n)
    b.row("uvicorn, CPU a /health request", f"{none:.1f} µs", f"{agent:.1f} µs", f"{agent / none:.3f}", "≤ 1.05",
          agent / none <= 1.05)
    b.agent_row("uvicorn /health", per_span)


def bench_redis(b):
    store = b.stack.redis()
    n = int(60000 * SECONDS)

    def measure():
        text = run("redis-benchmark", "-p", store.port, "-n", n, "-c", 50, "-t", "get", "--csv")
        return float(re.findall(r'"GET[^"]*","([\d.]+)"', text)[0]), n

    none, agent, per_span = b.pairs([store.pid], measure, lambda n: n)
    b.row("redis-server, GET, requests/s", f"{none:.0f}", f"{agent:.0f}", f"{agent / none:.3f}", "≥ 0.90",
          agent / none >= 0.90)
    b.agent_row("redis-server", per_span)


def bench_nginx(b):
    web = b.stack.nginx()

    def measure():
        n, rate = wrk(web.port, "/index.html")
        return rate, n

    none, agent, per_span = b.pairs([web.pid], measure, lambda n: n)
    b.row("nginx under wrk, requests/s", f"{none:.0f}", f"{agent:.0f}", f"{agent / none:.3f}", "≥ 0.93",
          agent / none >= 0.93)
    b.agent_row("nginx", per_span)


def bench_calls(b):
    """An untraced process beside an agent that traces another one."""
    app = b.stack.stdlib()

    def measure():
        p = subprocess.run([os.path.join(BENCH, "calls")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                           check=True)
        return {name: float(ns) for name, ns in (line.split() for line in p.stdout.splitlines())}

    without, with_agent = [], []
    for _ in range(ROUNDS):
        without.append(measure())
        agent = b.agent(app.pid)
        time.sleep(SETTLE_SECONDS)
        with_agent.append(measure())
        b.end(agent)
    for name in without[0]:
        none = statistics.median(m[name] for m in without)
        agent = statistics.median(m[name] for m in with_agent)
        limit, bar = (150, "≤ 150 ns") if "socket" in name else (15, "nothing (noise ≤ 15 ns)")
        b.row(f"untraced process, {name}", f"{none:.0f} ns", f"{agent:.0f} ns", f"+{agent - none:.0f} ns", bar,
              agent - none <= limit)


def bench_memory(b):
    if not b.rss:
        agent = b.agent(os.getpid())
        b.end(agent)
    rss, maps = max(b.rss) / 2**20, max(b.maps) / 2**20
    b.row("agent, resident and BPF maps", "", f"{rss:.1f} + {maps:.1f} MiB", f"{rss + maps:.1f} MiB", "≤ 64 MiB",
          rss + maps <= 64)
    ready = statistics.median(b.starts)
    b.row("agent, start to ready", "", f"{ready * 1000:.0f} ms", f"max {max(b.starts) * 1000:.0f} ms", "≤ 1000 ms",
          max(b.starts) <= 1)


def bench_latency(b):
    """From the end of a request, by its client's clock, to the span at the collector, at the defaults."""
    from otlp_receiver import OtlpReceiver
    app = b.stack.uvicorn("gateway")
    receiver = OtlpReceiver()
    agent = b.agent(app.pid, env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.grpc_port}",
                                  "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    seconds = []
    for n in range(max(5, int(3 * SECONDS))):
        time.sleep(0.137)
        services.http_get(app.port, "/health")
        begin = time.monotonic()
        receiver.wait_for(n + 1, 10)
        seconds.append(time.monotonic() - begin)
    b.end(agent)
    receiver.close()
    b.row("span at the collector after its end", "", f"{statistics.median(seconds) * 1000:.0f} ms",
          f"max {max(seconds) * 1000:.0f} ms", "≤ 1500 ms", max(seconds) <= 1.5)


def bench_programs(b):
    """BPF run time of each program, in a run of its own because the counting costs."""
    app = b.stack.uvicorn("gateway")
    agent = b.agent(app.pid)
    with b.counting():
        n, _ = wrk(app.port, "/health")
        figures = [json.loads(run(b.bpftool(), "-j", "prog", "show", "id", number))
                   for kind, number in services.bpf_objects(agent.pid) if kind == "prog"]
    b.end(agent)
    for p in sorted(figures, key=lambda p: -p.get("run_time_ns", 0)):
        if p.get("run_cnt"):
            b.row(f"BPF program {p.get('name', p['id'])} (uvicorn /health)", f"{p['run_cnt'] / n:.1f} runs a request",
                  f"{p['run_time_ns'] / p['run_cnt']:.0f} ns a run", f"{p['run_time_ns'] / n / 1000:.2f} µs a request", "",
                  None)


BENCHES = {"uvicorn": bench_uvicorn, "redis": bench_redis, "nginx": bench_nginx, "calls": bench_calls,
           "memory": bench_memory, "latency": bench_latency, "programs": bench_programs, "python": bench_python,
           "propagate": bench_propagate}


def table(b):
    lines = [f"Medians of {ROUNDS} alternating pairs of {SECONDS:g} s, collector {COLLECTOR}, OTLP over HTTP to a local sink, "
             f"kernel {os.uname().release}, {os.cpu_count()} cores.", "",
             "| what | without | with the agent | ratio or difference | bar | |", "| --- | --- | --- | --- | --- | --- |"]
    for what, none, agent, ratio, bar, good in b.rows:
        mark = "" if good is None else "ok" if good else "**missed**"
        lines.append(f"| {what} | {none} | {agent} | {ratio} | {bar} | {mark} |")
    if not b.rows:
        lines = lines[:1]
    for section in b.sections:
        lines += ["", section]
    if b.notes:
        lines += ["", "Lost in these runs: " + "; ".join(b.notes)]
    return "\n".join(lines) + "\n"


def main():
    if os.geteuid() != 0:
        sys.exit("bench: loading BPF programs needs root; run `sudo make bench`")
    unknown = [w for w in ONLY if w not in BENCHES]
    if unknown:
        sys.exit(f"bench: BENCH_ONLY has {unknown[0]}; there are {', '.join(BENCHES)}")
    services.exit_on_signals()
    logs = tempfile.mkdtemp(prefix="spanloom-bench-")
    os.chmod(logs, 0o755)
    try:
        with services.Stack(logs) as stack:
            b = Bench(stack)
            for name, bench in BENCHES.items():
                if not ONLY or name in ONLY:
                    print(f"{name}:", flush=True)
                    bench(b)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    text = table(b)
    with open(os.path.join(services.BUILD, "bench.md"), "w") as f:
        f.write(text)
    print("\n" + text)
    return 0


sys.exit(main())
