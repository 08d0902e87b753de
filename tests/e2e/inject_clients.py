"""Clients in processes of their own that do what they are told on their standard input, and can be traced meanwhile.

Owns: their processes, the build of the Go one, nginx as a proxy in front. Refuses: to go on when a client failed.
"""
import json
import os
import select
import shutil
import subprocess
import time

import services
from inject_messages import INNER

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.join(HERE, "clients")
PYTHON_CLIENTS = ["aiohttp", "aiohttp-uvloop", "httpx", "httpx-async", "httpx-uvloop", "requests", "urllib3"]
BLOCKING_CLIENTS = ["requests-blocking", "urllib3-blocking"]
KINDS = ["get", "post", "chunked", "big", "own", "state"]
PROXY = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}


class Talker:
    """A child that reads lines from us and answers with lines."""

    def __init__(self, argv, log_dir, cwd=None):
        self.argv, self.errors = [str(a) for a in argv], open(os.path.join(log_dir, f"talker-{time.monotonic_ns()}"), "w+b")
        env = {k: v for k, v in os.environ.items() if k.upper() not in PROXY and not k.startswith("OTEL_")}
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        cwd=cwd, process_group=0, env=env)

    @property
    def pid(self):
        return self.process.pid

    def tell(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def failure(self, what):
        self.errors.seek(0)
        return RuntimeError(f"{' '.join(self.argv)}: {what}: {self.errors.read().decode(errors='replace')[-3000:]}")

    def hear(self, timeout=60):
        """The next line of its."""
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            raise self.failure("no answer")
        line = self.process.stdout.readline()
        if not line:
            raise self.failure("it ended")
        return line.decode().strip()

    def run(self, batch):
        """batch: [(path, kind)]"""
        self.tell("".join(f"{path} {kind}\n" for path, kind in batch) + "\n")
        assert self.hear() == "done"

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Curl:
    """One curl for each batch; each waits for its configuration, so that it can be traced before it begins."""

    def __init__(self, port, log_dir):
        self.port, self.log_dir, self.next = port, log_dir, None
        self.body = os.path.join(log_dir, "curl-body")
        with open(self.body, "wb") as f:
            f.write(INNER * 20)
        self.big = self.body + "-big"
        with open(self.big, "wb") as f:
            f.write(INNER * 6000)
        self.make()

    def make(self):
        self.next = Talker(["curl", "-sS", "--http1.1", "-K", "-"], self.log_dir)

    @property
    def pid(self):
        return self.next.pid

    def run(self, batch):
        options = {"post": f'data-binary = "@{self.body}"\n', "big": f'data-binary = "@{self.big}"\n',
                   "chunked": f'header = "Transfer-Encoding: chunked"\ndata-binary = "@{self.body}"\n',
                   "own": 'header = "TraceParent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"\n'
                          'header = "tracestate: vendor=1"\n',
                   "state": 'header = "tracestate: vendor=1,other=2"\n'}
        parts = [f'url = "http://127.0.0.1:{self.port}{path}"\nnoproxy = "*"\n' + options.get(kind, "")
                 for path, kind in batch]
        self.next.tell("next\n".join(parts))
        self.next.process.stdin.close()
        said = self.next.process.stdout.read()
        if self.next.process.wait(30) or said != b"ok" * len(batch):
            raise self.next.failure(f"ended with {self.next.process.returncode}, said {said[:200]}")
        self.next.process.stdin = open(os.devnull, "wb")
        self.next.close()
        self.make()

    def close(self):
        self.next.process.kill()
        self.next.close()


def go_client():
    """Path of the Go client, built when it is older than its source; None without Go."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if not go:
        return None
    source, out = os.path.join(CLIENTS, "client.go"), os.path.join(services.BUILD, "tests", "go_client")
    if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(out), exist_ok=True)
        made = f"{out}.{os.getpid()}"
        subprocess.run([go, "build", "-o", made, source], check=True, env={**os.environ, "GO111MODULE": "off"})
        os.replace(made, out)
    return out


def start(stack, name, port):
    """A client by its name; None where its program is not installed."""
    if name == "curl":
        client = Curl(port, stack.log_dir)
    elif name == "go":
        if not go_client():
            return None
        client = Talker([go_client(), port], stack.log_dir)
    elif name == "node":
        if not shutil.which("node"):
            return None
        client = Talker(["node", os.path.join(CLIENTS, "client.js"), port], stack.log_dir)
    else:
        client = Talker([services.PYTHON, os.path.join(CLIENTS, "requests_of.py"), name, port], stack.log_dir)
    stack.callback(client.close)
    return client


class Helper(Talker):
    """A program of this folder, traced while it does its scenes: "NAME {arguments}" in, one JSON line out."""

    def __init__(self, stack, program, *args, python=services.PYTHON):
        super().__init__([python, os.path.join(HERE, program), *args], stack.log_dir)
        stack.callback(self.close)
        assert self.hear(20) == "ready"

    def begin(self, name, **arguments):
        self.tell(f"{name} {json.dumps(arguments)}\n")

    def end(self, timeout=60):
        return json.loads(self.hear(timeout))

    def do(self, name, timeout=60, **arguments):
        self.begin(name, **arguments)
        return self.end(timeout)


def nginx_proxy(stack, upstream, version="1.1"):
    """nginx that hands everything on to a port, on kept connections where the version has them."""
    port = services.free_port()
    root = os.path.join(stack.log_dir, f"proxy-{port}")
    os.makedirs(root)
    os.chmod(root, 0o755)
    kept, pool = ('proxy_set_header Connection ""; ', "keepalive 8;") if version == "1.1" else ("", "")
    with open(f"{root}/nginx.conf", "w") as f:
        f.write(f"""daemon off; master_process off; worker_processes 1;
user root; pid {root}/pid; error_log {root}/error.log warn;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 1000000; client_max_body_size 100m;
  client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
  scgi_temp_path {root}/s;
  upstream behind {{ server 127.0.0.1:{upstream}; {pool} }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://behind; proxy_http_version {version}; {kept}}} }} }}
""")
    service = stack.start("proxy", ["nginx", "-p", root, "-e", f"{root}/error.log", "-c", f"{root}/nginx.conf"])
    service.port = port
    service.wait_ready(lambda: services.port_open(port))
    return service
