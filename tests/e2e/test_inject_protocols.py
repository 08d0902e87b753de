"""Connections of selected processes that carry something else than HTTP/1: gRPC and HTTP/2 in plain text, WebSockets under
uvicorn, and protocols of lines and frames, some of which begin like requests. What arrives is what was sent, with the agent
as without it, and nothing waits.

Owns: the relay that keeps what both ends say, and the dialogues. Refuses: to judge by answers alone; the bytes are compared.
"""
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading

import inject_clients
import pytest
import services
from acceptor import Acceptor
from inject_clients import Helper
from inject_messages import INNER
from inject_recorder import OK, Recorder

CALLS = 40
REQUEST = "GET /inner HTTP/1.1\r\nHost: here\r\n\r\n"


def start(tracing, *pids, args=()):
    """An agent that does put headers in, else nothing would be shown here."""
    t = tracing()
    t.start("--propagate=headers", *args, pids=pids)
    assert "traceparent into outgoing HTTP: on" in t.agent.output()
    return t


class Relay(Acceptor):
    """Hands a connection's bytes on in both directions and keeps them; .sent by clients, .answered, in order of arrival."""

    def __init__(self, stack, port):
        self.upstream, self.sent, self.answered = port, bytearray(), bytearray()
        super().__init__()
        stack.callback(self.close)

    def _serve(self, near):
        with socket.create_connection(("127.0.0.1", self.upstream)) as far:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._hand_on, args=(far, near, self.answered), daemon=True)
            back.start()
            self._hand_on(near, far, self.sent)
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _hand_on(source, target, kept):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Dialogue(Acceptor):
    """A server that says and expects what its script tells: a text is sent, a number of bytes awaited; .received."""

    def __init__(self, stack, script):
        self.script, self.received = script, []
        super().__init__()
        stack.callback(self.close)

    def _serve(self, sock):
        got = bytearray()
        self.received.append(got)
        for step in [*self.script, None]:
            if isinstance(step, str):
                sock.sendall(step.encode("latin-1"))
                continue
            until = len(got) + step if step else sys.maxsize
            while len(got) < until and (data := sock.recv(1 << 16)):
                got += data


def talk(*lines, first=""):
    """(script, steps) of a dialogue: the server says `first`, then each line that the client sends gets its answer. Several
    pieces in a line's tuple are sends of their own."""
    script, steps = [first] if first else [], [["recv", len(first)]] if first else []
    for pieces, answer in lines:
        pieces = (pieces,) if isinstance(pieces, str) else pieces
        for n, piece in enumerate(pieces):
            steps += [["sleep", 0.01]] if n else []
            steps.append(["send", piece])
        script += [sum(len(p) for p in pieces), answer] if answer else [sum(len(p) for p in pieces)]
        steps += [["recv", len(answer)]] if answer else []
    return script, [*steps, ["close"]]


