"""Custom spans of functions that nobody has decorated: names, attributes, nesting, calls kept apart. Keys tell in which
call a client span was made (tests/apps/spans_app.py).
"""
import os
import re
import subprocess

import load
import pytest
import services
import venvs
from seen import CLIENT, SERVER

REQUESTS = 60
INTERNAL = "INTERNAL"
PART = re.compile(r"truth:[\w.-]+/([\w-]+)")


@pytest.fixture(scope="session")
def library(log_dir):
    path = os.path.join(log_dir, "libspans.so")
    source = os.path.join(services.APPS, "native_spans.c")
    subprocess.run(["cc", "-O2", "-fPIC", "-shared", "-o", path, source], check=True)
    return path


class Traces:
    """The spans of one run, by request."""

    def __init__(self, spans, pid):
        # A new connection greets (HELLO, CLIENT SETINFO), which carries no id.
        self.spans = [s for s in spans if s.pid == pid and (s.kind != CLIENT or s.truth)]
        self.servers = [s for s in self.spans if s.kind == SERVER and s.truth]

    def of(self, server, kind, name=None):
        found = [s for s in self.spans if s.trace_id == server.trace_id and s.kind == kind and name in (None, s.name)]
        return sorted(found, key=lambda s: s.start)

    def children(self, span):
        found = [s for s in self.spans if s.trace_id == span.trace_id and s.parent_id == span.span_id]
        return sorted(found, key=lambda s: s.start)


def part(span):
    return PART.search(span.attrs["db.query.text"])[1]


def trace(tracing, stack, redis, route, rules, connections=8, env=None, requests=REQUESTS, **how):
    app = stack.python_app("spans_app", env={"REDIS_PORT": redis.port, **(env or {})}, **how)
    t = tracing("http/protobuf")
    t.start(*(a for rule in rules for a in ("--span", rule)), pids=[app.pid])
    sent = load.run([f"/truth-{route}/{route}{n}" for n in range(requests)], connections=connections, port=app.port)
    traces = Traces(t.finish(), app.pid)
    assert len(traces.servers) == len(sent) == requests
    return traces


def check_bounds(traces, span, server):
    """From the first to the last event within it, and it says that this is all that is known."""
    assert span.attrs["spanloom.bounds"] == "observed"
    assert server.start <= span.start <= span.end
    for child in traces.children(span):
        assert span.start <= child.start and child.end <= span.end, (span, child)


@pytest.mark.parametrize("loop", ["uvloop", "uvloop-0.22.1", "asyncio"])
def test_coroutine(tracing, stack, redis, loop):
    python = venvs.Interpreter(services.PYTHON, "3.11")
    if loop == "uvloop-0.22.1":
        python = venvs.with_package(python, "uvloop", "0.22.1")
    traces = trace(tracing, stack, redis, "coroutine", ["spans_app:coroutine=work.done,agent.type=gateway,quoted=a%2Cb"],
                   loop=loop.split("-")[0], env=python.env)
    for server in traces.servers:
        (span,) = traces.of(server, INTERNAL)
        assert span.name == "work.done" and span.parent_id == server.span_id
        assert span.attrs["agent.type"] == "gateway" and span.attrs["quoted"] == "a,b"
        assert [part(s) for s in traces.children(span)] == ["one", "one"]
        assert sorted(part(s) for s in traces.children(server) if s.kind == CLIENT) == ["without", "without"]
        check_bounds(traces, span, server)


def test_two_calls_are_two_spans(tracing, stack, redis):
    """One after the other, in the same frame's memory."""
    traces = trace(tracing, stack, redis, "twice", ["spans_app:coroutine"])
    for server in traces.servers:
        spans = traces.of(server, INTERNAL)
        assert [[part(s) for s in traces.children(span)] for span in spans] == [["first"] * 2, ["second"] * 2]


def test_name_of_the_function_when_none_is_given(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "coroutine", ["spans_app:coroutine"], connections=1, requests=5)
    assert {s.name for server in traces.servers for s in traces.of(server, INTERNAL)} == {"coroutine"}


def test_function_that_nobody_has(tracing, stack, redis):
    app = stack.python_app("spans_app", env={"REDIS_PORT": redis.port})
    t = tracing("http/protobuf")
    t.start("--span", "spans_app:no_such", "--span", "spans_app:coroutine", pids=[app.pid])
    load.run(["/truth-coroutine/n1"], connections=1, port=app.port)
    assert not [s for s in t.finish() if s.name == "no_such"]
    assert re.findall(r"custom span (\S+): no traced process has such a function", t.agent.output()) == ["spans_app:no_such"]


def test_by_file(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "coroutine", ["apps/spans_app.py:coroutine=by.file"], requests=10)
    assert all(len(traces.of(server, INTERNAL, "by.file")) == 1 for server in traces.servers)


def test_def(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "def", ["spans_app:function=work.def"])
    for server in traces.servers:
        (span,) = traces.of(server, INTERNAL)
        assert span.parent_id == server.span_id and len(traces.children(span)) == 2
        check_bounds(traces, span, server)


def test_method(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "method", ["spans_app:Worker.run=worker.run", "spans_app:Worker.aside=worker.aside"])
    for server in traces.servers:
        (run,) = traces.of(server, INTERNAL, "worker.run")
        (aside,) = traces.of(server, INTERNAL, "worker.aside")
        assert [part(s) for s in traces.children(run)] == ["method", "method"]
        assert [part(s) for s in traces.children(aside)] == ["aside"]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_concurrent_calls_are_kept_apart(tracing, stack, redis, loop):
    traces = trace(tracing, stack, redis, "gather", ["spans_app:coroutine=work.done"], loop=loop)
    for server in traces.servers:
        spans = traces.of(server, INTERNAL)
        assert len(spans) == 2 and all(s.parent_id == server.span_id for s in spans)
        assert sorted([part(s) for s in traces.children(span)] for span in spans) == [["left"] * 2, ["right"] * 2]


