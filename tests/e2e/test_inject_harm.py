"""The application is never harmed: whatever happens to the agent, every request is answered and every byte is right.

Owns: the loads under which agents come, die, stand still and meet each other, and the random test of all ways to send.
"""
import os
import re
import resource
import signal
import statistics
import subprocess
import time

import inject_clients
import pytest
import services
from acceptor import Acceptor
from inject_clients import Helper
from inject_fuzz import Server, misled
from inject_messages import LINE
from inject_recorder import OK, Recorder
from seen import clients

HEADERS = "--propagate=headers"
FUZZ_REQUESTS = 1500  # the long form: inject_fuzz.py --requests 100000
KILLS, TERMS, ADOPTIONS = 20, 5, 5
QUIET_SECONDS, AGENT_SECONDS, STOPPED_SECONDS = 1.5, 0.4, 5
SPIKE_SECONDS = 1  # the longest that a request may wait while an agent comes or goes, on a busy machine
CONNECTIONS = 5000
TABLE_SOCKETS = 16384  # INJECTION_SOCKETS_MAX
BULK_BYTES = 300_000_000  # less than a length that isn't followed


def fuzz(stack, seed, count=0, calm=False):
    server = Server(calm)
    stack.callback(server.close)
    return server, Helper(stack, "inject_fuzz.py", "--client", server.port, seed, count, *(["calm"] if calm else []))


def check(server, said):
    time.sleep(0.2)
    failures = server.failures + said["failures"]
    assert not failures, f"{len(failures)} failures: {failures[:5]}"
    assert said["requests"] > 0 and server.done == said["requests"]


@pytest.mark.parametrize("seed", [1, 2])
def test_random_ways_to_send(tracing, stack, seed):
    """Random cuts, full buffers, pipelining, bodies that look like requests, three sending threads."""
    server, client = fuzz(stack, seed, FUZZ_REQUESTS)
    t = tracing()
    t.start("--ring-size", "64M", HEADERS, pids=[client.pid])
    client.tell("\n")
    said = client.end(150)
    spans = {(s.trace_id, s.span_id): s for s in clients(t.finish())}
    check(server, said)
    assert len({(i.trace_id, i.span_id) for i in server.ids.values()}) == len(server.ids)
    assert len(server.ids) > said["requests"] / 3, t.agent.output()
    wrong = [(path, spans[i.trace_id, i.span_id]) for path, i in server.ids.items() if (i.trace_id, i.span_id) in spans and
             not spans[i.trace_id, i.span_id].attrs["url.full"].endswith(path)]
    assert not wrong, wrong[:5]
    missing = [path for path, i in server.ids.items() if (i.trace_id, i.span_id) not in spans]
    assert not missing, f"{len(missing)} of {len(server.ids)} headers name no span: {missing[:5]}; {t.agent.output()}"
    # Where the first pipelined request of a connection is hidden in a body that was not captured whole, nothing tells of it.
    other = misled(spans.values(), server.statuses)
    assert len(other) <= len(spans) / 100, f"{len(other)} spans have the answer to another request: {other[:5]}"
    # What is cut so that the agent can't follow it has no answer, and that is counted.
    unanswered = [s for s in spans.values() if s.attrs.get("spanloom.answer") == "lost"]
    lost = sum(int(n) for n in re.findall(r"exchange_lost (\d+)", t.agent.output()))
    assert len(unanswered) <= min(lost, len(server.ids) / 10), t.agent.output()


class Load:
    """Whole requests without end by three threads, their latencies, and an application under wrk beside them."""

    def __init__(self, stack, seed, app=None):
        self.server, self.client = fuzz(stack, seed, calm=True)
        self.app, self.wrk = app, None
        if app:
            argv = ["wrk", "-t", "1", "-c", "4", "-d", "600s", f"http://127.0.0.1:{app.port}/call"]
            self.wrk = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            stack.callback(self.wrk.kill)
        self.client.tell("\n")
        self.pids = [self.client.pid] + ([app.pid] if app else [])
        time.sleep(QUIET_SECONDS)

    def end(self):
        """The latencies: [(when, seconds)]."""
        self.client.tell("\n")
        said = self.client.end()
        check(self.server, said)
        if self.wrk:
            self.wrk.send_signal(signal.SIGINT)  # it tells then what it has seen
            text, _ = self.wrk.communicate(timeout=60)
            assert "Non-2xx" not in text and "Socket errors" not in text, text
            assert int(re.search(r"(\d+) requests in", text)[1]) > 0
        return said["latencies"]


