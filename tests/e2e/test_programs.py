"""Real programs nobody here wrote, with span counts equal to what they report themselves."""
import re
import subprocess

import load
import pytest
import services
from seen import ERROR, UNSET, servers


# These programs want every core they can get, and every span is counted: the agent gets its share, and room to wait.
UNSTARVED = ("--nice", "0", "--ring-size", "64M")


def run(*argv, check=True, **kw):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60, **kw)
    assert not check or p.returncode == 0, p.stdout + p.stderr
    return p.stdout + p.stderr


def redis_calls(port):
    """What the server itself counted: {command: calls}."""
    text = load.raw(port, b"INFO commandstats\r\n").decode()
    return {m[1].replace("|", " ").upper(): int(m[2]) for m in re.finditer(r"cmdstat_([\w|]+):calls=(\d+)", text)}


def check_nothing_lost(tracing):
    lost = {k: v for k, v in tracing.drops().items() if k in ("ring_full", "queue_full", "stream_lost", "bad_message")}
    assert not any(lost.values()), lost


@pytest.mark.parametrize("resp3", [False, True], ids=["resp2", "resp3"])
@pytest.mark.parametrize("pipeline", [1, 16], ids=["plain", "P16"])
def test_redis_benchmark(tracing, stack, collector, resp3, pipeline):
    """The traced process is redis-server: SERVER spans, as many commands as it counted."""
    store = stack.redis()
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, pids=[store.pid])
    before = redis_calls(store.port)
    run("redis-benchmark", "-p", store.port, "-n", 8000, "-c", 8, "-P", pipeline, "-t", "ping_mbulk,set,get,lpush,lrange_100",
        "-q", *(["-3"] if resp3 else []))
    after = redis_calls(store.port)
    spans = [s for s in servers(t.finish(), [store.pid])]
    check_nothing_lost(t)
    counted = sum(after.values()) - sum(before.values()) - 1  # the second INFO does not count itself yet
    batches = [s for s in spans if not s.attrs["db.operation.name"].startswith("INFO")]
    assert all(s.is_redis for s in spans)
    assert sum(s.commands for s in batches) == counted
    if pipeline == 1:
        names = [s.attrs["db.operation.name"] for s in batches]
        for name in ("SET", "GET", "LPUSH"):
            # With RESP3 a connection's first command is in one batch with its HELLO; eight connections a test.
            calls = after[name] - before.get(name, 0)
            assert calls - 8 * resp3 * (calls // 8000) <= names.count(name) <= calls
    else:
        assert max(s.commands for s in batches) == pipeline + resp3
    assert {s.status for s in batches} == {UNSET}


def test_redis_benchmark_as_client(tracing, stack, collector):
    """The other end: the program itself, found when it starts; nearly all of it, since it starts at once."""
    store = stack.redis()
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, "--exe", "redis-benchmark")
    run("redis-benchmark", "-p", store.port, "-n", 60000, "-c", 4, "-t", "get", "-q")
    spans = [s for s in t.finish() if s.attrs.get("db.operation.name") == "GET" and s.attrs["server.port"] == store.port]
    assert {s.kind for s in spans} == {3}
    assert 30000 < len(spans) <= 60000


def test_redis_errors_and_transactions(tracing, stack, collector):
    store = stack.redis()
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, pids=[store.pid])
    run("redis-cli", "-p", store.port, "set", "text", "SECRET")
    run("redis-cli", "-p", store.port, "incr", "text")
    run("redis-cli", "-p", store.port, "nosuchcommand", "x", check=False)
    run("redis-cli", "-3", "-p", store.port, "hset", "h", "f", "SECRET")
    run("redis-cli", "-p", store.port, "eval", "return redis.call('get', 'text')", "0")
    load.raw(store.port, b"MULTI\r\nSET a 1\r\nINCR a\r\nEXEC\r\n")
    spans = servers(t.finish())
    names = [s.attrs["db.operation.name"] for s in spans]
    assert "SECRET" not in str([(s.name, s.attrs) for s in spans])
    (incr,) = [s for s in spans if s.attrs["db.operation.name"] == "INCR"]
    assert (incr.status, incr.attrs["error.type"], incr.attrs["db.response.status_code"]) == (ERROR, "ERR", "ERR")
    assert any(n.upper() == "NOSUCHCOMMAND" for n in names)
    assert any(n.startswith("MULTI") or n.startswith("PIPELINE") for n in names)
    assert {s.attrs.get("server.port") for s in spans} == {store.port}


@pytest.fixture
def web(stack, backend):
    return stack.nginx(upstream=backend.port)


