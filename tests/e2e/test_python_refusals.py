"""Interpreters that are not what they seem, or not known: nothing of them is believed, a line of the log says why, and the
service goes on.
"""
import os
import subprocess
import time

import pytest
import services
import truth
import truth_load
import venvs
from elf_patch import Copy

SOURCE = os.path.realpath(venvs.SYSTEM)
READ_FROM_PYTHON = ("http.route", "code.function.name", "code.file.path", "code.line.number")
LINE_SECONDS = 6


@pytest.fixture
def env(redis, callee):
    packages = subprocess.run([services.PYTHON, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
                              capture_output=True, text=True, check=True).stdout.strip()
    return {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{callee.port}", "HEARTBEAT": 0.02,
            "PYTHONHOME": "/usr", "PYTHONPATH": packages}


def line_about(agent, pid, *words):
    """A line of the log that says of the process why it is refused."""

    def find():
        return [line for line in agent.output().splitlines() if f"process {pid} " in line and all(w in line for w in words)]

    return services.wait_until(find, LINE_SECONDS, f"a line with {words} about {pid} in:\n{agent.output()}")


def refused(tracing, stack, env, python, *words):
    service = stack.python_app("constructs", python=python, env=env, loop="asyncio")
    t = tracing("http/protobuf")
    t.start(pids=[service.pid])
    table = truth_load.table(service.port)
    items = truth_load.plan(table, 400)
    truth_load.run(service.port, items, 8)
    time.sleep(truth.BEHIND_SECONDS)
    line_about(t.agent, service.pid, *words)
    assert service.alive()
    spans = t.finish()
    verdict = truth.judge(spans, {service.pid}, items, table)
    assert verdict.total("wrong") == verdict.total("missing") == verdict.total("servers") == 0, verdict.problems(table)
    assert not any(key in s.attrs for s in spans if s.pid == service.pid for key in READ_FROM_PYTHON)
    truth_load.run(service.port, truth_load.plan(table, 100, tag="after"), 8)


def copy_of(log_dir, case, name="python3"):
    folder = os.path.join(log_dir, f"refused-{case}")
    os.makedirs(folder, exist_ok=True)
    return Copy(SOURCE, os.path.join(folder, name))


def has_py_version():
    return venvs.version_of(SOURCE) >= (3, 11)


@pytest.mark.parametrize("case,version,words", [
    ("unknown", 0x030F00F0, ["3.15"]), ("far", 0x040100F0, ["4.1"]), ("rubbish", 0xFFFFFFFF, []),
    ("another", 0x030D00F0, []), ("older", 0x030A00F0, [])])
def test_version_that_is_not_its_own(tracing, stack, env, log_dir, case, version, words):
    assert has_py_version()
    refused(tracing, stack, env, copy_of(log_dir, case).set_u32("Py_Version", version).write(), *words)


def test_name_of_another_version(tracing, stack, env, log_dir):
    refused(tracing, stack, env, copy_of(log_dir, "named", "python3.13").write(), "3.13", "3.11")


def test_name_of_a_free_threaded_build(tracing, stack, env, log_dir):
    refused(tracing, stack, env, copy_of(log_dir, "free", "python3.11t").write(), "lock")


@pytest.mark.parametrize("symbol,by", [("_PyRuntime", 64), ("_PyRuntime", 4096), ("_PyRuntime", 1 << 40)])
def test_symbols_that_lead_elsewhere(tracing, stack, env, log_dir, symbol, by):
    """As if the offsets were wrong: what is found there doesn't hold together. The interpreter itself does not notice: the
    modules that ask for the symbol have others written in Python behind them."""
    python = copy_of(log_dir, f"moved-{symbol}-{by}").move_symbol(symbol, by).write()
    hidden = os.path.join(log_dir, "hidden-modules")
    os.makedirs(hidden, exist_ok=True)
    for name in ("_asyncio", "_json", "_zoneinfo"):
        with open(os.path.join(hidden, f"{name}.py"), "w") as f:
            f.write("raise ImportError\n")
    refused(tracing, stack, {**env, "PYTHONPATH": f"{hidden}:{env['PYTHONPATH']}"}, python)


def shared_python():
    """(folder of the headers, folder of the library, its version, sys.prefix) of a Python that a program can embed."""
    for path in venvs.found().values():
        values = subprocess.run([path, "-c", "import sys, sysconfig as s; v = s.get_config_var; print(v('LIBDIR'), "
                                 "v('MULTIARCH'), v('LDVERSION'), s.get_paths()['include'], sys.prefix)"],
                                capture_output=True, text=True).stdout.split()
        if len(values) != 5 or not os.path.exists(os.path.join(values[3], "Python.h")):
            continue
        for folder in (values[0], os.path.join(values[0], values[1])):
            if os.path.exists(os.path.join(folder, f"libpython{values[2]}.so")):
                return values[3], folder, values[2], values[4]
    return None


EMBEDDED = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *unused):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