def spikes(latencies, moments, what):
    """Prints and bounds the longest request around each of the moments."""
    quiet = statistics.median(seconds for _, seconds in latencies)
    worst = [max((s for begin, s in latencies if begin <= m + AGENT_SECONDS and begin + s >= m), default=0) for m in moments]
    print(f"{what}: {len(latencies)} requests, median {quiet * 1000:.2f} ms, longest around {len(moments)} moments: median "
          f"{statistics.median(worst) * 1000:.1f} ms, max {max(worst) * 1000:.1f} ms")
    assert max(worst) < SPIKE_SECONDS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_agent_ends_under_load(tracing, stack, gateway, sig):
    """It comes under load, puts headers in, and is killed in the middle, many times."""
    load = Load(stack, 11, gateway)
    moments = []
    for n in range(KILLS if sig == signal.SIGKILL else TERMS):
        t, before = tracing(), len(load.server.ids)
        t.start(HEADERS, pids=load.pids)
        time.sleep(AGENT_SECONDS)
        moments.append(time.monotonic())
        t.agent.process.send_signal(sig)
        t.agent.process.wait(20)
        if sig == signal.SIGTERM:
            assert t.agent.process.returncode == 0, t.agent.output()
        t.close()
        time.sleep(0.1)
        assert len(load.server.ids) > before, f"agent {n} put in no header: {t.agent.output()}"
    spikes(load.end(), moments, f"agent ended by {sig.name}")


def test_agent_starts_under_load(tracing, stack, gateway):
    """Some times: the connections of a running load are adopted."""
    load = Load(stack, 12, gateway)
    moments = []
    for _ in range(ADOPTIONS):
        t, before = tracing(), len(load.server.ids)
        moments.append(time.monotonic())
        t.start(HEADERS, pids=load.pids)
        moments.append(time.monotonic())
        time.sleep(AGENT_SECONDS)
        assert t.agent.stop(timeout=20) == 0, t.agent.output()
        t.close()
        assert len(load.server.ids) > before
    spikes(load.end(), moments, "agent started")


def test_two_agents(tracing, stack):
    """The second cannot put a header in where the first does; no request has two, and none is harmed when one leaves."""
    load = Load(stack, 13)
    first, second = tracing(), tracing()
    for t in (first, second):
        t.start(HEADERS, pids=load.pids)
        time.sleep(1)
    assert first.agent.stop(timeout=20) == 0, first.agent.output()
    time.sleep(1)
    middle = len(load.server.ids)
    time.sleep(1)
    assert second.agent.stop(timeout=20) == 0, second.agent.output()
    load.end()
    assert len(load.server.ids) > middle, "the second agent never took over: " + second.agent.output()


def test_agent_that_stands_still(tracing, stack, gateway):
    """Stopped for 5 s: its ring fills, the application notices nothing."""
    load = Load(stack, 14, gateway)
    t = tracing()
    t.start("--ring-size", "1M", HEADERS, pids=load.pids)
    time.sleep(1)
    begin = time.monotonic()
    t.agent.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(STOPPED_SECONDS)
    finally:
        t.agent.process.send_signal(signal.SIGCONT)
    end = time.monotonic()
    time.sleep(1)
    latencies = load.end()
    during = [s for when, s in latencies if begin < when < end]
    before = [s for when, s in latencies if when < begin]
    print(f"median {statistics.median(before) * 1000:.2f} ms before, {statistics.median(during) * 1000:.2f} ms while it "
          f"stood, max {max(during) * 1000:.1f} ms")
    assert len(during) > 100 and max(during) < SPIKE_SECONDS
    assert t.agent.stop(timeout=20) == 0
    assert t.drops().get("ring_full", 0) > 0


