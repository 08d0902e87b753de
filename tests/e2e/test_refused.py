"""Requests that a server refuses where it reads them (scanners send those all the time) take nothing from the others: every
call stays with its request, and has its header.
"""
import itertools
import socket
import threading

import chain
import pytest
import services
import venvs

REQUESTS, CONNECTIONS = 400, 32
BAD = (b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n",
       b"GET / HTTP/1.1\r\nHost h\r\n\r\n",
       b"GET / HTTP/1.1\r\nHost: h\r\n\x01: y\r\n\r\n",
       b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: abc\r\n\r\n",
       b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
       b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
       b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")


class Scanner:
    """Sends bad requests, each on a connection of its own that it sometimes leaves before the answer, until it is closed."""

    def __init__(self, port):
        self.port, self.stop, self.sent = port, threading.Event(), 0
        self.thread = threading.Thread(target=self.run)

    def run(self):
        for n, request in enumerate(itertools.cycle(BAD)):
            if self.stop.is_set():
                return
            with socket.create_connection(("127.0.0.1", self.port), 10) as s:
                s.sendall(request)
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
    agent = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    app = stack.python_app("chain_gateway", python=python.python, loop=loop.split("-")[0],
                           env={"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}", **python.env})
    with Scanner(app.port) as one, Scanner(app.port) as other:
        t = tracing()
        chain.start(t, "--propagate=headers", pids=[app.pid, agent.pid])
        chain.run(app.port, chain.paths("warm", 120), 8)
        answers = chain.run(app.port, chain.paths("r", REQUESTS), CONNECTIONS)
    assert one.sent + other.sent > len(BAD)
    verdict = chain.judge(t.finish(), answers, agent.pids, chain.family(app.pid))
    calls = sum(len(a.calls) for a in answers)
    said = verdict.markdown() + t.agent.output()[-3000:]
    assert not verdict.problems(), said
    for what in ("linked", "header"):
        assert verdict.total("right", what) == calls, said
