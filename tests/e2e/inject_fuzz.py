#!/usr/bin/env python3
"""Requests cut and sent in every way that a seed can think of, checked byte for byte at the server.

Owns: the client process (many connections at once, on some every piece is sent by another of three threads), the server
that knows what has to come, and the long form:
    inject_fuzz.py --requests 100000 [--seed N] [--agent-args=--propagate=headers]
which attaches an agent to the client and exits 1 when one byte was wrong. Refuses: to retry; a connection that breaks is a
failure. calm=True: whole requests one after the other, with the latency of each.
"""
import argparse
import json
import os
import random
import select
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "tools")]
from acceptor import Acceptor  # noqa: E402
from inject_messages import Mismatch, Walk  # noqa: E402
from inject_plan import INTERIM, gates, heads, plan  # noqa: E402

AT_ONCE, SENDERS, STUCK_SECONDS = 16, 3, 20
REST_SECONDS = 0.001  # of a calm client: what is measured is the agent, not a machine that is full


class Server(Acceptor):
    """Knows every connection's plan by the path of its first request; .ids and .statuses by path, .failures."""

    def __init__(self, calm=False):
        self.calm, self.ids, self.statuses, self.failures, self.done = calm, {}, {}, [], 0
        super().__init__(receive_buffer=65536)

    def _serve(self, sock):
        walk = name = None
        try:
            first = b""
            while b" HTTP/" not in first:
                data = sock.recv(4096)
                if not data:
                    return
                first += data
            name = first.split(b" ", 2)[1].split(b"/")
            p = plan(int(name[2]), int(name[3]), self.calm)
            if p.receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, p.receive_buffer)
            walk = Walk(p.messages)
            while first:
                for what, n in walk.feed(first):
                    self._answer(sock, p.messages[n], what)
                if p.slow:
                    time.sleep(0.001)
                first = sock.recv(1 << 17)
            if walk.at < len(p.messages):
                raise Mismatch(f"the connection ended; message {walk.at} of {len(p.messages)} has only "
                               f"{bytes(walk.waiting[:400])!r}")
        except (Mismatch, OSError, ValueError, IndexError) as e:
            with self._lock:
                self.failures.append(f"{name}: {e!r}")
        finally:
            if walk:
                with self._lock:
                    self.done += walk.at
                    for m, ids in zip(p.messages, walk.ids):
                        self.statuses[m.path] = m.status
                        if ids:
                            self.ids[m.path] = ids

    @staticmethod
    def _answer(sock, m, what):
        if what == "head" and m.interim:
            sock.sendall(INTERIM)
        elif what == ("head" if m.early else "message"):
            sock.sendall(m.answer)


class Sender:
    """The client's side of one connection."""

    def __init__(self, port, p, rng, pool):
        self.p, self.rng, self.pool = p, rng, pool
        self.stream = b"".join(m.data for m in p.messages)
        self.gates, self.answers = gates(p)
        self.heads = heads(p) if p.heads else []
        self.sent = self.received = 0
        self.sock = socket.socket()
        self.sock.setblocking(False)
        if p.send_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, p.send_buffer)
        if p.no_delay:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex(("127.0.0.1", port))
        if not select.select([], [self.sock], [], STUCK_SECONDS)[1]:
            raise RuntimeError("no connection")
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def limit(self):
        """How far the stream may be sent by now."""
        for offset, answers in self.gates:
            if self.received < answers:
                return offset
        return len(self.stream)

    def piece(self):
        """Where the next piece ends."""
        limit = self.limit()
        if self.sent < limit and self.rng.random() < self.p.cuts:
            end = min(limit, self.sent + self.rng.choice([1, 2, 3, 7, 16, 30, 70, 71, 200, 1448]))
            while self.heads and self.heads[0][1] <= self.sent:
                self.heads.pop(0)
            if self.heads and self.heads[0][0] < end:
                end = max(end, self.heads[0][1])
            return min(limit, end)
        return limit

    def send(self, data):
        way = self.rng.choice([0, 4, 5]) if self.heads and self.heads[0][0] <= self.sent < self.heads[0][1] else \
            self.rng.randrange(6)
        fd = self.sock.fileno()
        if way == 0:
            return os.write(fd, data)
        if way in (1, 2) and len(data) > 1:
            a, b = sorted(self.rng.randrange(len(data)) for _ in range(2))
            vector = [v for v in (data[:a], data[a:b], data[b:]) if v]
            return os.writev(fd, vector) if way == 1 else self.sock.sendmsg(vector)
        if way == 3 and self.sent + len(data) < self.limit():
            return self.sock.send(data, socket.MSG_MORE)
        return self.sock.send(data)

    def push(self, end):
        data = self.stream[self.sent:end]
        try:
            self.sent += self.pool.submit(self.send, data).result() if self.p.hop else self.send(data)
            return True
        except BlockingIOError:
            return False

    def pull(self):
        size = self.rng.choice([1, 10, 100, 4096, 65536]) if self.p.cuts > 0.4 else 65536
        data = self.sock.recv(size)
        if data != self.answers[self.received:self.received + len(data)] or not data:
            raise Mismatch(f"the answers are wrong at {self.received}: {data[:200]!r}, not "
                           f"{self.answers[self.received:self.received + 200]!r}")
        self.received += len(data)

    def run(self):
        with self.sock:
            while True:
                full = False
                end = self.piece()
                if end > self.sent:
                    full = not self.push(end)
                    if self.rng.random() < self.p.pause:
                        time.sleep(0.001)
                if self.received == len(self.answers) and self.sent == len(self.stream):
                    break
                more = self.sent < self.limit()
                wait = STUCK_SECONDS if full or not more else 0
                readable, writable, _ = select.select([self.sock], [self.sock] if full else [], [], wait)
                if wait and not readable and not writable:
                    raise RuntimeError(f"stuck: {self.sent} of {len(self.stream)} sent, {self.received} of "
                                       f"{len(self.answers)} received")
                if readable:
                    self.pull()

    def run_calm(self, latencies):
        """One whole request after the other; (when it began, how long it took) of each."""
        with self.sock:
            for m in self.p.messages:
                begin, until = time.monotonic(), self.received + len(m.answer)
                end = self.sent + len(m.data)
                while self.received < until:
                    full = self.sent < end and not self.push(end)
                    ready = select.select([self.sock], [self.sock] if full else [], [], STUCK_SECONDS)
                    if not any(ready):
                        raise RuntimeError("stuck")
                    if ready[0]:
                        self.pull()
                latencies.append((begin, time.monotonic() - begin))
                time.sleep(REST_SECONDS)


