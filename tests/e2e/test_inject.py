"""A traceparent is put into the requests of programs that nobody changed, and not a byte more.

The truth is what a server received: the same client makes the same requests before the agent comes and with it.
"""
import inject_clients
import pytest
from inject_clients import BLOCKING_CLIENTS, KINDS, PYTHON_CLIENTS, nginx_proxy
from inject_messages import LINE, added, difference
from inject_recorder import Recorder
from seen import clients, servers

OWN_TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = "--propagate=headers"
BATCH = [(f"/{kind}/{n}", kind) for n in range(6) for kind in KINDS]
WARM = [(f"/warm/{n}", "get") for n in range(12)]


def needed(stack, name, port):
    client = inject_clients.start(stack, name, port)
    if not client:
        pytest.skip(f"{name} is not installed")
    return client


def compare(reference, received):
    """{path: Ids or None}: each request is as it was without the agent, but for the line."""
    assert set(received) == set(reference)
    return {path: added(r.raw, reference[path].raw, path) for path, r in received.items()}


def firsts(received, before):
    """The first request on each of the connections that were open before the agent came: it may go without a header."""
    found = {}
    for path, r in received.items():
        if r.stream < before:
            found.setdefault(r.stream, path)
    return set(found.values())


def check_named(headers, spans):
    """Each line names one client span, that of its request, and no two the same."""
    by_id = {(s.trace_id, s.span_id): s for s in clients(spans)}
    named = {path: ids for path, ids in headers.items() if ids}
    assert len({(i.trace_id, i.span_id) for i in named.values()}) == len(named)
    for path, ids in named.items():
        assert ids.flags == "01", (path, ids)
        span = by_id.get((ids.trace_id, ids.span_id))
        assert span, f"{path}: no client span is {ids}"
        assert span.attrs["url.full"].endswith(path), (path, span)


def no_headers(requests):
    return not any(LINE.search(r.head) for r in requests.values())


@pytest.mark.parametrize("name", PYTHON_CLIENTS + ["curl", "go", "node"])
def test_one_line_is_added_and_names_the_span(tracing, stack, name):
    with Recorder() as server:
        client = needed(stack, name, server.port)
        client.run(BATCH)
        reference = server.take()
        assert no_headers({p: r for p, r in reference.items() if "/own/" not in p})
        t = tracing()
        t.start(HEADERS, pids=[client.pid])
        before = len(server.streams)
        client.run(BATCH)
        received = server.take()
        headers = compare(reference, received)
        spans = t.finish()
        for path, ids in headers.items():
            assert not ids or not path.startswith("/own/"), (path, ids)
            assert ids or path.startswith("/own/") or path in firsts(received, before), (path, t.agent.output())
        check_named(headers, spans)


@pytest.mark.parametrize("name", BLOCKING_CLIENTS)
def test_blocking_sockets_are_left_alone(tracing, stack, name):
    with Recorder() as server:
        client = needed(stack, name, server.port)
        client.run(BATCH)
        reference = server.take()
        t = tracing()
        t.start(HEADERS, pids=[client.pid])
        client.run(BATCH)
        assert not any(compare(reference, server.take()).values())
        found = clients(t.finish())
        assert len([s for s in found if s.attrs["url.full"].split("/")[-2] in KINDS]) == len(BATCH)
        assert t.drops().get("header_blocking", 0) > 0


@pytest.mark.parametrize("name", ["aiohttp", "go"])
def test_nothing_is_added_when_switched_off(tracing, stack, name):
    with Recorder() as server:
        client = needed(stack, name, server.port)
        client.run(BATCH)
        reference = server.take()
        t = tracing()
        t.start("--propagate=off", pids=[client.pid])
        client.run(BATCH)
        assert not any(compare(reference, server.take()).values())
        t.finish()


