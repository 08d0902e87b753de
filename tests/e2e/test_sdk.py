"""A service under the OpenTelemetry Python SDK beside one that is not: one trace, each span once. Three ways to have the SDK:
set up in code with OTEL_* variables (tests/apps/sdk.py), by the auto-instrumentation without a line of code, and in code
alone (tests/apps/sdk_plain.py).

Owns: the receiver of the SDK's own spans; what the agent exports goes to another one, so it is known who made a span.
"""
import glob
import os
import time

import chain
import pytest
import venvs
from otlp_receiver import OtlpReceiver
from seen import CLIENT, SERVER, view

FORMS = ("variables", "instrument", "code")
REQUESTS, CONNECTIONS = 120, 8
ROUTES = ("call", "fanout")  # what the SDK instruments: httpx, not requests
EXPORT_SECONDS = 1.5  # until the SDK has exported, and has been noticed by that


@pytest.fixture(scope="session")
def python():
    return venvs.venv(requirements=venvs.BENCH_REQUIREMENTS).python


@pytest.fixture
def sdk(stack):
    """Where the SDK's spans go."""
    with OtlpReceiver() as receiver:
        # Closed behind the services that send to it.
        yield receiver
        stack.close()


def auto_instrumentation(python):
    """The folder whose sitecustomize.py sets the SDK up: what opentelemetry-instrument puts in front of PYTHONPATH."""
    pattern = os.path.join(os.path.dirname(python), "..", "lib", "python3*", "site-packages", "opentelemetry",
                           "instrumentation", "auto_instrumentation")
    (found,) = glob.glob(pattern)
    return found


def start_sdk(stack, python, form, app, name, receiver, env):
    """The application under the SDK."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.http_port}", "OTEL_SERVICE_NAME": name,
                 "OTEL_BSP_SCHEDULE_DELAY": 200}
    if form == "variables":
        return stack.python_app("sdk", python=python, env={**env, **variables, "SDK_APP": app, "SDK_QUIET": 1})
    if form == "code":
        return stack.python_app("sdk_plain", python=python, env={
            **env, "SDK_APP": app, "SDK_NAME": name, "SDK_URL": receiver.http_endpoint})
    return stack.python_app(app, python=python, env={
        **env, **variables, "PYTHONPATH": auto_instrumentation(python), "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_FASTAPI_EXCLUDE_SPANS": "receive,send"})


class Pair:
    """A gateway and an agent service, one of them (or both) under the SDK, and an agent that is told to trace both."""

    def __init__(self, stack, python, tracing, sdk, redis, form, who, args=()):
        env = {"REDIS_PORT": redis.port}
        self.sdk, self.tracing = sdk, tracing
        start = lambda app, name, more: (  # noqa: E731
            start_sdk(stack, python, form, app, name, sdk, {**env, **more}) if name in who
            else stack.python_app(app, python=python, env={**env, **more, "OTEL_SERVICE_NAME": name}))
        self.agent = start("chain_agent", "agent", {})
        self.gateway = start("chain_gateway", "gateway", {"AGENT_URL": f"http://127.0.0.1:{self.agent.port}"})
        chain.start(tracing, *args, pids=[self.gateway.pid, self.agent.pid])
        chain.run(self.gateway.port, chain.paths("warm", 60, ROUTES), CONNECTIONS)
        time.sleep(EXPORT_SECONDS)
        chain.run(self.gateway.port, chain.paths("warmer", 60, ROUTES), CONNECTIONS)
        self.answers = chain.run(self.gateway.port, chain.paths("r", REQUESTS, ROUTES), CONNECTIONS)
        time.sleep(EXPORT_SECONDS)
        self.ours = chain_only(tracing.finish())
        self.theirs = chain_only(view(sdk))
        assert not [e for e in sdk.errors if "twice" in e], sdk.errors[:3]

    def of(self, spans, service, kind):
        """{id: [spans]} of the measured requests. Ours name the process, and a service only if that tells its name."""
        found, pid = {}, getattr(self, service).pid
        for s in spans:
            which = chain.id_of(s)[1]
            if which.startswith("r") and s.kind == kind and (s.resource["service.name"] == service or s.pid == pid):
                found.setdefault(which, []).append(s)
        return found


def old_names(span):
    """What older conventions call the same, which the SDK's instrumentations still use by default."""
    for old, new in (("http.url", "url.full"), ("http.target", "url.path")):
        if old in span.attrs:
            span.attrs.setdefault(new, span.attrs[old])
    return span


def chain_only(spans):
    """What is about a request with an id, commands aside."""
    spans = [old_names(s) for s in spans]
    return [s for s in spans if s.kind in (SERVER, CLIENT) and chain.id_of(s)[0] not in (None, "redis")]


