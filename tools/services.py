"""Starts and stops what the demo, the end-to-end tests and the benchmarks need around the agent.

Owns: child processes on loopback ports of their own, their logs in one folder, and the wait until they answer.
Refuses: any address but loopback, and to leave a child behind (Stack closes all, newest first).
Invariant: what start_*() returns is ready to be used.
"""
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.environ.get("SPANLOOM_BUILD", os.path.join(TOP, "build"))
APPS = os.path.join(TOP, "tests", "apps")
SPANLOOM = os.path.join(BUILD, "spanloom")
PYTHON = os.path.join(BUILD, "venv", "bin", "python")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "spanloom")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
READY_LINE = "spanloom: ready"


def free_port():
    """A loopback port that nobody listens on now, and nobody was just given."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


_given = set()


def wait_until(condition, timeout, what, interval=0.02):
    """The first true value of condition(); RuntimeError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {timeout} s")
        time.sleep(interval)


def port_open(port, host="127.0.0.1"):
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


class Service:
    """One child process whose output goes to a file; with own_output to ours, its stderr seen on the way.

    In a process group of its own: Ctrl-C is for us, who stop all of them in order.
    """

    def __init__(self, name, argv, log_dir=None, env=None, cwd=None, own_output=False):
        self.name, self.port, self.argv = name, None, argv
        self.log_path = None if own_output else os.path.join(log_dir, f"{name}-{len(os.listdir(log_dir))}.log")
        full_env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLOOM_"))}
        full_env["PATH"] = full_env.get("PATH", "") + ":" + SBIN
        full_env.update({k: str(v) for k, v in (env or {}).items()})
        if own_output:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd,
                                            env=full_env, process_group=0)
            self._seen = []
            self._forwarder = threading.Thread(target=self._forward, daemon=True)
            self._forwarder.start()
            return
        with open(self.log_path, "wb") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                            cwd=cwd, env=full_env, process_group=0)

    def _forward(self):
        for line in self.process.stderr:
            self._seen.append(line.decode(errors="replace"))
            sys.stderr.write(self._seen[-1])
            sys.stderr.flush()

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        if not self.log_path:
            return "".join(self._seen)
        with open(self.log_path, "rb") as f:
            return f.read().decode(errors="replace")

    def alive(self):
        return self.process.poll() is None

    def wait_ready(self, condition, timeout=20):
        def ready():
            if not self.alive():
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.output()[-4000:]}")
            return condition()

        try:
            return wait_until(ready, timeout, f"{self.name} ready")
        except RuntimeError as e:
            raise RuntimeError(f"{e}\n{self.output()[-4000:]}") from None

    def stop(self, sig=signal.SIGTERM, timeout=10):
        """Its exit code; killed when it does not end in time."""
        if self.alive():
            self.process.send_signal(sig)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self.log_path:
            self._forwarder.join(1)
        return self.process.returncode

    def children(self):
        """PIDs of direct children."""
        pids = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/task/{task}/children") as f:
                pids += [int(p) for p in f.read().split()]
        return pids