def test_in_a_task(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "task", ["spans_app:coroutine=work.done"])
    for server in traces.servers:
        (span,) = traces.of(server, INTERNAL)
        assert span.parent_id == server.span_id and len(traces.children(span)) == 2


def test_recursion(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "recursive", ["spans_app:recursive=work.recursive"])
    for server in traces.servers:
        spans, above = traces.of(server, INTERNAL), server
        assert len(spans) == 3
        for depth, span in zip((2, 1, 0), spans):
            assert span.parent_id == above.span_id
            parts = [part(s) for s in traces.children(span) if s.kind == CLIENT]
            assert parts == [f"before-{depth}", f"after-{depth}"]
            check_bounds(traces, span, server)
            above = span


def test_nested(tracing, stack, redis):
    """One in another, the inner ones in tasks of their own."""
    traces = trace(tracing, stack, redis, "nested", ["spans_app:outer=work.outer", "spans_app:coroutine=work.inner"])
    for server in traces.servers:
        (outer,) = traces.of(server, INTERNAL, "work.outer")
        inner = traces.of(server, INTERNAL, "work.inner")
        assert outer.parent_id == server.span_id
        assert len(inner) == 2 and all(s.parent_id == outer.span_id for s in inner)
        assert sorted([part(s) for s in traces.children(s)] for s in inner) == [["left"] * 2, ["right"] * 2]
        assert [part(s) for s in traces.children(outer) if s.kind == CLIENT] == ["outer", "outer"]


def test_async_generator(tracing, stack, redis):
    traces = trace(tracing, stack, redis, "generator", ["spans_app:generator=work.steps"])
    for server in traces.servers:
        (span,) = traces.of(server, INTERNAL)
        assert [part(s) for s in traces.children(span)] == ["step-0", "step-1", "step-2"]


def test_rules_from_a_file(tracing, stack, redis, log_dir):
    path = os.path.join(log_dir, "rules")
    with open(path, "w") as f:
        f.write("# what is to be seen\nspans_app:coroutine=from.file,kind=rule\n\nspans_app:nobody=never\n")
    app = stack.python_app("spans_app", env={"REDIS_PORT": redis.port})
    t = tracing("http/protobuf")
    t.start("--span-file", path, pids=[app.pid])
    load.run([f"/truth-coroutine/f{n}" for n in range(10)], connections=2, port=app.port)
    spans = [s for s in t.finish() if s.kind == INTERNAL]
    assert [s.name for s in spans] == ["from.file"] * 10 and all(s.attrs["kind"] == "rule" for s in spans)


def test_unsampled_has_none(tracing, stack, redis):
    app = stack.python_app("spans_app", env={"REDIS_PORT": redis.port})
    t = tracing("http/protobuf")
    t.start("--span", "spans_app:coroutine", pids=[app.pid], env={"OTEL_TRACES_SAMPLER": "always_off"})
    load.run([f"/truth-coroutine/u{n}" for n in range(10)], connections=2, port=app.port)
    assert not t.finish()


def test_native(tracing, stack, redis, library):
    """Exact: from its entry to the way out that it takes."""
    traces = trace(tracing, stack, redis, "native", [f"{library}:do_work=native.work,lang=c"], env={"LIBRARY": library})
    for server in traces.servers:
        (span,) = traces.of(server, INTERNAL)
        assert span.name == "native.work" and span.attrs["lang"] == "c" and span.parent_id == server.span_id
        assert span.attrs["spanloom.bounds"] == "exact"
        assert 5e6 <= span.end - span.start <= server.end - server.start
        assert server.start <= span.start and span.end <= server.end
        (call,) = traces.of(server, CLIENT)
        assert call.parent_id == server.span_id and call.start >= span.end


def test_native_calls_python(tracing, stack, redis, library):
    rules = [f"{os.path.basename(library)}:do_call=native.call", f"{os.path.basename(library)}:do_work=native.work"]
    traces = trace(tracing, stack, redis, "callback", rules, env={"LIBRARY": library})
    for server in traces.servers:
        (outer,) = traces.of(server, INTERNAL, "native.call")
        assert outer.parent_id == server.span_id
        (call,) = traces.of(server, CLIENT)
        assert call.parent_id == outer.span_id and part(call) == "inside"
        assert len(traces.of(server, INTERNAL, "native.work")) == 1


def test_native_early_exit(tracing, stack, redis, library):
    """The other way out."""
    app = stack.python_app("spans_app", env={"REDIS_PORT": redis.port, "LIBRARY": library})
    t = tracing("http/protobuf")
    t.start("--span", f"{library}:do_work=native.work", pids=[app.pid])
    load.run([f"/truth-native/e{n}?ms=0" for n in range(20)], connections=4, port=app.port)
    spans = [s for s in t.finish() if s.kind == INTERNAL]
    assert len(spans) == 20 and all(s.end - s.start < 3e6 for s in spans)


@pytest.mark.parametrize("version", [n for n in venvs.found() if n != "system"])
def test_other_interpreters(tracing, stack, redis, version):
    python = venvs.venv(venvs.found()[version])
    traces = trace(tracing, stack, redis, "gather", ["spans_app:coroutine=work.done"], python=python.python)
    for server in traces.servers:
        spans = traces.of(server, INTERNAL)
        assert len(spans) == 2 and all(s.parent_id == server.span_id for s in spans)
        assert sorted([part(s) for s in traces.children(span)] for span in spans) == [["left"] * 2, ["right"] * 2]