def check_chain(answers, requests, clients, callees):
    """Each id has one span at each of the three places, and they are one below the other."""
    for answer in answers:
        assert len(requests.get(answer.id, [])) == 1, (answer, requests.get(answer.id))
        (request,) = requests[answer.id]
        for call in answer.calls:
            assert len(clients.get(call["id"], [])) == len(callees.get(call["id"], [])) == 1, (
                call, clients.get(call["id"]), callees.get(call["id"]))
            (client,), (callee,) = clients[call["id"]], callees[call["id"]]
            assert chain.under(client, request) == "right", f"{chain.brief(client)}, not under {chain.brief(request)}"
            assert chain.under(callee, client) == "right", f"{chain.brief(callee)}, not under {chain.brief(client)}"


@pytest.mark.parametrize("propagate", ["off", "headers"])
@pytest.mark.parametrize("form", FORMS)
def test_sdk_calls_one_without(tracing, stack, python, sdk, redis, form, propagate):
    """The gateway's spans are the SDK's alone, its header goes out as it made it, and the agent service goes on from there."""
    p = Pair(stack, python, tracing(), sdk, redis, form, ("gateway",), [f"--propagate={propagate}"])
    check_chain(p.answers, p.of(p.theirs, "gateway", SERVER), p.of(p.theirs, "gateway", CLIENT), p.of(p.ours, "agent", SERVER))
    doubled = [s for s in p.ours if s.pid == p.gateway.pid and chain.id_of(s)[1].startswith("r")]
    assert not doubled, [chain.brief(s) for s in doubled[:5]]
    clients = p.of(p.theirs, "gateway", CLIENT)
    for answer in p.answers:
        for call in answer.calls:
            assert chain.named(call["traceparent"], clients[call["id"]][0]) == "right", call
    assert p.tracing.drops().get("sdk_active", 1), p.tracing.agent.output()[-2000:]


@pytest.mark.parametrize("form", FORMS)
def test_one_without_calls_sdk(tracing, stack, python, sdk, redis, form):
    """The SDK takes up the header that was put into the call."""
    p = Pair(stack, python, tracing(), sdk, redis, form, ("agent",), ["--propagate=headers"])
    check_chain(p.answers, p.of(p.ours, "gateway", SERVER), p.of(p.ours, "gateway", CLIENT), p.of(p.theirs, "agent", SERVER))
    doubled = [s for s in p.ours if s.pid == p.agent.pid and chain.id_of(s)[1].startswith("r")]
    assert not doubled, [chain.brief(s) for s in doubled[:5]]


@pytest.mark.parametrize("form", ["variables", "instrument"])
def test_told_by_variables_from_the_first_request_on(tracing, stack, python, sdk, redis, form):
    """Who has said so in its environment is known before it has exported anything: no span of it is ever made twice."""
    p = Pair(stack, python, tracing(), sdk, redis, form, ("gateway",), ["--propagate=off"])
    assert not [s for s in p.ours if s.pid == p.gateway.pid], [chain.brief(s) for s in p.ours[:5]]
    warm = [s for s in p.theirs if s.kind == SERVER and chain.id_of(s)[1].startswith("warm")]
    assert warm, "the SDK made no span"


def test_both_under_the_sdk(tracing, stack, python, sdk, redis):
    """Nothing is left for us, and nothing of it is disturbed."""
    p = Pair(stack, python, tracing(), sdk, redis, "variables", ("gateway", "agent"), ["--propagate=headers"])
    check_chain(p.answers, p.of(p.theirs, "gateway", SERVER), p.of(p.theirs, "gateway", CLIENT), p.of(p.theirs, "agent", SERVER))
    assert not p.ours, [chain.brief(s) for s in p.ours[:5]]


@pytest.mark.parametrize("form", ["variables", "code"])
def test_with_sdk_keeps_both(tracing, stack, python, sdk, redis, form):
    """--with-sdk: both see each request of the gateway, once each; the SDK's header goes out as it is."""
    p = Pair(stack, python, tracing(), sdk, redis, form, ("gateway",), ["--with-sdk", "--propagate=headers"])
    ours, theirs = p.of(p.ours, "gateway", SERVER), p.of(p.theirs, "gateway", SERVER)
    our_calls, their_calls = p.of(p.ours, "gateway", CLIENT), p.of(p.theirs, "gateway", CLIENT)
    callees = p.of(p.ours, "agent", SERVER)
    for answer in p.answers:
        assert len(ours[answer.id]) == len(theirs[answer.id]) == 1
        for call in answer.calls:
            (client,) = our_calls[call["id"]]
            assert chain.under(client, ours[answer.id][0]) == "right", chain.brief(client)
            assert chain.named(call["traceparent"], their_calls[call["id"]][0]) == "right", call
            (callee,) = callees[call["id"]]
            assert chain.under(callee, their_calls[call["id"]][0]) == "right", chain.brief(callee)


def test_a_service_name_alone_is_no_sdk(tracing, stack, python, sdk, redis):
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES name a service; nobody is silent for that."""
    p = Pair(stack, python, tracing(), sdk, redis, "variables", (), ["--propagate=off"])
    check_chain(p.answers, p.of(p.ours, "gateway", SERVER), p.of(p.ours, "gateway", CLIENT), p.of(p.ours, "agent", SERVER))
    assert not p.theirs
