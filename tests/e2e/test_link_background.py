"""Services that try to get a wrong parent out of the tracer: work that outlives its request, runs beside all of them, or
moves between threads. No call may be under a request that did not cause it, from the first request on; what is certain
all the same is linked.
"""
import threading
import time

import load
import pytest
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