class Client:
    """In a process of its own: works on several connections at once."""

    def __init__(self, port, seed, calm):
        self.port, self.seed, self.calm = port, seed, calm
        self.failures, self.latencies, self.done = [], [], 0
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(SENDERS)
        self.lock = threading.Lock()

    def numbers(self, count):
        """Connections until so many requests are planned; without end for 0."""
        while not self.stop.is_set() and (not count or self.done < count):
            with self.lock:
                conn, self.next = self.next, self.next + 1
            yield conn

    def worker(self, count):
        for conn in self.numbers(count):
            p = plan(self.seed, conn, self.calm)
            try:
                sender = Sender(self.port, p, random.Random(f"{self.seed}-{conn}"), self.pool)
                sender.run_calm(self.latencies) if self.calm else sender.run()
            except Exception as e:
                self.failures.append(f"connection {conn}: {e!r}")
                if len(self.failures) > 20:
                    return
            with self.lock:
                self.done += len(p.messages)

    def run(self, count):
        self.next = 0
        threads = [threading.Thread(target=self.worker, args=(count,)) for _ in range(SENDERS if self.calm else AT_ONCE)]
        for t in threads:
            t.start()
        if not count:
            sys.stdin.readline()
            self.stop.set()
        for t in threads:
            t.join()
        return {"requests": self.done, "failures": self.failures, "latencies": self.latencies}


def misled(spans, paths):
    """Client spans with the answer to another request: [(path, status, the right one)]; `paths` are those that were sent."""
    found = []
    for s in spans:
        path = "/" + s.attrs.get("url.full", "").split("/", 3)[-1]
        status = s.attrs.get("http.response.status_code")
        if path in paths and status is not None and status != paths[path]:
            found.append((path, status, paths[path]))
    return found


def client_main(port, seed, count, calm):
    """Waits for a line, works (until another line when count is 0), tells in one line."""
    client = Client(port, seed, calm)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(client.run(count)), flush=True)


def long_form(args):
    import services
    from inject_clients import Helper
    from seen import clients, view
    from tracing import Tracing
    services.exit_on_signals()
    with services.Stack(tempfile.mkdtemp(prefix="spanloom-fuzz-")) as stack:
        server = Server()
        client = Helper(stack, "inject_fuzz.py", "--client", server.port, args.seed, args.requests)
        t = Tracing(stack, "grpc")
        t.start("--ring-size", "64M", *args.agent_args.split(), pids=[client.pid])
        begin = time.monotonic()
        client.tell("\n")
        said = client.end(timeout=36000)
        seconds = time.monotonic() - begin
        time.sleep(0.5)
        t.agent.stop(timeout=60)
        failures = server.failures + said["failures"]
        spans = {(s.trace_id, s.span_id) for s in t.receiver.spans}
        missing = [path for path, i in server.ids.items() if (i.trace_id, i.span_id) not in spans]
        wrong = misled(clients(view(t.receiver)), server.statuses)
        print(f"{server.done} requests in {seconds:.0f} s, {len(server.ids)} with the line, {len(missing)} of them without "
              f"a span, {len(wrong)} spans with another's answer, {len(failures)} failures")
        for path, got, right in wrong[:10]:
            print(f"another's answer: {path}: {got}, not {right}")
        for path in missing[:10]:
            p = plan(*(int(n) for n in path.split("/")[2:4]))
            m = p.messages[int(path.rsplit("/", 1)[1])]
            print(f"no span: {path}, early {m.early}, interim {m.interim}, {len(m.data)} bytes, connection as {p.depth} "
                  f"deep, cuts {p.cuts}: {m.data[:m.head]}")
        print(t.agent.output()[-3000:])
        print("\n".join(failures[:10]))
        t.close()
        return 1 if failures else 0


def main():
    if sys.argv[1:2] == ["--client"]:
        port, seed, count = (int(a) for a in sys.argv[2:5])
        return client_main(port, seed, count, "calm" in sys.argv[5:])
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--agent-args", default="--propagate=headers")
    return long_form(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