class Stack(contextlib.ExitStack):
    """Everything started through it is stopped at its end, newest first."""

    def __init__(self, log_dir):
        super().__init__()
        self.log_dir = log_dir

    def start(self, name, argv, **kw):
        service = Service(name, [str(a) for a in argv], log_dir=self.log_dir, **kw)
        self.callback(service.stop)
        return service

    def redis(self, unix=None):
        port = free_port()
        argv = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--daemonize", "no", "--dir", self.log_dir]
        if unix:
            argv += ["--unixsocket", unix]
        service = self.start("redis", argv)
        service.port = port
        service.wait_ready(lambda: port_open(port))
        return service

    def uvicorn(self, app, env=None, args=(), host="127.0.0.1", loop="uvloop", port=None, uds=None):
        port = port or free_port()
        where = ["--uds", uds] if uds else ["--host", host, "--port", port]
        service = self.start(app, [PYTHON, "-m", "uvicorn", f"{app}:app", *where, "--loop", loop, "--log-level",
                                   "warning", "--no-access-log", *args], env=env, cwd=APPS)
        service.port = port
        service.wait_ready(lambda: os.path.exists(uds) if uds else port_open(port, host))
        return service

    def gunicorn(self, app, env=None, args=()):
        port = free_port()
        service = self.start(app, [PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--log-level", "warning",
                                   "--worker-tmp-dir", self.log_dir, *args, f"{app}:app"], env=env, cwd=APPS)
        service.port = port
        service.wait_ready(lambda: port_open(port) and http_ok(port))
        return service

    def truth_backend(self, at_once=False):
        """What the truth-carrying applications call; it takes a few ms at times, unless all is to be `at_once`."""
        argv = [PYTHON, "-u", "truth_backend.py"] + (["at-once"] if at_once else [])
        service = self.start("truth_backend", argv, cwd=APPS)
        service.port = int(service.wait_ready(lambda: re.search(r"^port (\d+)$", service.output(), re.M))[1])
        return service

    def python_app(self, app, server="uvicorn", python=PYTHON, loop="uvloop", http="httptools", workers=1, env=None,
                   args=(), root=None, health="/health", port=None):
        """
        An application (module, or module:name) under one of SERVERS, by any interpreter; with `root`, in that chroot, where
        the applications are at /opt/apps.
        """
        port = port or free_port()
        app = app if ":" in app else f"{app}:app"
        argv = SERVERS[server](python, app, port, loop, http, workers) + [str(a) for a in args]
        wrap = ["chroot", root, "env", "-C", "/opt/apps"] if root else []
        full_env = {"PYTHONDONTWRITEBYTECODE": 1, **(env or {})}
        service = self.start(app.split(":")[0], wrap + argv, env=full_env, cwd=None if root else APPS)
        service.port = port
        service.wait_ready(lambda: port_open(port) and http_ok(port, health), 40)
        return service

    def stdlib(self, env=None):
        service = self.start("stdlib_server", [PYTHON, "-u", "stdlib_server.py"], env=env, cwd=APPS)
        line = service.wait_ready(lambda: re.search(r"^(?:port (\d+)|unix .*)$", service.output(), re.M))
        service.port = int(line[1]) if line[1] else None
        return service

    def nginx(self, workers=1, upstream=None):
        """Serves a small file at / (and /proxy/ from `upstream`, a port)."""
        port = free_port()
        root = os.path.join(self.log_dir, f"nginx-{port}")
        os.makedirs(os.path.join(root, "html"))
        for folder in (self.log_dir, root, os.path.join(root, "html")):
            os.chmod(folder, 0o755)
        with open(os.path.join(root, "html", "index.html"), "w") as f:
            f.write("hello\n" * 20)
        proxy = f"location /proxy/ {{ proxy_pass http://127.0.0.1:{upstream}/; }}" if upstream else ""
        conf = os.path.join(root, "nginx.conf")
        with open(conf, "w") as f:
            f.write(f"""daemon off; master_process {'on' if workers > 1 else 'off'}; worker_processes {workers};
user root; pid {root}/pid; error_log {root}/error.log warn;
events {{ worker_connections 512; }}
http {{ access_log off; keepalive_requests 10000000; default_type text/plain; sendfile on;
  client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
  scgi_temp_path {root}/s;
  server {{ listen 127.0.0.1:{port}; root {root}/html; {proxy} }} }}
""")
        service = self.start("nginx", ["nginx", "-p", root, "-e", f"{root}/error.log", "-c", conf])
        service.port = port
        service.wait_ready(lambda: port_open(port))
        return service

    def spanloom(self, *args, env=None, ready=True, own_output=False, timeout=10, wrap=()):
        """The agent; its start time until `ready` is in .ready_seconds."""
        begin = time.monotonic()
        service = self.start("spanloom", [*wrap, SPANLOOM, *args], env=env, own_output=own_output)
        if ready:
            service.wait_ready(lambda: READY_LINE in service.output(), timeout)
            service.ready_seconds = time.monotonic() - begin
        return service

    def jaeger(self, binary):
        """A real Jaeger with its storage in memory; .query_port, .grpc_port, .http_port."""
        health, query_grpc = free_port(), free_port()
        ports = {"query": free_port(), "grpc": free_port(), "http": free_port()}
        conf = os.path.join(self.log_dir, "jaeger.yaml")
        with open(conf, "w") as f:
            f.write(JAEGER_CONFIG.format(health=health, query_grpc=query_grpc, **ports))
        service = self.start("jaeger", [binary, "--config", conf])
        service.query_port, service.grpc_port, service.http_port = ports["query"], ports["grpc"], ports["http"]
        service.wait_ready(lambda: http_ok(health, "/status") and http_ok(ports["query"], "/api/services"), 30)
        return service