MAIL = (f"Subject: x\r\n\r\n{REQUEST}text\r\n", f"{REQUEST}\r\n", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n.\r\n")
VALUE = f"set key 0 0 {len(REQUEST)}\r\n"
DIALOGUES = {
    "smtp": talk(("EHLO here\r\n", "250-hi\r\n250 SIZE\r\n"), ("MAIL FROM:<a@b>\r\n", "250 ok\r\n"), ("DATA\r\n", "354 go\r\n"),
                 (MAIL, "250 queued\r\n"), ("QUIT\r\n", "221 bye\r\n"), first="220 there ESMTP\r\n"),
    "memcached": talk(("get key\r\n", "END\r\n"), (VALUE + REQUEST + "\r\n", "STORED\r\n"),
                      ((VALUE, REQUEST, "\r\n"), "STORED\r\n"), ("GET key\r\n", "ERROR\r\n"), ("get key\r\n", "END\r\n")),
    "inline": talk(("GET key\r\n", "$-1\r\n"), ("GET a b HTTP/1.1\r\n", "-ERR\r\n"), ("PUT x\r\n", "-ERR\r\n"), (REQUEST, "-ERR\r\n")),
    "proxy-v1": talk((f"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n{REQUEST}", "HTTP/1.1 204 \r\n\r\n"),
                     (REQUEST, "HTTP/1.1 204 \r\n\r\n")),
    "proxy-v1-apart": talk((("PROXY UNKNOWN\r\n", REQUEST), "HTTP/1.1 204 \r\n\r\n"), (REQUEST, "HTTP/1.1 204 \r\n\r\n")),
    "proxy-v2": talk((("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", REQUEST), "HTTP/1.1 204 \r\n\r\n"), (REQUEST, "HTTP/1.1 204 \r\n\r\n")),
    "nats": talk(('CONNECT {"verbose":true}\r\n', "+OK\r\n"), (f"PUB a {len(REQUEST)}\r\n{REQUEST}\r\n", "+OK\r\n"),
                 ((f"PUB a {len(REQUEST)}\r\n", REQUEST, "\r\n"), "+OK\r\n"), first='INFO {"max_payload":1048576}\r\n'),
    "server-first": talk((REQUEST, "+\r\n"), (REQUEST, "+\r\n"), first="hello\r\n"),
    "ftp": talk(("USER x\r\n", "331 \r\n"), ("OPTIONS UTF8\r\n", "500 \r\n"), ("DELETE x\r\n", "250 \r\n"), first="220 ftp\r\n"),
    "small-pieces": talk((tuple(REQUEST), "ok"), (("G", "ET /x HTTP/1.1\r\n\r\n"), "ok"), (REQUEST, "ok")),
}


@pytest.mark.parametrize("name", DIALOGUES)
def test_dialogues(tracing, stack, name):
    """Twice without and three times with the agent: the server receives the same, the client hears the same."""
    script, steps = DIALOGUES[name]
    server, client = Dialogue(stack, script), Helper(stack, "inject_sockets.py")
    expected = "".join(step[1] for step in steps if step[0] == "send").encode("latin-1")
    heard = [client.do("play", on=f"a{n}", steps=steps, port=server.port) for n in range(2)]
    t = start(tracing, client.pid)
    heard += [client.do("play", on=f"b{n}", steps=steps, port=server.port) for n in range(3)]
    assert all(h == heard[0] and not h["error"] for h in heard), heard
    services.wait_until(lambda: len(server.received) == 5 and len(server.received[-1]) >= len(expected), 5, "all arrived")
    assert [bytes(r) for r in server.received] == [expected] * 5, t.agent.output()


def test_accepted_without_a_listener(tracing, stack):
    """A connection that was accepted, of a process that listens no more, is not taken for one that it made."""
    client, port = Helper(stack, "inject_sockets.py"), services.free_port()
    client.begin("play", on="a", how="accepted", port=port, steps=[["recv", 4], ["send", "ping"]])
    far = services.wait_until(lambda: connected(port), 5, "it listens")
    stack.callback(far.close)
    far.settimeout(5)
    far.sendall(b"ping")
    assert far.recv(100) == b"ping" and not client.end()["error"]
    t = start(tracing, client.pid)
    for _ in range(3):
        client.begin("play", on="a", steps=[["recv", len(REQUEST)], ["send", REQUEST]])
        far.sendall(REQUEST.encode())
        got = far.recv(1000)
        assert not client.end()["error"] and got.decode() == REQUEST


def connected(port):
    with contextlib.suppress(OSError):
        return socket.create_connection(("127.0.0.1", port))


# --- HTTP/2 and WebSockets ------------------------------------------------------------------------------------------------


def start_server(stack, program, *args):
    """A program of this folder that prints its port."""
    server = stack.start("server", [services.PYTHON, "-u", os.path.join(inject_clients.HERE, program), *args])
    server.port = int(server.wait_ready(lambda: re.search(r"^port (\d+)$", server.output(), re.M))[1])
    server.wait_ready(lambda: services.port_open(server.port))
    return server


@pytest.mark.parametrize("before", [False, True], ids=["new", "open-before"])
@pytest.mark.parametrize("kind", ["grpc", "grpc-aio", "h2c"])
def test_http2(tracing, stack, kind, before):
    """Both ends are selected; every call succeeds, and nothing was put into its frames."""
    server = start_server(stack, "inject_http2.py", kind, "server")
    relay = Relay(stack, server.port)
    client = Helper(stack, "inject_http2.py", kind, "client", relay.port)
    if before:
        assert client.do("calls", count=3)["right"] == 3
    t = start(tracing, client.pid, server.pid)
    assert client.do("calls", count=CALLS)["right"] == CALLS, t.agent.output()
    assert relay.sent.startswith(b"PRI * HTTP/2.0\r\n") and relay.sent.count(INNER) >= CALLS
    assert b"traceparent" not in relay.sent and b"traceparent" not in relay.answered
    t.finish()
    assert client.do("calls", count=5)["right"] == 5


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_http2_of_curl(tracing, stack):
    """From the first byte, and by an upgrade that the server takes or not."""
    server = start_server(stack, "inject_http2.py", "h2c", "server")
    relay = Relay(stack, server.port)
    t = start(tracing, args=("--exe", "curl"))
    for version in ("--http2-prior-knowledge", "--http2"):
        for _ in range(3):
            argv = ["curl", "-sS", "--noproxy", "*", version, "--data-binary", INNER.decode() * 50]
            out = subprocess.run([*argv, f"http://127.0.0.1:{relay.port}/echo"], capture_output=True, timeout=20)
            assert (out.stdout, out.returncode) == (INNER * 50, 0), (out, t.agent.output())
    assert b"traceparent" not in relay.sent


def test_websocket_of_uvicorn(tracing, stack):
    """Messages that look like requests, to and from uvicorn, both ends selected."""
    server = stack.uvicorn("websocket_echo")
    relay = Relay(stack, server.port)
    client = Helper(stack, "inject_websocket.py", "client", relay.port)
    t = start(tracing, client.pid, server.pid)
    said = client.do("messages", count=200)
    assert said["right"] == 200 and said["wrong"] == 0, (said, t.agent.output())
    assert said["headers"] >= said["requests"] - 1, (said, t.agent.output())
    t.finish()


# --- io_uring -------------------------------------------------------------------------------------------------------------


def uring(stack, port, way, count=10):
    """A program of a name that may get headers on any kernel, with an io_uring of its own."""
    program, name = os.path.join(services.BUILD, "e2e", "uring_client"), os.path.join(stack.log_dir, "curl")
    if not os.path.exists(name):
        shutil.copy(program, name)
    client = inject_clients.Talker([name, port, way, count, len(OK)], stack.log_dir)
    stack.callback(client.close)
    said = client.hear(10)
    if said != "ready":
        pytest.skip(said)
    return client


@pytest.mark.parametrize("before", [False, True], ids=["new", "open-before"])
@pytest.mark.parametrize("way", ["send", "sendmsg", "zerocopy", "write", "writev", "fixed", "send,async", "zerocopy,async",
                                 "send,sqpoll", "zerocopy,sqpoll"])
def test_io_uring(tracing, stack, way, before):
    """All is sent and received as without us, also without a copy, which the kernel refuses in the table of sockets. No header
    goes out: nobody sees what is sent, so it would name a span that is never exported."""
    with Recorder() as server:
        client = uring(stack, server.port, way)
        heard = []
        for traced in (False, True) if before else (True,):
            if traced:
                t = start(tracing, client.pid)
            client.tell("\n")
            heard += [[int(n) for n in request.split(",")] for request in client.hear(20).split()]
        received = b"".join(bytes(s.bytes) for s in server.streams)
        expected = b"".join(REQUEST.replace("inner", f"uring/{n}").encode() for n in range(10)) * (1 + before)
        assert len(heard) == 10 + 10 * before
        assert all(sent == size and got == len(OK) for size, sent, got in heard), (heard, t.agent.output())
        assert received == expected
