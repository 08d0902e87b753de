"""A callee of the standard library alone, one thread a connection and blocking sockets: /chain/ID answers with the id and
the traceparent headers that came.

env: PORT (0: any), BIND (default 127.0.0.1; ::1, or ::ffff:127.0.0.1 for IPv4 on an IPv6 socket), UNIX (a path instead)
run: python chain_stdlib.py      prints `port N` (or `unix PATH`) when it listens
"""
import http.server
import json
import os
import socket
import socketserver


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call_id = self.path.split("?")[0].rsplit("/", 1)[1]
        body = json.dumps({"id": call_id, "traceparent": self.headers.get_all("traceparent", []),
                           "tracestate": self.headers.get_all("tracestate", [])}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

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
    path, bind = os.environ.get("UNIX"), os.environ.get("BIND", "127.0.0.1")
    Server.address_family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in bind else socket.AF_INET
    server = Server(path or (bind, int(os.environ.get("PORT", "0"))), Handler)
    print(f"unix {path}" if path else f"port {server.socket.getsockname()[1]}", flush=True)
    server.serve_forever()


main()
