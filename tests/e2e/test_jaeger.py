"""A real Jaeger takes what the agent sends, over both protocols, and its query API tells the same."""
import json
import shutil

import load
import pytest
import services

N = 40


@pytest.fixture(scope="module")
def jaeger(shared):
    binary = services.jaeger_binary(build=bool(shutil.which("go")))
    if not binary:
        pytest.skip("no Jaeger in the cache and no Go toolchain to build it with")
    return shared.jaeger(binary)


def traces(jaeger, service):
    status, body = services.http_get(jaeger.query_port, f"/api/traces?service={service}&limit=1000")
    return json.loads(body)["data"] or [] if status == 200 else []


def whole(found):
    """The N traces of the test once each has its request and both calls: Jaeger stores span by span."""
    linked = [t for t in found if any("/truth/" in str(tag["value"]) for s in t["spans"] for tag in s["tags"])]
    return len(linked) == N and all(len(t["spans"]) >= 3 for t in linked) and linked


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_jaeger(root, stack, app_env, jaeger, protocol):
    name = "gateway-" + protocol.split("/")[0]
    app = stack.uvicorn("gateway", env={**app_env, "OTEL_SERVICE_NAME": name})
    load.run([f"/truth/warm{n}" for n in range(3)], connections=1, port=app.port)  # cold, it looks names up in a thread
    port = jaeger.grpc_port if protocol == "grpc" else jaeger.http_port
    agent = stack.spanloom("--pid", str(app.pid), env={
        "OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"})
    sent = load.run([f"/truth/j{n}" for n in range(N)], connections=1, port=app.port)
    assert {s.status for s in sent} == {200}
    assert agent.stop() == 0, agent.output()
    linked = services.wait_until(lambda: whole(traces(jaeger, name)), 10, f"{N} whole traces in Jaeger", 0.2)
    for trace in linked:
        by_kind = {}
        for span in trace["spans"]:
            tags = {tag["key"]: tag["value"] for tag in span["tags"]}
            by_kind.setdefault(tags["span.kind"], []).append((span, tags))
        ((server, tags),) = by_kind["server"]
        assert (tags["http.request.method"], tags["http.response.status_code"]) == ("GET", 200)
        truth = tags["url.path"].rsplit("/", 1)[1]
        # Besides what a new connection says first (HELLO, CLIENT SETINFO).
        calls = [c for c in by_kind["client"] if "url.full" in c[1] or c[1]["db.operation.name"] == "GET"]
        assert len(calls) == 2
        for span, call in calls:
            assert [(r["refType"], r["spanID"]) for r in span["references"]] == [("CHILD_OF", server["spanID"])]
            assert truth in call.get("url.full", "") + call.get("db.query.text", "")
            assert server["startTime"] <= span["startTime"]
    operations = json.loads(services.http_get(jaeger.query_port, f"/api/services/{name}/operations")[1])["data"]
    assert {"GET"} <= set(operations)