def test_program_that_embeds_python(tracing, stack, log_dir):
    found = shared_python()
    if not found:
        pytest.skip("no Python with a shared library and headers on this machine")
    include, folder, version, prefix = found
    program, script, port = os.path.join(log_dir, "embeds"), os.path.join(log_dir, "embedded.py"), services.free_port()
    subprocess.run(["cc", f"-I{include}", os.path.join(services.APPS, "embed.c"), "-o", program, f"-L{folder}",
                    f"-lpython{version}", f"-Wl,-rpath,{folder}"], check=True)
    with open(script, "w") as f:
        f.write(EMBEDDED.format(port=port))
    service = stack.start("embeds", [program, script], env={"PYTHONHOME": prefix})
    service.wait_ready(lambda: services.port_open(port))
    t = tracing("http/protobuf")
    t.start(pids=[service.pid])
    assert all(services.http_get(port, f"/n/{n}")[0] == 200 for n in range(20))
    line_about(t.agent, service.pid, "embeds")
    spans = [s for s in t.finish() if s.pid == service.pid]
    assert len(spans) == 20 and not any(key in s.attrs for s in spans for key in READ_FROM_PYTHON)
    assert services.http_get(port)[0] == 200


def test_pypy(tracing, stack, log_dir):
    """Something that looks like it to one who sees what is mapped."""
    library, program = os.path.join(log_dir, "libpypy3.11-c.so"), os.path.join(log_dir, "pypy3")
    code = "int pypy_main_startup(void) { return 0; }"
    subprocess.run(["cc", "-x", "c", "-shared", "-fPIC", "-o", library, "-"], input=code, text=True, check=True)
    code = "#include <unistd.h>\nint pypy_main_startup(void);\nint main(void) { pypy_main_startup(); for (;;) pause(); }"
    subprocess.run(["cc", "-x", "c", "-", "-x", "none", "-o", program, library, f"-Wl,-rpath,{log_dir}"], input=code, text=True, check=True)
    service = stack.start("pypy3", [program])
    t = tracing("http/protobuf")
    t.start(pids=[service.pid])
    line_about(t.agent, service.pid, "PyPy")
    t.finish()
    assert service.alive()


def test_interpreters_that_come_and_go(tracing, stack, log_dir):
    """Each is looked at while it starts, forks, execs or ends."""
    t = tracing("http/protobuf")
    t.start("--exe", "*python3*")
    lines = ["pass", "import asyncio; asyncio.run(asyncio.sleep(0.05))", "import os; os.fork() or os._exit(0)",
             "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'pass'])", "import os; os.abort()"]
    running = []
    for n in range(40):
        running.append(subprocess.Popen([services.PYTHON, "-c", lines[n % len(lines)]], stderr=subprocess.DEVNULL,
                                        cwd=log_dir))
        time.sleep(0.02)
    for p in running:
        assert p.wait(20) in (0, -6)
    assert t.agent.alive()
    t.finish()
