"""Every request is exactly one server span that tells the truth; every Redis command one client span."""
import http.client
import time

import load
import pytest
import services
from seen import ERROR, UNSET, check_times, clients, match_requests, servers

PROTOCOLS = ["grpc", "http/protobuf"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_request_is_one_span(tracing, gateway, collector, protocol):
    t = tracing(protocol)
    t.start("--collector", collector, pids=[gateway.pid])
    paths = [f"/items/{n}?q={n % 7}" for n in range(1000, 1400)] + [f"/nowhere/{n}" for n in range(100)]
    sent = load.run(paths, connections=8, port=gateway.port)
    found = servers(t.finish(), [gateway.pid])
    pairs = match_requests(sent, found)
    check_times(pairs)
    for request, span in pairs:
        assert span.name == ("GET /items/{item_id}" if span.path.startswith("/items/") else "GET")
        assert span.status == UNSET
        assert span.attrs["url.scheme"] == "http"
        assert span.attrs["server.address"] == "127.0.0.1"
        assert span.attrs["server.port"] == gateway.port
        assert span.attrs["network.protocol.version"] == "1.1"
    assert len({s.trace_id for s in found}) == len(found)


def test_methods_and_statuses(tracing, gateway, collector):
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    sent = [c.request("/items/1"), c.request("/items", "POST", b"x" * 100), c.request("/health?h=1", "HEAD"),
            c.request("/items/404"), c.request("/health?p=1", "PUT", b"{}"),
            c.request("/health?o=1", "OPTIONS"), c.request("/stream?chunks=5"), c.request("/fail")]
    c.close()
    assert [s.status for s in sent] == [200, 201, 405, 404, 405, 405, 200, 500]
    pairs = match_requests(sent, servers(t.finish()))
    for request, span in pairs:
        if request.status >= 500:
            assert (span.status, span.attrs["error.type"]) == (ERROR, "500")
        else:
            assert span.status == UNSET and "error.type" not in span.attrs


def test_large_bodies(tracing, gateway, collector):
    """Longer than what is captured, both ways in which a length is told, with a request behind each."""
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    sent = []
    for n, size in enumerate([10, 9000, 70_000, 1_000_000]):
        body = b"GET /items/666 HTTP/1.1\r\nHost: x\r\n\r\n" * (size // 38 + 1)
        sent.append(c.request(f"/items?n={n}", "POST", body))
        sent.append(c.request(f"/items/{n}"))
        sent.append(c.request(f"/items?c={n}", "POST", iter([body[:size // 2], body[size // 2:]]),
                              {"Transfer-Encoding": "chunked"}))
    c.close()
    match_requests(sent, servers(t.finish()))


def test_client_spans_tell_the_call(tracing, gateway, backend, redis, collector):
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid, backend.pid])
    c = load.Connection(port=gateway.port)
    for _ in range(20):
        assert c.request("/call").status == 200
    c.close()
    spans = t.finish()
    calls = [s for s in clients(spans, [gateway.pid]) if not s.is_redis]
    assert len(calls) == 20
    for span in calls:
        assert span.name == "POST"
        assert span.attrs["url.full"] == f"http://127.0.0.1:{backend.port}/rpc"
        assert (span.attrs["server.address"], span.attrs["server.port"]) == ("127.0.0.1", backend.port)
        assert span.attrs["http.response.status_code"] == 200
    incr = [s for s in clients(spans, [gateway.pid]) if s.is_redis and s.attrs["db.operation.name"].startswith("INCR")]
    assert len(incr) == 20
    for span in incr:
        assert span.attrs["server.port"] == redis.port
        assert "rate:call" in span.attrs["db.query.text"]
    assert len([s for s in servers(spans, [backend.pid]) if s.path == "/rpc"]) == 20


def commands_processed(port):
    c = load.raw(port, b"INFO stats\r\n").decode()
    return int(c.split("total_commands_processed:")[1].split()[0])


def test_every_redis_command_is_counted(tracing, gateway, redis, collector):
    """Pipelines are one span that says how many; the sum is what the server itself counts."""
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    c.request("/redis")
    before = commands_processed(redis.port)
    for _ in range(100):
        assert c.request("/redis").status == 200
    after = commands_processed(redis.port)
    c.close()
    assert after - before - 1 == 400  # less our own INFO
    spans = [s for s in clients(t.finish(), [gateway.pid]) if s.is_redis]
    pipelines = [s for s in spans if s.attrs["db.operation.name"].startswith("PIPELINE")]
    plain = [s for s in spans if s.attrs["db.operation.name"] == "HINCRBY"]
    assert (len(pipelines), len(plain)) == (101, 101)
    assert {s.commands for s in pipelines} == {3}


def test_redaction(tracing, gateway, collector):
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    c.request("/items/1?token=SECRET1&q=kept", headers={"Authorization": "Bearer SECRET2", "Cookie": "a=SECRET3"})
    c.request("/redis")
    c.close()
    spans = t.finish()
    assert "SECRET" not in str([(s.name, s.attrs, s.resource) for s in spans])
    assert any("q=kept" in s.attrs.get("url.query", "") for s in spans)


def test_refused_connection_is_a_span(tracing, gateway, collector):
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    assert c.request("/upstream-down").status == 502
    c.close()
    spans = t.finish()
    (parent,) = servers(spans)
    (span,) = [s for s in clients(spans) if s.name == "connect"]
    assert (span.status, span.attrs["error.type"]) == (ERROR, "connection_refused")
    assert (span.attrs["server.address"], span.attrs["server.port"]) == ("127.0.0.1", 1)
    assert (span.trace_id, span.parent_id) == (parent.trace_id, parent.span_id)
    assert parent.start <= span.start <= span.end <= parent.end


def test_call_given_up_is_an_error(tracing, gateway, collector):
    """The caller hangs up before the answer: no status is invented."""
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    assert c.request("/upstream-slow?ms=500").status == 504
    c.close()
    time.sleep(0.7)
    (span,) = [s for s in clients(t.finish()) if "/slow" in s.attrs.get("url.full", "")]
    assert span.status == ERROR and span.attrs["error.type"]
    assert "http.response.status_code" not in span.attrs


def test_incoming_traceparent(tracing, gateway, collector):
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    c = load.Connection(port=gateway.port)
    for n, header in enumerate([f"00-{trace}-{parent}-01", f"cc-{trace}-{parent}-01-later", f"00-{trace}-{parent}-03",
                                f"00-{'0' * 32}-{parent}-01", f"00-{trace}-{parent}-01-x", f"ff-{trace}-{parent}-01"]):
        c.request(f"/items/{n}", headers={"traceparent": header})
    c.close()
    by_path = {s.path: s for s in servers(t.finish())}
    for n in range(6):
        span = by_path[f"/items/{n}"]
        taken = (span.trace_id, span.parent_id) == (trace, parent)
        assert taken == (n < 3), (n, span)
        assert taken or span.parent_id == ""


def test_unsampled_parent_is_honoured(tracing, gateway):
    t = tracing()
    t.start(pids=[gateway.pid])
    c = load.Connection(port=gateway.port)
    c.request("/items/1", headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"})
    c.request("/items/2")
    c.close()
    assert [s.path for s in servers(t.finish())] == ["/items/2"]


def test_unix_sockets(tracing, stack, redis, log_dir, collector):
    """A server and a Redis on unix sockets."""
    sock, store = f"{log_dir}/app-{collector}.sock", f"{log_dir}/redis-{collector}.sock"
    stack.redis(unix=store)
    app = stack.uvicorn("gateway", env={"REDIS_UNIX": store}, uds=sock)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/items/{n}" for n in range(50)], connections=4, unix=sock)
    sent += load.run(["/redis"], connections=1, unix=sock)
    spans = t.finish()
    match_requests(sent, servers(spans))
    redis_spans = [s for s in clients(spans) if s.is_redis]
    assert {s.attrs["server.address"] for s in redis_spans} == {store}
    assert len([s for s in redis_spans if s.attrs["db.operation.name"] == "HINCRBY"]) == 1


def test_ipv6(tracing, stack, app_env, collector):
    app = stack.uvicorn("gateway", env=app_env, host="::1")
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/items/{n}" for n in range(50)], connections=4, port=app.port, host="::1")
    pairs = match_requests(sent, servers(t.finish()))
    assert {span.attrs["network.peer.address"] for _, span in pairs} == {"::1"}


def test_blocking_stdlib_server(tracing, stack, app_env, collector):
    app = stack.stdlib(env=app_env)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/truth/{n}" for n in range(300)], connections=8, port=app.port)
    check_times(match_requests(sent, servers(t.finish(), [app.pid])))


def test_aborted_requests(tracing, gateway, collector):
    """Half a request is no span; a request whose client leaves is one, without a status that nobody saw."""
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    load.raw(gateway.port, b"GET /items/1 HT")
    c = http.client.HTTPConnection("127.0.0.1", gateway.port)
    c.request("GET", "/upstream-slow?ms=600")
    time.sleep(0.05)
    c.close()
    time.sleep(1)
    assert services.http_ok(gateway.port)
    found = servers(t.finish(), [gateway.pid])
    assert sorted(s.path for s in found) == ["/health", "/upstream-slow"]
    (cut,) = [s for s in found if s.path == "/upstream-slow"]
    assert cut.status == ERROR and cut.attrs["error.type"]
    assert "http.response.status_code" not in cut.attrs


def test_split_and_pipelined(tracing, gateway, collector):
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    head = b"Host: x\r\nConnection: close\r\n\r\n"
    load.raw(gateway.port, b"GET /items/1 HTTP/1.1\r\nX-Long: " + b"y" * 300 + b"\r\n" + head, chunks=7)
    three = b"".join(b"GET /items/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in (2, 3)) + b"GET /items/4 HTTP/1.1\r\n" + head
    answer = load.raw(gateway.port, three)
    assert answer.count(b"HTTP/1.1 200") == 3
    found = servers(t.finish())
    assert sorted(s.path for s in found) == [f"/items/{n}" for n in (1, 2, 3, 4)]
    assert {s.attrs["http.response.status_code"] for s in found} == {200}
