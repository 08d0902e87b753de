"""code.* of client spans: the application's own function that made the call, whatever library is in between."""
import ast
import os
import time

import load
import pytest
import services
import truth
import truth_load
import venvs
from seen import clients, servers

FILE = os.path.join(services.APPS, "truth_work.py")
KEYS = ("code.function.name", "code.file.path", "code.line.number")
# construct → the functions of truth_work.py from which its calls are made
CALLERS = {
    "await_chain": {"use_redis", "use_http"}, "gather": {"use_redis", "use_http"}, "def_endpoint":
    {"block_redis", "block_http", "def_endpoint"}, "to_thread": {"block_redis", "block_http"}, "submit": {"block_redis"},
    "thread_joined": {"block_redis"}, "aiohttp_client": {"aiohttp_client"}, "redis_pipeline": {"redis_pipeline", "use_redis"},
    "greenlet": {"use_redis", "use_http"}, "task_forget": {"use_redis"}, "streaming": {"use_redis", "use_http"},
    "library_tasks": {"library_tasks"}, "library_threads": {"library_threads"}, "library_thread": {"library_thread"}}
FIRST = "first"  # requests in which code is met that nobody has asked about yet


def functions():
    """{name: (first line, last line)} of truth_work.py; a decorated function begins at its first decorator."""
    with open(FILE) as f:
        tree = ast.parse(f.read())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found[node.name] = (min([node.lineno] + [d.lineno for d in node.decorator_list]), node.end_lineno)
    return found


@pytest.fixture
def env(redis, callee):
    return {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{callee.port}"}


def check_caller(span, lines):
    function = span.attrs["code.function.name"].rsplit(".", 1)[1]
    assert span.attrs["code.function.name"] == f"truth_work.{function}", span
    assert span.attrs["code.file.path"] == FILE
    first, last = lines[function]
    assert first <= span.attrs["code.line.number"] <= last
    return function


def run(tracing, stack, env, python, loop, http="httptools", each=20):
    app = stack.python_app("constructs", python=python.python, loop=loop, http=http, env={**env, **python.env})
    table = {n: c for n, c in truth_load.table(app.port).items() if n in CALLERS}
    t = tracing("http/protobuf")
    t.start(pids=[app.pid])
    truth_load.run(app.port, truth_load.plan(table, 3 * len(table), tag=FIRST), 2)
    time.sleep(truth.BEHIND_SECONDS)
    truth_load.run(app.port, truth_load.plan(table, each * len(table)), 8)
    time.sleep(truth.BEHIND_SECONDS)
    spans = [s for s in t.finish() if s.pid == app.pid and s.truth and truth.construct_of(s.truth) in table]
    version = ".".join(str(n) for n in venvs.version_of(python.python))
    assert {s.resource["process.runtime.version"] for s in spans} == {version}
    lines, seen, unknown = functions(), {}, []
    for span in clients(spans):
        if "code.function.name" in span.attrs:
            seen.setdefault(truth.construct_of(span.truth), set()).add(check_caller(span, lines))
        elif f".{FIRST}" not in span.truth:
            unknown.append(span)
    assert not unknown, f"{len(unknown)} calls of nobody, the first: {unknown[:2]}"
    assert seen == {n: CALLERS[n] for n in table}
    for span in servers(spans):
        if f".{FIRST}" in span.truth and "code.function.name" not in span.attrs:
            continue
        construct = truth.construct_of(span.truth)
        where = "constructs" if construct == "streaming" else "truth_work"
        assert span.attrs["code.function.name"] == f"{where}.{construct}"
        assert span.attrs["code.file.path"] == os.path.join(services.APPS, f"{where}.py")
        if where == "truth_work":
            assert lines[construct][0] <= span.attrs["code.line.number"] <= lines[construct][1]


@pytest.mark.parametrize("loop", ["uvloop", "uvloop-0.22.1", "asyncio"])
def test_who_called(tracing, stack, env, loop):
    python = venvs.Interpreter(services.PYTHON, "3.11")
    if loop == "uvloop-0.22.1":
        python = venvs.with_package(python, "uvloop", "0.22.1")
    run(tracing, stack, env, python, loop.split("-")[0])


@pytest.mark.parametrize("version", [n for n in venvs.found() if n != "system"])
def test_other_interpreters(tracing, stack, env, version):
    run(tracing, stack, env, venvs.venv(venvs.found()[version]), "uvloop", "h11")


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_flask(tracing, stack, app_env, worker):
    app = stack.python_app("sync_flask", worker, env=app_env)
    t = tracing("http/protobuf")
    t.start(pids=[app.pid])
    pids = truth.family(app.pid)
    load.run([f"/truth/c{n}" for n in range(40)], connections=4, port=app.port)
    calls = clients(t.finish(), pids)
    assert len([s for s in calls if s.truth]) == 120
    for span in calls:
        if span.truth:
            assert span.attrs["code.function.name"] == "sync_flask.truth"
            assert span.attrs["code.file.path"] == os.path.join(services.APPS, "sync_flask.py")


def test_off(tracing, stack, env):
    app = stack.python_app("constructs", env=env)
    t = tracing("http/protobuf")
    t.start("--code=false", pids=[app.pid])
    table = {n: c for n, c in truth_load.table(app.port).items() if n in ("gather", "def_endpoint")}
    items = truth_load.plan(table, 40)
    truth_load.run(app.port, items, 4)
    spans = t.finish()
    assert not any(key in s.attrs for s in spans for key in KEYS)
    assert not truth.judge(spans, {app.pid}, items, table).problems()