def test_ab(tracing, web, collector):
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, pids=[web.pid])
    text = run("ab", "-q", "-k", "-n", 5000, "-c", 8, f"http://127.0.0.1:{web.port}/index.html")
    text += run("ab", "-q", "-n", 1000, "-c", 4, f"http://127.0.0.1:{web.port}/nothing")
    reported = sum(int(n) for n in re.findall(r"Complete requests:\s+(\d+)", text))
    found = servers(t.finish(), [web.pid])
    check_nothing_lost(t)
    assert reported == 6000
    # HTTP/1.0 without keep-alive may open a connection that it does not use; that is no request.
    assert len(found) == reported
    assert [s.attrs["http.response.status_code"] for s in found].count(404) == 1000
    assert {s.attrs["network.protocol.version"] for s in found} == {"1.0"}


def test_wrk(tracing, web, collector):
    """wrk leaves up to one request a connection unanswered at its end; nginx has seen those, wrk has not counted them."""
    connections = 8
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, pids=[web.pid])
    text = run("wrk", "-t", 1, "-c", connections, "-d", "2s", f"http://127.0.0.1:{web.port}/index.html")
    reported = int(re.search(r"(\d+) requests in", text)[1])
    found = servers(t.finish(), [web.pid])
    check_nothing_lost(t)
    answered = [s for s in found if s.attrs.get("http.response.status_code") == 200]
    assert reported <= len(found) <= reported + connections
    assert reported <= len(answered)


def test_curl(tracing, web, gateway, collector, tmp_path):
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, pids=[web.pid, gateway.pid])
    body = tmp_path / "body"
    body.write_bytes(b"0123456789" * 20000)
    curl = ["curl", "-sS", "-o", "/dev/null", "--noproxy", "*"]
    site, app = f"http://127.0.0.1:{web.port}", f"http://127.0.0.1:{gateway.port}"
    run(*curl, "-I", f"{site}/index.html?head=1")
    run(*curl, f"{site}/index.html?one=1", f"{site}/index.html?two=1")
    run(*curl, "--http1.0", f"{site}/index.html?old=1")
    run(*curl, "-r", "0-9", f"{site}/index.html?range=1")
    run(*curl, "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{body}", f"{app}/items?chunked=1")
    run(*curl, "-H", "Expect: 100-continue", "--data-binary", f"@{body}", f"{app}/items?expect=1")
    run(*curl, "-X", "PURGE", f"{site}/index.html?method=1")
    run(*curl, "-m", "0.2", f"{app}/upstream-slow?ms=2000", check=False)
    run(*curl, f"{app}/stream?chunks=20")
    run(*curl, f"{site}/proxy/health")
    found = {}
    for span in servers(t.finish()):
        found.setdefault(span.attrs.get("url.query") or span.path, []).append(span)
    assert {len(v) for v in found.values()} == {1}, found
    seen = {key: (v[0].attrs.get("http.request.method"), v[0].attrs.get("http.response.status_code"))
            for key, v in found.items()}
    assert seen == {"head=1": ("HEAD", 200), "one=1": ("GET", 200), "two=1": ("GET", 200), "old=1": ("GET", 200),
                    "range=1": ("GET", 206), "chunked=1": ("POST", 201), "expect=1": ("POST", 201),
                    "method=1": ("_OTHER", 405), "ms=2000": ("GET", None), "chunks=20": ("GET", 200),
                    "/proxy/health": ("GET", 200)}
    assert found["method=1"][0].attrs["http.request.method_original"] == "PURGE"
    assert found["method=1"][0].name == "HTTP"
    assert found["ms=2000"][0].status == ERROR


def test_nginx_proxy_is_client_and_server(tracing, web, collector):
    t = tracing()
    t.start(*UNSTARVED, "--collector", collector, pids=[web.pid])
    for _ in range(20):
        assert services.http_get(web.port, "/proxy/health")[0] == 200
    spans = t.finish()
    assert len(servers(spans)) == 20
    assert len([s for s in spans if s.kind == 3 and s.attrs.get("url.full", "").endswith("/health")]) == 20


def test_other_protocols_are_left_alone(tracing, stack, collector):
    """A process that speaks neither protocol makes no span, and no noise."""
    t = tracing()
    app = stack.start("echo", [services.PYTHON, "-c",
                               "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\n"
                               "while True:\n c, _ = s.accept()\n while d := c.recv(4096): c.sendall(d)\n c.close()"])
    port = int(app.wait_ready(lambda: re.match(r"(\d+)\n", app.output()))[1])
    t.start(*UNSTARVED, "--collector", collector, pids=[app.pid])
    for data in (b"\x00\x01\x02\x03" * 1000, b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01", b"lorem ipsum\n" * 50):
        load.raw(port, data)
    assert t.finish() == []
