"""Requests that a server refuses where it reads them (scanners send those all the time) take nothing from the others: every
call stays with its request, and has its header.
"""
import itertools
import socket
import threading
import time

import chain
import pytest
import services
import venvs

REQUESTS, CONNECTIONS = 400, 32
SPLIT, PAUSE_SECONDS = b"|", 0.002
BAD = (b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",
       b"GET / HTTP/1.1\r\nHost h\r\n\r\n",
       b"GET / HTTP/1.1\r\nHost: h\r\n\x01: y\r\n\r\n",
       b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: abc\r\n\r\n",
       b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
       b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
       b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n",
       # refused when the work has begun
       b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n")
# while the first one is handled; this makes calls
BEHIND = (b"GET /call/scan?ms=20 HTTP/1.1\r\nHost: h\r\n\r\n" + SPLIT + b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",)


class Scanner:
    """Sends bad requests, each on a connection of its own that it sometimes leaves before the answer, until it is closed."""

    def __init__(self, port, requests):
        self.port, self.requests, self.stop, self.sent = port, requests, threading.Event(), 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        for n, request in enumerate(itertools.cycle(self.requests)):
            if self.stop.is_set():
                return
            with socket.create_connection(("127.0.0.1", self.port), 10) as s:
                for piece in request.split(SPLIT):
                    s.sendall(piece)
                    time.sleep(PAUSE_SECONDS)
                if n % 3:
                    s.settimeout(0.05)
                    try:
                        s.recv(4096)
                    except OSError:
                        pass
            self.sent += 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


@pytest.mark.parametrize("loop", ["uvloop", "uvloop-0.22.1", "asyncio"])
def test_refused(tracing, stack, redis, loop):
    """From the start of the agent on: also what it learns of a process then is right."""
    python = venvs.Interpreter(services.PYTHON, "3.11")
    if loop == "uvloop-0.22.1":
        python = venvs.with_package(python, "uvloop", "0.22.1")
    pair = chain.Pair(stack, redis, python, loop=loop.split("-")[0])
    with Scanner(pair.port, BAD) as one:
        t = pair.trace(tracing)
        chain.run(pair.port, chain.paths("warm", 120), 8)
        with Scanner(pair.port, BEHIND) as other:
            answers = chain.run(pair.port, chain.paths("r", REQUESTS), CONNECTIONS)
    assert one.sent > len(BAD) and other.sent
    pair.expect(t, t.finish(), answers)
