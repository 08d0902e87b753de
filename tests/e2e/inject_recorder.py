"""A server of the tests that keeps every byte it receives, and answers HTTP/1 as far as a client needs it.

Owns: the bytes and the requests of each connection. Refuses: to forgive; what it cannot read as a request stays in
.errors. The path says how it behaves: /reset/ hangs up after the head, /early/ answers before the body, /slow/ reads with
pauses, /pause/ answers late, /size/N/ answers with N bytes; Upgrade and CONNECT make the connection an echo.
"""
import re
import socket
import struct
import time
from dataclasses import dataclass

from acceptor import Acceptor

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


@dataclass
class Request:
    """One request as it came: head and body are the very bytes, chunk headers too."""

    stream: int
    path: str
    head: bytes
    body: bytes

    @property
    def raw(self):
        return self.head + self.body


class Stream:
    """What one connection brought."""

    def __init__(self, number, sock):
        self.number, self.sock, self.bytes, self.used = number, sock, bytearray(), 0

    def fill(self):
        """Takes more from the socket; False at its end."""
        data = self.sock.recv(1 << 18)
        self.bytes += data
        return bool(data)

    def until(self, mark):
        """The bytes up to and with `mark`; None when they end before."""
        begin = self.used
        while True:
            at = self.bytes.find(mark, max(self.used, begin))
            if at >= 0:
                self.used = at + len(mark)
                return bytes(self.bytes[begin:self.used])
            if not self.fill():
                return None

    def exactly(self, count):
        if count < 0:
            raise ValueError(f"a length of {count} bytes")
        while len(self.bytes) < self.used + count:
            if not self.fill():
                return None
        self.used += count
        return bytes(self.bytes[self.used - count:self.used])


class Recorder(Acceptor):
    """Starts on construction; a context manager. echo=True: no HTTP, what comes goes back."""

    def __init__(self, echo=False, receive_buffer=None):
        self.echo, self.requests, self.streams, self.errors = echo, [], [], []
        super().__init__(receive_buffer)

    def _accepted(self, sock):
        self.streams.append(Stream(len(self.streams), sock))
        return self.streams[-1]

    def _serve(self, stream):
        try:
            if self.echo:
                self._echo(stream)
            while self._request(stream):
                pass
        except ConnectionError:
            pass
        except Exception as e:  # told to the test
            self.errors.append(f"connection {stream.number}: {e!r}")

    def _echo(self, stream):
        """Whatever was not read yet and all that comes goes back."""
        while True:
            if len(stream.bytes) > stream.used:
                stream.sock.sendall(stream.bytes[stream.used:])
                stream.used = len(stream.bytes)
            if not stream.fill():
                return

    def _body(self, stream, headers, slow):
        if b"chunked" in headers.get(b"transfer-encoding", b""):
            body = b""
            while True:
                line = stream.until(b"\r\n")
                if line is None:
                    return None
                size = int(line.split(b";")[0], 16)
                body += line
                rest = stream.exactly(size + 2) if size else b""
                while not size and rest is not None and not (rest == b"\r\n" or rest.endswith(b"\r\n\r\n")):
                    more = stream.until(b"\r\n")
                    rest = None if more is None else rest + more
                if rest is None:
                    return None
                body += rest
                if not size:
                    return body
        left, body = int(headers.get(b"content-length", b"0")), []
        while left:
            piece = stream.exactly(min(left, 16384 if slow else 1 << 20))
            if piece is None:
                return None
            body.append(piece)
            left -= len(piece)
            if slow:
                time.sleep(0.002)
        return b"".join(body)

    def _request(self, stream):
        begin = len(stream.bytes)
        head = stream.until(b"\r\n\r\n")
        if head is None:
            if len(stream.bytes) > max(begin, stream.used):
                self.errors.append(f"connection {stream.number} ends within a head: {bytes(stream.bytes[stream.used:])[:300]}")
            return False
        line, *rest = head[:-4].split(b"\r\n")
        m = re.fullmatch(rb"([A-Z]+) (\S+) HTTP/1\.[01]", line)
        headers = {k.strip().lower(): v.strip().lower() for k, v in (h.split(b":", 1) for h in rest)}
        if not m:
            raise ValueError(f"no request line: {line[:200]!r}")
        path = m[2].decode()
        if "/reset/" in path:
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._keep(stream, path, head, b"")
            return False
        if m[1] == b"CONNECT" or b"upgrade" in headers:
            self._keep(stream, path, head, b"")
            stream.sock.sendall(UPGRADED if b"upgrade" in headers else b"HTTP/1.1 200 Connected\r\n\r\n")
            self._echo(stream)
            return False
        if headers.get(b"expect") == b"100-continue":
            time.sleep(0.02)
            stream.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "/early/" in path:
            stream.sock.sendall(OK)
        body = self._body(stream, headers, "/slow/" in path)
        if body is None:
            self.errors.append(f"connection {stream.number} ends within the body of {path}")
            return False
        self._keep(stream, path, head, body)
        if "/pause/" in path:
            time.sleep(0.3)
        if "/early/" not in path:
            stream.sock.sendall(self._answer(m[1], path))
        return headers.get(b"connection") != b"close" and not line.endswith(b"1.0")

    @staticmethod
    def _answer(method, path):
        m = re.search(r"/size/(\d+)/", path)
        if m:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(m[1]) + b"x" * int(m[1])
        return OK[:-2] if method == b"HEAD" else OK

    def _keep(self, stream, path, head, body):
        with self._lock:
            self.requests.append(Request(stream.number, path, head, body))

    def take(self):
        """{path: Request} since the last time; a path that came twice is an error."""
        with self._lock:
            taken, self.requests = self.requests, []
        assert not self.errors, self.errors[:5]
        by_path = {r.path: r for r in taken}
        assert len(by_path) == len(taken), "a request came twice"
        return by_path

    def close(self):
        super().close()
        for stream in self.streams:
            stream.bytes.clear()
