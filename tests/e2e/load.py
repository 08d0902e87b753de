"""Clients whose own notes are the truth of the tests: what was sent, what came back, and when.

Owns: connections and clocks of the client's side. Refuses: to retry. Times are Unix nanoseconds.
"""
import http.client
import socket
import threading
import time
from dataclasses import dataclass


@dataclass
class Sent:
    """One request as its client saw it."""

    method: str
    path: str
    status: int
    begin: int
    end: int
    body: bytes


class Connection:
    """One keep-alive connection to a port of loopback, or to a unix socket."""

    def __init__(self, port=None, host="127.0.0.1", unix=None):
        self.http = http.client.HTTPConnection(host if not unix else "localhost", port, timeout=30)
        if unix:
            self.http.sock = socket.socket(socket.AF_UNIX)
            self.http.sock.connect(unix)

    def request(self, path, method="GET", body=None, headers=None):
        begin = time.time_ns()
        headers = headers or {}
        self.http.request(method, path, body=body, headers=headers, encode_chunked="Transfer-Encoding" in headers)
        answer = self.http.getresponse()
        content = answer.read()
        return Sent(method, path, answer.status, begin, time.time_ns(), content)

    def close(self):
        self.http.close()


def run(paths, connections=8, pause=0, **where):
    """Sends every path once, over so many connections at a time, each resting `pause` seconds behind an answer; the
    Sent in no special order."""
    queue, sent, errors = list(reversed(paths)), [], []

    def worker():
        connection = Connection(**where)
        try:
            while True:
                try:
                    path = queue.pop()
                except IndexError:
                    return
                sent.append(connection.request(path))
                time.sleep(pause)
        except Exception as e:  # told to the test below
            errors.append(e)
        finally:
            connection.close()

    threads = [threading.Thread(target=worker) for _ in range(connections)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    return sent


def raw(port, data, until_close=False, chunks=None, timeout=10):
    """Sends bytes as they are (in pieces, with a pause between them, when `chunks` says so); what came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = chunks or len(data)
        for at in range(0, len(data), size):
            s.sendall(data[at:at + size])
            if chunks:
                time.sleep(0.002)
        answer = b""
        s.settimeout(timeout if until_close else 0.5)
        try:
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                answer += piece
        except TimeoutError:
            if until_close:
                raise
        return answer
