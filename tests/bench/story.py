#!/usr/bin/env python3
"""The same request of the same service twice: as the agent sees it from outside, and as the OpenTelemetry Python SDK with its
FastAPI, HTTPX and Redis instrumentations reports it from within (tests/apps/sdk.py). Prints both trees.

Owns: the services of both. Refuses: to change the application for the agent's sake.
"""
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tools"))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import services  # noqa: E402
import venvs  # noqa: E402
from otlp_receiver import OtlpReceiver  # noqa: E402

RULE = "app.services.a2a_client:call_agent=a2a.call,agent.type=gateway"
SHOWN = ("http.route", "http.response.status_code", "db.query.text", "db.statement", "url.full", "http.url", "agent.type",
         "code.function.name", "code.line.number", "spanloom.bounds")
ATTACHED_SECONDS, DONE_SECONDS = 0.5, 2.5
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(port):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/a2a/writer/rpc", data=json.dumps({"text": "hello"}).encode(),
                                     headers={"Content-Type": "application/json"})
    with _direct.open(request, timeout=10) as answer:
        assert answer.status == 200


def tree(spans, parent="", depth=0):
    """Lines of text; a span whose parent is not there is a root."""
    known = {s.span_id for s in spans}
    lines = []
    for s in sorted(spans, key=lambda s: s.start):
        if s.parent_span_id == parent or (not parent and s.parent_span_id not in known):
            shown = " ".join(f"{k}={s.attributes[k]}" for k in SHOWN if k in s.attributes)
            lines.append(f"{'  ' * depth}{s.kind} {s.name}  {(s.end - s.start) / 1e6:.2f} ms  ({s.service})  {shown}")
            lines += tree(spans, s.span_id, depth + 1)
    return lines


def the_trace(receiver):
    """The spans of the trace that the last call to the gateway has begun."""
    spans = receiver.spans
    roots = [s for s in spans if s.kind == "SERVER" and s.attributes.get("url.path", s.attributes.get(
        "http.target", "")).startswith("/a2a/")]
    assert roots, "no span of the call came"
    last = max(roots, key=lambda s: s.start)
    return [s for s in spans if s.trace_id == last.trace_id]


def with_agent(stack, redis, python):
    env = {"REDIS_PORT": redis.port}
    callee = stack.python_app("agent_service", python=python, env={**env, "OTEL_SERVICE_NAME": "agent"})
    gateway = stack.python_app("app.main", python=python, env={
        **env, "AGENT_URL": f"http://127.0.0.1:{callee.port}", "OTEL_SERVICE_NAME": "gateway"})
    call(gateway.port)
    with OtlpReceiver() as receiver:
        agent = stack.spanloom("--pid", gateway.pid, "--pid", callee.pid, "--span", RULE, "--console=tree", env={
            "OTEL_TRACES_EXPORTER": "otlp,console", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.grpc_port}"})
        time.sleep(ATTACHED_SECONDS)
        call(gateway.port)
        time.sleep(DONE_SECONDS)
        agent.stop(timeout=20)
        return agent.output(), tree(the_trace(receiver))


def with_sdk(stack, redis, python):
    with OtlpReceiver() as receiver:
        env = {"REDIS_PORT": redis.port, "SDK_QUIET": 1, "OTEL_BSP_SCHEDULE_DELAY": 200,
               "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.http_port}"}
        callee = stack.python_app("sdk", python=python, env={**env, "SDK_APP": "agent_service", "OTEL_SERVICE_NAME": "agent"})
        gateway = stack.python_app("sdk", python=python, env={
            **env, "SDK_APP": "app.main", "AGENT_URL": f"http://127.0.0.1:{callee.port}", "OTEL_SERVICE_NAME": "gateway"})
        call(gateway.port)
        call(gateway.port)
        time.sleep(DONE_SECONDS)
        return tree(the_trace(receiver))


def main():
    if os.geteuid() != 0:
        sys.exit("story: loading BPF programs needs root")
    services.exit_on_signals()
    logs = tempfile.mkdtemp(prefix="spanloom-story-")
    os.chmod(logs, 0o755)
    python = venvs.venv(requirements=venvs.BENCH_REQUIREMENTS).python
    try:
        with services.Stack(logs) as stack:
            redis = stack.redis()
            said, ours = with_agent(stack, redis, python)
            theirs = with_sdk(stack, redis, python)
    finally:
        shutil.rmtree(logs, ignore_errors=True)
    print("--- the agent's terminal ---\n" + said)
    print("--- the agent, as the collector got it ---", *ours, sep="\n")
    print("\n--- the OpenTelemetry Python SDK, as the collector got it ---", *theirs, sep="\n")


main()
