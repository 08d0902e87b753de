"""A threaded server of the standard library alone (one thread a connection), with blocking calls of the standard
library: http.client and plain RESP over a socket. The request's id is in every key and URL it touches.

env: AGENT_URL, REDIS_PORT; PORT (0: any), BIND (default 127.0.0.1; ::1 for IPv6), UNIX (listen on this path instead)
run: python stdlib_server.py      prints `port N` (or `unix PATH`) when it listens
"""
import http.client
import http.server
import os
import socket
import socketserver
import threading
from urllib.parse import urlsplit

AGENT = urlsplit(os.environ.get("AGENT_URL", "http://127.0.0.1:8001"))
REDIS = ("127.0.0.1", int(os.environ.get("REDIS_PORT", "6379")))
local = threading.local()


def agent_get(path: str) -> bytes:
    """Over this thread's own keep-alive connection."""
    if not hasattr(local, "http"):
        local.http = http.client.HTTPConnection(AGENT.hostname, AGENT.port, timeout=10)
    local.http.request("GET", path)
    return local.http.getresponse().read()


def redis_get(key: str) -> None:
    """GET of a key that isn't there, over this thread's own connection."""
    if not hasattr(local, "redis"):
        local.redis = socket.create_connection(REDIS, timeout=10)
    raw = key.encode()
    local.redis.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(raw), raw))
    answer = b""
    while not answer.endswith(b"\r\n"):
        answer += local.redis.recv(4096)
    assert answer == b"$-1\r\n", answer


def close_local() -> None:
    for name in ("http", "redis"):
        if hasattr(local, name):
            getattr(local, name).close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, request_id = self.path.strip("/").partition("/")
        if kind == "truth":
            redis_get(f"truth:{request_id}")
            agent_get(f"/work/{request_id}")
        elif kind == "threads":
            self.two_threads(request_id)
        elif kind != "health":
            self.send_error(404)
            return
        body = request_id.encode() or b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def two_threads(self, request_id: str):
        """Two threads of this request make a call each; it waits for both."""

        def one(call, arg):
            call(arg)
            close_local()

        threads = [threading.Thread(target=one, args=(agent_get, f"/work/{request_id}")),
                   threading.Thread(target=one, args=(redis_get, f"truth:{request_id}"))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def finish(self):
        super().finish()
        close_local()

    def address_string(self):
        return "local"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


def main():
    path = os.environ.get("UNIX")
    bind = os.environ.get("BIND", "127.0.0.1")
    Server.address_family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in bind else socket.AF_INET
    server = Server(path or (bind, int(os.environ.get("PORT", "0"))), Handler)
    print(f"unix {path}" if path else f"port {server.socket.getsockname()[1]}", flush=True)
    server.serve_forever()


main()
