"""Every client call under the request that made it, on event loops too: an application with a route for each way of making
a call, many requests at once, and the truth in the ids that the calls carry (truth.py). tests/bench/truth.py does the same
at length.
"""
import os
import signal
import threading
import time

import pytest
import services
import truth
import truth_load
import venvs

SYSTEM = venvs.Interpreter(services.PYTHON, "3.11")
CONNECTIONS = (1, 8, 64)
# Whose answer nobody gets: the request's end is not seen.
UNANSWERED = ("disconnect",)


@pytest.fixture
def env(redis, callee):
    return {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{callee.port}", "HEARTBEAT": 0.02}


def expect_right(verdict, none_allowed=UNANSWERED, tracing=None):
    problems = verdict.problems(none_allowed)
    said = tracing.agent.output()[-2000:] if tracing and tracing.agent else ""
    assert not problems, f"{len(problems)} constructs:\n" + "\n".join(problems) + "\n" + said
    assert verdict.total("right") > verdict.requests


def run(tracing, stack, env, requests, connections=CONNECTIONS, app="constructs", args=(), python=SYSTEM, none_allowed=UNANSWERED,
        only=None, warm=0, **how):
    service = stack.python_app(app, python=python.python, env={**env, **python.env}, **how)
    t = tracing("http/protobuf")
    verdict = truth.load(t, service, requests, connections, args, only=only, warm=warm)
    expect_right(verdict, none_allowed, t)
    return verdict


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("loop", ["uvloop", "uvloop-0.22.1", "asyncio"])
def test_constructs(tracing, stack, env, loop, http):
    python = venvs.with_package(SYSTEM, "uvloop", "0.22.1") if loop == "uvloop-0.22.1" else SYSTEM
    run(tracing, stack, env, 2400, python=python, loop=loop.split("-")[0], http=http)


def test_other_collector(tracing, stack, env):
    run(tracing, stack, env, 1500, 8, args=["--collector", "syscall"])


OTHERS = [name for name in venvs.found() if name != "system"]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("version", OTHERS)
def test_other_interpreters(tracing, stack, env, version, loop):
    """Each one that is on this machine."""
    run(tracing, stack, env, 900, (8, 64), python=venvs.venv(venvs.found()[version]), loop=loop)


SERVERS = [("constructs", "hypercorn", "uvloop"), ("constructs", "hypercorn", "asyncio"), ("constructs", "gunicorn", "uvloop"),
           ("constructs_starlette", "uvicorn", "uvloop"), ("constructs_aiohttp", "aiohttp", "uvloop"),
           ("constructs_aiohttp", "aiohttp", "asyncio"), ("constructs_flask", "gthread", ""), ("constructs_flask", "sync", ""),
           ("constructs_django:wsgi", "gthread", ""), ("constructs_django:asgi", "uvicorn", "uvloop")]


@pytest.mark.parametrize("app,server,loop", SERVERS)
def test_servers(tracing, stack, env, app, server, loop):
    run(tracing, stack, env, 1000, (1, 16), app=app, server=server, loop=loop)


@pytest.mark.parametrize("app,loop,workers", [("constructs", "uvloop", 1), ("constructs", "asyncio", 1), ("constructs", "uvloop", 2),
                                              ("constructs_starlette", "uvloop", 1), ("constructs_django:asgi", "asyncio", 1)])
def test_granian(tracing, stack, env, app, loop, workers):
    """Its sockets belong to threads that are not Python's. Of pipelined requests only the last is alone on its connection."""
    run(tracing, stack, env, 1000, (1, 16), app=app, server="granian", loop=loop, workers=workers,
        none_allowed=(*UNANSWERED, "pipelined"))


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_workers(tracing, stack, env, server):
    """Forked and spawned ones; each inherits nothing of another's."""
    run(tracing, stack, env, 1500, (8, 32), server=server, workers=2)


def test_attached_early(tracing, stack, env):
    """Before the interpreter is there: what it does at its start belongs to no request."""
    port = services.free_port()
    t = tracing("http/protobuf")
    t.start("--port", str(port))
    service = stack.python_app("constructs", env=env, port=port)
    time.sleep(1)
    verdict = truth.load(t, service, 1500, 16)
    expect_right(verdict, UNANSWERED, t)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_attached_under_load(tracing, stack, env, loop):
    """What was in flight then may stay without a parent; what begins a moment later may not."""
    service = stack.python_app("constructs", loop=loop, env=env)
    table = truth_load.table(service.port)
    first, second = truth_load.plan(table, 1500, tag="before"), truth_load.plan(table, 1500, tag="after")
    client = threading.Thread(target=truth_load.run, args=(service.port, first, 16))
    client.start()
    time.sleep(0.5)
    t = tracing("http/protobuf")
    t.start(pids=[service.pid])
    assert client.is_alive(), "the load was over before the agent came"
    client.join()
    truth_load.run(service.port, second, 16)
    time.sleep(truth.BEHIND_SECONDS)
    spans = t.finish()
    after = truth.judge(spans, {service.pid}, second, table)
    late = {i for item in first for i in item.ids}
    for tally in after.tallies.values():
        assert not tally.wrong
    after = truth.judge([s for s in spans if s.truth not in late], {service.pid}, second, table)
    expect_right(after, UNANSWERED, t)


def test_attached_after_work(tracing, stack, env):
    """Its connections, tasks, contexts, pools and threads are all older than the agent."""
    run(tracing, stack, env, 1500, 16, warm=600)


def test_killed_and_started_again(tracing, stack, env):
    """An agent that is killed leaves no probe that hurts; the next one starts from nothing."""
    service = stack.python_app("constructs", env=env)
    table = truth_load.table(service.port)
    items = truth_load.plan(table, 4000, tag="killed")
    failed = []

    def load():
        try:
            truth_load.run(service.port, items, 16)
        except RuntimeError as e:
            failed.append(e)

    client = threading.Thread(target=load)
    client.start()
    for _ in range(3):
        killed = tracing("http/protobuf")
        killed.start(pids=[service.pid])
        time.sleep(0.7)
        os.kill(killed.agent.pid, signal.SIGKILL)
        killed.agent.process.wait()
    client.join()
    assert not failed, failed
    assert service.alive()
    run_again = truth.load(tracing("http/protobuf"), service, 1500, 16, tag="again")
    expect_right(run_again)


def test_switched_off(tracing, stack, env):
    """--python=false: traced like any other process, by threads alone; never wrong."""
    service = stack.python_app("constructs", env=env)
    verdict = truth.load(tracing("http/protobuf"), service, 600, 8, ["--python=false"])
    assert verdict.total("wrong") == verdict.total("missing") == 0
    assert verdict.total("none") > verdict.total("right")