def _uvicorn(python, app, port, loop, http, workers):
    many = ["--workers", str(workers)] if workers > 1 else []
    return [python, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), "--loop", loop, "--http", http,
            "--log-level", "error", "--no-access-log", *many]


def _hypercorn(python, app, port, loop, http, workers):
    return [python, "-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}", "--worker-class", loop, "--workers", str(workers),
            "--log-level", "CRITICAL"]


def _granian(python, app, port, loop, http, workers):
    return [python, "-m", "granian", app, "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--loop", loop,
            "--workers", str(workers), "--log-level", "critical"]


def _gunicorn(*worker):
    def argv(python, app, port, loop, http, workers):
        return [python, "-m", "gunicorn", app, "-b", f"127.0.0.1:{port}", "--workers", str(workers), "--log-level",
                "critical", *worker]

    return argv


def _aiohttp(python, app, port, loop, http, workers):
    return [python, app.split(":")[0] + ".py", str(port), loop]


# How each server is started: (python, "module:name", port, loop, http, workers) to argv.
SERVERS = {"uvicorn": _uvicorn, "hypercorn": _hypercorn, "granian": _granian, "aiohttp": _aiohttp,
           "gunicorn": _gunicorn("-k", "uvicorn.workers.UvicornWorker"), "sync": _gunicorn("-k", "sync"),
           "gthread": _gunicorn("-k", "gthread", "--threads", "8")}

JAEGER_CONFIG = """
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
extensions:
  healthcheckv2: {{use_v2: true, http: {{endpoint: "127.0.0.1:{health}"}}}}
  jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 200000}}}}}}}}
  jaeger_query:
    storage: {{traces: memory}}
    enable_tracing: false
    grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}
    http: {{endpoint: "127.0.0.1:{query}"}}
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"""

# Loopback traffic goes past any proxy of the environment.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http_get(port, path="/health", timeout=10, headers=None):
    """(status, body) of a GET; an error status is no exception."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
    try:
        with _direct.open(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def http_ok(port, path="/health"):
    try:
        return http_get(port, path, timeout=2)[0] == 200
    except OSError:
        return False


def jaeger_binary(build=True):
    """Path of a Jaeger in the user's cache, built when it may be; None when there is none."""
    argv = [os.path.join(TOP, "tools", "jaeger-build")] + ([] if build else ["--cached"])
    p = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    return p.stdout.strip() if p.returncode == 0 else None


def cpu_seconds(pid):
    """User and system time of a process and of its threads so far."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bpf_objects(pid):
    """What BPF objects the process holds: {("map"|"prog", id): {field: value}} from its file descriptors."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        except OSError:
            continue
        for kind in ("map", "prog"):
            if f"{kind}_id" in fields and "link_id" not in fields:
                found[kind, int(fields[f"{kind}_id"])] = fields
    return found


def bpf_map_bytes(pid):
    return sum(int(fields.get("memlock", 0)) for (kind, _), fields in bpf_objects(pid).items() if kind == "map")


def exit_on_signals():
    """SIGTERM and SIGHUP end us like Ctrl-C does, so that what was started is stopped."""

    def leave(*_):
        sys.exit(130)

    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, leave)