def many(stack, count):
    """A client and a server with so many connections: (client, server's pid)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        pytest.skip(f"only {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        program = os.path.join(inject_clients.HERE, "inject_many.py")
        server = stack.start("many", [services.PYTHON, "-u", program, "server"])
        port = int(server.wait_ready(lambda: re.search(r"^port (\d+)$", server.output(), re.M))[1])
        return Helper(stack, "inject_many.py", "client", port, count), server.pid
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def check_many(client, count):
    client.tell("\n")
    said = client.end(60)
    print(f"{count} connections: {said}")
    assert not said["failures"] and said["answered"] >= count and said["worst"] < SPIKE_SECONDS * 2, said
    return said


@pytest.mark.timeout(300)
def test_thousands_of_open_connections(tracing, stack):
    """Agents come and go while they are open: none is lost, no request fails, and those that found no room are counted."""
    client, server = many(stack, CONNECTIONS)
    client.tell("\n")
    assert client.hear(60) == "open"
    for sig, wrap in ((signal.SIGKILL, ()), (signal.SIGTERM, ()), (signal.SIGTERM, ("prlimit", "--nofile=256:256"))):
        t = tracing()
        t.start(HEADERS, pids=[client.pid, server], timeout=60, wrap=wrap)
        time.sleep(2)
        t.agent.process.send_signal(sig)
        t.agent.process.wait(30)
        assert sig == signal.SIGKILL or (t.agent.process.returncode == 0 and t.drops()["header_failed"] > 0), t.agent.output()
        t.close()
    assert check_many(client, CONNECTIONS)["headers"] > 0


@pytest.mark.timeout(300)
def test_more_connections_than_the_table_holds(tracing, stack):
    """Those beyond it go without headers, counted."""
    client, server = many(stack, TABLE_SOCKETS + 500)
    t = tracing()
    t.start(HEADERS, pids=[client.pid])
    client.tell("\n")
    assert client.hear(120) == "open"
    said = check_many(client, TABLE_SOCKETS + 500)
    assert t.agent.stop(timeout=40) == 0
    assert said["headers"] > TABLE_SOCKETS / 2, (said, t.agent.output())
    assert t.drops()["header_failed"] >= 500, (said, t.agent.output())


class Drain(Acceptor):
    """Takes requests of known size and throws their bodies away; keeps heads."""

    def __init__(self):
        self.heads = []
        super().__init__()

    def _serve(self, sock):
        room = bytearray(1 << 20)
        while True:
            got = b""
            while b"\r\n\r\n" not in got:
                data = sock.recv(4096)
                if not data:
                    return
                got += data
            head, rest = got.split(b"\r\n\r\n", 1)
            left = int(head.rsplit(b" ", 1)[1]) - len(rest)
            while left:
                count = sock.recv_into(room, min(left, len(room)))
                if not count:
                    return
                left -= count
            self.heads.append(head + b"\r\n")
            sock.sendall(OK)


def bulk(client, port, size):
    """Seconds that a body takes on a connection that is kept."""
    begin = time.monotonic()
    result = client.do("play", on="bulk", port=port, timeout=120, steps=[
        ["send", f"POST /bulk HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n"], ["flood", size], ["recv", len(OK)]])
    assert result["error"] is None, result
    return time.monotonic() - begin


def test_bulk_throughput(tracing, stack):
    """A large body over a connection that headers are put into is sent about as fast as without."""
    rates = {False: [], True: []}
    for with_agent in [False, True] * 3:
        server, client, t = Drain(), Helper(stack, "inject_sockets.py"), tracing()
        if with_agent:
            t.start(HEADERS, pids=[client.pid])
        bulk(client, server.port, 10)
        rates[with_agent].append(BULK_BYTES / bulk(client, server.port, BULK_BYTES) / 1e6)
        assert bool(LINE.search(server.heads[1])) == with_agent
        client.close()
        if with_agent:
            assert t.agent.stop(timeout=20) == 0
        t.close()
        server.close()
    none, agent = statistics.median(rates[False]), statistics.median(rates[True])
    print(f"bulk: {none:.0f} MB/s without, {agent:.0f} MB/s with the agent: {agent / none:.2f}")
    assert agent > none / 2


def test_nothing_is_left_behind(tracing, stack):
    """After kill -9 no program and no map of the agent's is there, also while the connections live on."""
    with Recorder() as server:
        client = inject_clients.start(stack, "aiohttp", server.port)
        client.run([("/a", "get")])
        t = tracing()
        t.start(HEADERS, pids=[client.pid])
        client.run([(f"/b/{n}", "get") for n in range(8)])
        ours = {number for kind, number in services.bpf_objects(t.agent.pid) if kind == "prog"}
        os.kill(t.agent.pid, signal.SIGKILL)
        t.agent.process.wait()
        finder = os.path.join(services.TOP, "tools", "find-bpftool")
        tool = subprocess.run([finder], capture_output=True, text=True).stdout.strip()

        def gone():
            text = subprocess.run([tool, "prog", "list"], capture_output=True, text=True).stdout
            return not ours & {int(n) for n in re.findall(r"^(\d+):", text, re.M)}

        services.wait_until(gone, 10, "the programs are gone")
        client.run([(f"/c/{n}", "get") for n in range(8)])
        assert not any(LINE.search(r.head) for path, r in server.take().items() if path.startswith("/c/"))


def test_websockets(tracing, stack):
    """Messages that look like requests go through a WebSocket of aiohttp's, beside requests that get their header."""
    server = stack.start("ws", [services.PYTHON, "-u", os.path.join(inject_clients.HERE, "inject_websocket.py"), "server"])
    port = int(server.wait_ready(lambda: re.search(r"^port (\d+)$", server.output(), re.M))[1])
    for before in (False, True):
        client = Helper(stack, "inject_websocket.py", "client", port)
        t = tracing()
        if before:
            client.do("messages", count=20)
        t.start(HEADERS, pids=[client.pid])
        said = client.do("messages", count=300)
        assert said["wrong"] == 0 and said["right"] == 300, said
        assert said["requests"] - before <= said["headers"] <= said["requests"], (said, t.agent.output())
        t.finish()
