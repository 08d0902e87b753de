"""Services that try to get a wrong parent out of the tracer: work that outlives its request, runs beside all of them, or
moves between threads. No call may be under a request that did not cause it, from the first request on; what is certain
all the same is linked.
"""
import threading
import time

import load
import pytest
import services
from seen import links

EACH = 60
BEHIND = 0.2  # seconds until the work behind the last answer is done


def never_wrong(spans, pids):
    right, wrong, none = links(spans, pids)
    assert not wrong, f"{len(wrong)} wrong, {len(right)} right, {len(none)} none, the first: {wrong[:3]}"
    assert right or none
    return right, none


def paths(*routes, each=EACH, query=""):
    return [f"/{route}/{route.replace('-', '')}{n}{query}" for n in range(each) for route in routes]


def trace(tracing, app, requests, connections, collector="sock", late=0.0):
    t = tracing("http/protobuf")
    client = threading.Thread(target=load.run, args=(requests, connections), kwargs={"port": app.port})
    if late:
        client.start()
        time.sleep(late)
    t.start("--collector", collector, pids=[app.pid])
    if not late:
        client.start()
    client.join()
    time.sleep(BEHIND)
    return t.finish()


ROUTES = [("truth-forget", "truth"), ("truth-behind", "truth-slow"), ("truth-executor", "truth"),
          ("truth-forget", "truth-slow")]


@pytest.mark.parametrize("routes", ROUTES, ids="+".join)
def test_work_that_outlives_its_request(tracing, stack, app_env, routes):
    """One request at a time, so that each is alone with what the ones before have left."""
    app = stack.uvicorn("loop_work", env=app_env)
    never_wrong(trace(tracing, app, paths(*routes), 1), [app.pid])


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("late", [0.0, 0.2], ids=["early", "late"])
def test_heartbeat(tracing, stack, app_env, loop, late):
    app = stack.uvicorn("loop_work", env={**app_env, "HEARTBEAT": 0.02}, loop=loop)
    never_wrong(trace(tracing, app, paths("truth", "truth-slow"), 1, late=late), [app.pid])


def test_all_at_once(tracing, stack, app_env, collector):
    app = stack.uvicorn("loop_work", env={**app_env, "HEARTBEAT": 0.01})
    routes = ("truth", "truth-slow", "truth-behind", "truth-forget", "truth-executor", "truth-def")
    never_wrong(trace(tracing, app, paths(*routes), 8, collector), [app.pid])


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_threads_that_are_not_the_requests(tracing, stack, app_env, worker):
    args = ["-k", worker] + (["--threads", "4"] if worker == "gthread" else [])
    app = stack.gunicorn("thread_work", env={**app_env, "HEARTBEAT": 0.01}, args=args)
    certain, open_ = ("truth", "truth-joined"), ("truth-pool", "truth-forget", "truth-daemon", "truth-after")
    spans = trace(tracing, app, paths(*certain, *open_), 8)
    right, none = never_wrong(spans, {app.pid, *app.children()})
    assert sum(s.truth.startswith(("truthjoined", *(f"truth{n}" for n in range(10)))) for s in right) == EACH * 3
    assert not any(s.truth.startswith("truthjoined") for s in none)


@pytest.fixture(params=["uvloop", "asyncio"])
def crossed(request, stack, app_env):
    ports = services.free_port(), services.free_port()
    app = stack.start("crossed_work", [services.PYTHON, "crossed_work.py", *ports], env={**app_env, "LOOP": request.param},
                      cwd=services.APPS)
    app.wait_ready(lambda: all(map(services.port_open, ports)))
    app.port, app.other_port = ports
    return app


@pytest.mark.parametrize("kind", ["wait", "stream"])
def test_answers_for_others(tracing, crossed, kind):
    """The work for one request begins the answer of another, which is not its own for that."""
    never_wrong(trace(tracing, crossed, paths(f"truth-{kind}", "truth-post", "truth-post"), 6), [crossed.pid])


def test_one_task_a_connection(tracing, crossed):
    """Its work behind an answer comes when the next request is there: only the first of a connection is sure."""
    crossed.port = crossed.other_port
    right, none = never_wrong(trace(tracing, crossed, paths("truth", "truth-tail"), 4), [crossed.pid])
    assert not any(s.truth.startswith("truthtail") for s in right)


def test_one_task_that_rests(tracing, crossed):
    """Where nothing is left behind the answers all is sure, once a pause has shown that."""
    crossed.port = crossed.other_port
    t = tracing("http/protobuf")
    t.start(pids=[crossed.pid])
    load.run([f"/truth/{n}" for n in range(4)], 1, port=crossed.port)
    connection = load.Connection(crossed.port)
    for n in range(4, 24):
        connection.request(f"/truth/{n}")
        if n == 5:
            time.sleep(BEHIND)
    connection.close()
    right, none = never_wrong(t.finish(), [crossed.pid])
    assert {s.truth for s in right} >= {"0", "4", *map(str, range(6, 24))}
