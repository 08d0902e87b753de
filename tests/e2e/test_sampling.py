"""Which traces are kept: decided once, by the trace id, the same by every agent; a trace is whole or absent; and what is not
kept costs next to nothing. The callee's answers say which trace each request was in, kept or not.
"""
import signal
import time

import chain
import pytest
import services
from seen import SERVER, servers

REQUESTS, CONNECTIONS = 600, 64
WARM = 150
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LOW64 = (1 << 64) - 1


def keeps(rate, trace_id):
    """TraceIdRatioBased of the OpenTelemetry Python SDK."""
    return int(trace_id, 16) & LOW64 < round(rate * (1 << 64))


@pytest.fixture
def services_of(stack, redis):
    """(gateway, agent service)"""
    env = {"REDIS_PORT": redis.port}
    agent = chain.start_callee(stack, "uvicorn", env)
    app = stack.uvicorn("chain_gateway", env={**env, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    app.pids = {app.pid}
    return app, agent


def ids(answer):
    return {answer.id, *(c["id"] for c in answer.calls)}


def by_request(spans):
    """{request's id: [spans]} of what carries an id, the calls' and their commands' with their request."""
    found = {}
    for span in spans:
        which = chain.id_of(span)[1]
        if which:
            found.setdefault(which.split(".")[0], []).append(span)
    return found


def check_whole(spans, answers, kept=lambda answer, trace_id: True):
    """
    Each request's spans are all there, in one trace with one root, or none of them is; gives the kept Answers. Of each
    call there are a client span, a server span and a command of the callee; of /call a command of the gateway.
    """
    found, kept_answers = by_request(spans), []
    for answer in answers:
        mine = found.get(answer.id, [])
        if not mine:
            continue
        wanted = 1 + 3 * len(answer.calls) + (answer.path.startswith("/call/"))
        assert len(mine) == wanted, f"{answer.id}: {len(mine)} of {wanted} spans: {[chain.brief(s) for s in mine]}"
        assert len({s.trace_id for s in mine}) == 1, [chain.brief(s) for s in mine]
        assert kept(answer, mine[0].trace_id), f"{answer.id} is not to be kept: {[chain.brief(s) for s in mine]}"
        kept_answers.append(answer)
    return kept_answers


def sent_contexts(answers):
    """[(answer, trace id, span id, flags)] of all headers that were received."""
    found = []
    for answer in answers:
        for call in answer.calls:
            for value in call["traceparent"]:
                m = chain.TRACEPARENT.fullmatch(value)
                assert m and len(call["traceparent"]) == 1, call
                found.append((answer, m[1], m[2], int(m[3], 16)))
    return found


@pytest.mark.parametrize("propagate", ["off", "headers"])
@pytest.mark.parametrize("rate", [0, 0.1, 0.5, 1])
def test_ratio(tracing, services_of, rate, propagate):
    app, agent = services_of
    t = tracing()
    chain.start(t, f"--sampling-rate={rate}", f"--propagate={propagate}", pids=[app.pid, agent.pid])
    warm = chain.run(app.port, chain.paths("warm", WARM), 8)
    answers = chain.run(app.port, chain.paths("r", REQUESTS), CONNECTIONS)
    spans = t.finish()
    check_whole(spans, warm, lambda _, trace_id: keeps(rate, trace_id))
    kept = check_whole(spans, answers, lambda _, trace_id: keeps(rate, trace_id))
    verdict = chain.judge(spans, kept, agent.pids, app.pids)
    assert not verdict.problems(), verdict.problems()
    # Five standard deviations.
    slack = 5 * (REQUESTS * rate * (1 - rate)) ** 0.5
    assert abs(len(kept) - REQUESTS * rate) <= slack, f"{len(kept)} of {REQUESTS} kept"
    assert not [s for s in spans if not keeps(rate, s.trace_id)]
    contexts = sent_contexts(answers)
    assert propagate == "headers" or not contexts
    kept_ids = {a.id for a in kept}
    for answer, trace_id, _, flags in contexts:
        assert (flags & 1) == keeps(rate, trace_id) == (answer.id in kept_ids), (answer.id, trace_id, flags)
    calls = sum(len(a.calls) for a in answers)
    assert propagate == "off" or len(contexts) >= 0.98 * calls, f"{len(contexts)} headers of {calls}\n{t.agent.output()[-2000:]}"


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_two_agents_agree(tracing, services_of, rate):
    """Each service has an agent of its own, as on two hosts: the header carries the decision."""
    app, agent = services_of
    here, there = tracing(), tracing()
    chain.start(here, f"--sampling-rate={rate}", "--propagate=headers", pids=[app.pid])
    chain.start(there, f"--sampling-rate={rate}", "--propagate=headers", pids=[agent.pid])
    chain.run(app.port, chain.paths("warm", WARM), 8)
    answers = chain.run(app.port, chain.paths("r", 400, ("call",)), 16)
    spans = here.finish() + there.finish()
    # A call without a header (the guards) begins a new trace at the other host: those are left out of this.
    whole = [a for a in answers if all(c["traceparent"] for c in a.calls)]
    assert len(whole) >= 0.98 * len(answers), f"{len(whole)} of {len(answers)} with a header\n{here.agent.output()[-2000:]}"
    kept = check_whole(spans, whole, lambda _, trace_id: keeps(rate, trace_id))
    assert abs(len(kept) - len(whole) * rate) <= 5 * (len(whole) * rate * (1 - rate)) ** 0.5


# sampler, its argument, flags of the parent (None: none comes), whether it is kept
PARENTS = [
    ("always_on", None, None, True), ("always_on", None, 1, True), ("always_on", None, 0, True),
    ("always_off", None, None, False), ("always_off", None, 1, False), ("always_off", None, 0, False),
    ("traceidratio", 1, 0, True), ("traceidratio", 0, 1, False),
    ("parentbased_always_on", None, None, True), ("parentbased_always_on", None, 1, True),
    ("parentbased_always_on", None, 0, False), ("parentbased_always_on", None, 2, False),
    ("parentbased_always_off", None, None, False), ("parentbased_always_off", None, 1, True),
    ("parentbased_always_off", None, 3, True), ("parentbased_always_off", None, 0, False),
    ("parentbased_traceidratio", 0, 1, True), ("parentbased_traceidratio", 0, None, False),
    ("parentbased_traceidratio", 1, 0, False), ("parentbased_traceidratio", 1, None, True),
]


def run_parents(app, cases):
    """{case number: Answer}"""
    answers = {}
    for n, flags in cases.items():
        header = "" if flags is None else f"traceparent: 00-{TRACE}-{PARENT}-{flags:02x}\r\n"
        (answers[n],) = chain.run(app.port, [f"/call/s{n}"], 1, header)
    return answers


@pytest.mark.parametrize("sampler,arg", sorted({(s, a) for s, a, _, _ in PARENTS}, key=str))
def test_parents(tracing, services_of, sampler, arg):
    """What each sampler does of each parent, in the spans and in what the call carries on."""
    app, agent = services_of
    t = tracing()
    env = {"OTEL_TRACES_SAMPLER": sampler, **({} if arg is None else {"OTEL_TRACES_SAMPLER_ARG": arg})}
    chain.start(t, "--propagate=headers", pids=[app.pid, agent.pid], env=env)
    chain.run(app.port, chain.paths("warm", WARM), 8)
    cases = [(flags, kept) for s, a, flags, kept in PARENTS if (s, a) == (sampler, arg)]
    answers = run_parents(app, {n: flags for n, (flags, _) in enumerate(cases)})
    spans = t.finish()
    found = {a.id for a in check_whole(spans, answers.values())}
    for n, (flags, kept) in enumerate(cases):
        what = f"{sampler} {arg}, parent's flags {flags}"
        assert (f"s{n}" in found) == kept, what
        ((_, trace_id, span_id, sent),) = sent_contexts([answers[n]])
        assert (sent & 1) == kept, f"{what}: {sent:02x} went on"
        assert (trace_id == TRACE) == (flags is not None) and span_id != PARENT, what


def test_ratio_of_remote_traces(tracing, services_of):
    """traceidratio decides by the id that came, whatever its parent decided: the same as the SDK would."""
    app, agent = services_of
    t = tracing()
    chain.start(t, "--sampler=traceidratio", "--sampler-arg=0.25", "--propagate=off", pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", WARM), 8)
    traces, answers = {}, []
    edge = round(0.25 * (1 << 64))
    for n, low in enumerate([0, 1, edge - 1, edge, edge + 1, LOW64, *(n * 0x0123456789abcdef & LOW64 for n in range(1, 60))]):
        traces[f"s{n}"] = f"{n + 1:016x}{low:016x}"
        answers += chain.run(app.port, [f"/call/s{n}"], 1, f"traceparent: 00-{traces[f's{n}']}-{PARENT}-{n & 1:02x}\r\n")
    kept = check_whole(t.finish(), answers, lambda answer, trace_id: trace_id == traces[answer.id])
    assert {a.id for a in kept} == {which for which, trace_id in traces.items() if keeps(0.25, trace_id)}


def counted(t):
    """(records taken from the ring, requests left out in the kernel, spans left out behind it) so far."""
    before = len(chain.FIGURE.findall(t.agent.output()))
    t.agent.process.send_signal(signal.SIGUSR1)
    services.wait_until(lambda: len(chain.FIGURE.findall(t.agent.output())) > before, 5, "a summary")
    time.sleep(0.2)
    return chain.figures(t.agent)["events"], chain.count(t.agent, "unsampled"), chain.count(t.agent, "sampled_out")


def test_unsampled_requests_copy_nothing(tracing, services_of):
    """
    Once the processes are known the kernel side leaves unsampled requests out, with all their calls and commands: nothing is
    left to be dropped behind the ring. What still comes are contexts and connections.
    """
    app, agent = services_of
    requests, taken = 300, {}
    for rate in (1, 0):
        t = tracing()
        chain.start(t, f"--sampling-rate={rate}", "--propagate=off", pids=[app.pid, agent.pid])
        chain.run(app.port, chain.paths(f"warm{rate}", WARM), 8)
        time.sleep(0.5)
        before = counted(t)
        answers = chain.run(app.port, chain.paths(f"r{rate}", requests), 16)
        time.sleep(0.5)
        taken[rate], unsampled, sampled_out = (a - b for a, b in zip(counted(t), before))
        spans = t.finish()
        assert bool(spans) == bool(rate)
        served = requests + sum(len(a.calls) for a in answers)
        if not rate:
            assert unsampled >= served, f"{unsampled} of {served} left out in the kernel\n{t.agent.output()[-2000:]}"
            assert sampled_out <= 0.02 * served, f"{sampled_out} left out behind it\n{t.agent.output()[-2000:]}"
    print(f"\nrecords for {requests} requests: {taken[1]} at 1, {taken[0]} at 0")
    assert taken[0] <= 0.5 * taken[1], f"records for {requests} requests: {taken[1]} at 1, {taken[0]} at 0"


@pytest.mark.parametrize("rate", [0, 0.1])
def test_errors_are_kept(tracing, services_of, rate):
    """Requests that failed are recorded although not sampled, marked; others are not."""
    app, agent = services_of
    t = tracing()
    chain.start(t, f"--sampling-rate={rate}", "--keep-errors", pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", WARM), 8)
    paths = [f"/{'broken' if n % 5 == 0 else 'call'}/e{n}" for n in range(200)]
    answers = chain.run(app.port, paths, 8)
    found = {chain.id_of(s)[1]: s for s in servers(t.finish(), app.pids)}
    for answer in answers:
        failed, span = answer.path.startswith("/broken/"), found.get(answer.id)
        assert answer.status == (500 if failed else 200)
        assert span or not failed, f"{answer.path} is missing"
        if span and not keeps(rate, span.trace_id):
            assert failed and span.attrs["spanloom.kept"] == "error", chain.brief(span)
        elif span:
            assert "spanloom.kept" not in span.attrs
    assert len([a for a in answers if a.id in found]) < 40 + 160 * (rate + 0.2)


def test_slow_ones_are_kept(tracing, services_of):
    app, agent = services_of
    t = tracing()
    chain.start(t, "--sampling-rate=0", "--keep-slow=150", pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", WARM), 4)
    answers = chain.run(app.port, [f"/call/l{n}?ms={250 if n % 10 == 0 else 1}" for n in range(100)], 4)
    found = [s for s in t.finish() if s.kind == SERVER]
    assert {s.attrs["spanloom.kept"] for s in found} == {"slow"}
    slow = {i for a in answers if "ms=250" in a.path for i in ids(a)}
    seen = {chain.id_of(s)[1] for s in found}
    assert slow <= seen, slow - seen
    # Others may have been slow as well, on a busy machine: then they say so.
    assert all(s.end - s.start >= 150_000_000 for s in found)


@pytest.mark.parametrize("propagate", ["off", "headers"])
def test_limit_of_new_traces(tracing, services_of, propagate):
    """So many new traces a second of each service; what goes on from them is not new."""
    app, agent = services_of
    limit, t = 20, tracing()
    chain.start(t, f"--max-traces-per-second={limit}", f"--propagate={propagate}", pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", WARM), 8)
    begin, answers = time.monotonic(), []
    while time.monotonic() - begin < 3:
        answers += chain.run(app.port, chain.paths(f"r{len(answers)}n", 60, ("call",)), 16)
    seconds = time.monotonic() - begin
    spans = t.finish()
    kept = check_whole(spans, answers)
    assert len(answers) > 3 * limit * seconds, "the load was too slow to tell"
    assert 2 * limit <= len(kept) <= limit * (seconds + 2), f"{len(kept)} of {len(answers)} in {seconds:.1f} s"
    roots = [s for s in servers(spans) if not s.parent_id and not chain.id_of(s)[1].startswith("warm")]
    assert {s.pid for s in roots} == app.pids, "the agent service began traces of its own"
    assert chain.count(t.agent, "root_limit") >= len(answers) - len(kept) - 1, t.agent.output()[-2000:]