@pytest.mark.parametrize("name", ["aiohttp", "requests", "node"])
def test_unselected_processes_are_left_alone(tracing, stack, gateway, name):
    with Recorder() as server:
        client = needed(stack, name, server.port)
        client.run(BATCH)
        reference = server.take()
        t = tracing()
        t.start(HEADERS, pids=[gateway.pid])
        client.run(BATCH)
        assert not any(compare(reference, server.take()).values())
        assert not [s for s in t.finish() if s.pid == client.pid]


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "go", "node"])
def test_connections_that_were_open_before(tracing, stack, name):
    """Adopted: the header comes on them, at the latest with their second request."""
    with Recorder() as server:
        client = needed(stack, name, server.port)
        client.run(WARM)
        server.take()
        before = len(server.streams)
        t = tracing()
        t.start(HEADERS, pids=[client.pid])
        for n in range(5):
            client.run([(f"/adopted/{n}/{k}", "get") for k in range(4)])
        received = server.take()
        t.finish()
        old = {}
        for r in received.values():
            if r.stream < before:
                old.setdefault(r.stream, []).append(bool(LINE.search(r.head)))
        assert old, "the client did not keep its connections"
        for stream, found in old.items():
            assert all(found[1:]), (stream, found, t.agent.output())


def test_unsampled_calls_say_so(tracing, stack):
    """The header goes out with flag 00 and no span is exported."""
    with Recorder() as server:
        client = needed(stack, "aiohttp", server.port)
        client.run(BATCH)
        reference = server.take()
        t = tracing()
        t.start(HEADERS, pids=[client.pid], env={"OTEL_TRACES_SAMPLER": "always_off"})
        before = len(server.streams)
        client.run(BATCH)
        received = server.take()
        headers = compare(reference, received)
        assert not t.finish()
        for path, ids in headers.items():
            if not path.startswith("/own/") and path not in firsts(received, before):
                assert ids and ids.flags == "00", (path, ids)


def test_ratio_is_what_the_header_says(tracing, stack):
    """traceidratio 0.25: the flag is the decision, made from the trace id as every tracer makes it."""
    with Recorder() as server:
        client = needed(stack, "aiohttp", server.port)
        t = tracing()
        t.start(HEADERS, pids=[client.pid], env={"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"})
        client.run([(f"/ratio/{n}", "get") for n in range(400)])
        received = server.take()
        spans = {(s.trace_id, s.span_id) for s in t.finish()}
        kept = 0
        for path, r in received.items():
            m = LINE.search(r.head)
            assert m, (path, r.head)
            trace, span, flags = (text.decode() for text in m.groups())
            sampled = int(trace[16:], 16) < round(0.25 * 2**64)
            assert flags == ("01" if sampled else "00"), path
            assert ((trace, span) in spans) == sampled, path
            kept += sampled
        assert 60 <= kept <= 145


@pytest.mark.parametrize("traced", ["client", "proxy", "both"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_through_nginx(tracing, stack, traced, version):
    """At the server behind there is one traceparent at most, and it names the client's span or nginx's own."""
    with Recorder() as server:
        proxy = nginx_proxy(stack, server.port, version)
        client = needed(stack, "aiohttp", proxy.port)
        client.run(BATCH)
        reference = server.take()
        t = tracing()
        t.start(HEADERS, pids={"client": [client.pid], "proxy": [proxy.pid], "both": [client.pid, proxy.pid]}[traced])
        for n in range(4):
            client.run([(f"/warm/{n}{path}", kind) for path, kind in WARM])
            server.take()
        client.run(BATCH)
        received = server.take()
        spans = t.finish()
        by_id = {(s.trace_id, s.span_id): s for s in clients(spans)}
        assert set(received) == set(reference)
        for path, r in received.items():
            lines = LINE.findall(r.head)
            if path.startswith("/own/"):
                assert r.raw == reference[path].raw, difference(path, r.raw, reference[path].raw)
                continue
            assert len(lines) <= 1 and LINE.sub(b"", r.head) + r.body == reference[path].raw, (path, r.head)
            assert lines or traced == "proxy", path
            for trace, span, _ in lines:
                named = by_id.get((trace.decode(), span.decode()))
                assert named and named.pid in (client.pid, proxy.pid) and named.attrs["url.full"].endswith(path)
        if traced == "both":
            check_chain(received, spans, client.pid, proxy.pid)


def check_chain(received, spans, client, proxy):
    """nginx's server span is the child of the client's call, by whatever way it was told."""
    called = {s.attrs["url.full"].split("/", 3)[3]: s for s in clients(spans, [client])}
    served = {s.path[1:]: s for s in servers(spans, [proxy])}
    for path in received:
        if path.startswith("/own/"):
            assert served[path[1:]].trace_id == OWN_TRACE
            continue
        call, span = called[path[1:]], served[path[1:]]
        assert (span.trace_id, span.parent_id) == (call.trace_id, call.span_id), path
