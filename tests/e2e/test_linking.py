"""Who made the call: the ids in paths, URLs and Redis keys are the truth."""
import time

import load
import pytest
from seen import clients, links, match_requests, servers

REQUESTS = 2000


def check_all_linked(spans, pids, calls_per_request, sent):
    match_requests(sent, servers(spans, pids))
    right, wrong, none = links(spans, pids)
    assert not wrong, f"{len(wrong)} wrong, the first: {wrong[:3]}"
    assert not none, f"{len(none)} without a parent, the first: {none[:3]}"
    assert len(right) == calls_per_request * len(sent)
    by_id = {s.span_id: s for s in servers(spans, pids)}
    for span in right:
        parent = by_id[span.parent_id]
        assert parent.start <= span.start and span.end <= parent.end


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_gunicorn(tracing, stack, app_env, worker, collector):
    args = ["--workers", "2", "-k", worker] + (["--threads", "4"] if worker == "gthread" else [])
    app = stack.gunicorn("sync_flask", env=app_env, args=args)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/truth/g{n}" for n in range(REQUESTS)], connections=8, port=app.port)
    check_all_linked(t.finish(), {app.pid, *app.children()}, 3, sent)


def test_threaded_stdlib_server(tracing, stack, app_env, collector):
    app = stack.stdlib(env=app_env)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/truth/s{n}" for n in range(REQUESTS)], connections=8, port=app.port)
    check_all_linked(t.finish(), {app.pid}, 2, sent)


def test_child_threads_inherit(tracing, stack, app_env, collector):
    """Each request starts two threads that make a call each."""
    app = stack.stdlib(env=app_env)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/threads/t{n}" for n in range(500)], connections=8, port=app.port)
    check_all_linked(t.finish(), {app.pid}, 2, sent)


def test_asyncio_one_request_at_a_time(tracing, stack, app_env, collector):
    app = stack.uvicorn("gateway", env=app_env)
    load.run([f"/truth/warm{n}" for n in range(3)], connections=1, port=app.port)  # its own connections are open now
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/truth/u{n}" for n in range(REQUESTS)], connections=1, port=app.port)
    check_all_linked(t.finish(), {app.pid}, 2, sent)


def mixed(loop):
    return [f"/{route}/{loop}{n}{route}" for n in range(REQUESTS // 4) for route in ("truth", "truth-fanout", "truth-sync")]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_asyncio(tracing, stack, app_env, loop, collector):
    """Several requests in flight on one thread; the interpreter knows whose turn it is."""
    app = stack.uvicorn("gateway", env=app_env, loop=loop)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run(mixed(loop), connections=8, port=app.port)
    spans = t.finish()
    match_requests(sent, servers(spans, [app.pid]))
    right, wrong, none = links(spans, [app.pid])
    assert not wrong, f"{len(wrong)} wrong of {len(right) + len(wrong) + len(none)}, the first: {wrong[:3]}"
    assert not none, f"{len(none)} none of {len(right) + len(none)}, the first: {none[:3]}"
    assert len(right) == REQUESTS // 4 * (2 + 3 + 1)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_asyncio_without_the_interpreter_is_never_wrong(tracing, stack, app_env, loop, collector):
    """By threads alone: a parent that is not certain is not set, and that is counted."""
    app = stack.uvicorn("gateway", env=app_env, loop=loop)
    t = tracing()
    t.start("--collector", collector, "--python=false", pids=[app.pid])
    sent = load.run(mixed(loop), connections=8, port=app.port)
    spans = t.finish()
    match_requests(sent, servers(spans, [app.pid]))
    right, wrong, none = links(spans, [app.pid])
    assert not wrong, f"{len(wrong)} wrong of {len(right) + len(wrong) + len(none)}, the first: {wrong[:3]}"
    assert len(right) + len(none) == REQUESTS // 4 * (2 + 3 + 1)
    counted = sum(n for reason, n in t.drops().items() if reason.startswith("parent_"))
    assert counted >= len(none) > 0


def test_background_work_is_not_the_next_requests(tracing, stack, app_env, collector):
    """Work that goes on after its answer must not get the parent of another request."""
    app = stack.uvicorn("gateway", env=app_env)
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/background?n={n}" for n in range(50)], connections=1, port=app.port)
    time.sleep(0.3)  # for the work behind the last answer
    spans = t.finish()
    match_requests(sent, servers(spans))
    by_id = {s.span_id: s for s in servers(spans)}
    work = [s for s in clients(spans) if s.is_redis and "background:done" in s.attrs.get("db.query.text", "")]
    assert len(work) == 50
    # One background task a request: a request that seems to have made two has one of another's.
    parents = [s.parent_id for s in work if s.parent_id]
    assert len(parents) == len(set(parents))
    assert all(by_id[s.parent_id].start <= s.start for s in work if s.parent_id)
