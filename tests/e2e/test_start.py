"""What the agent says when it cannot start as it was asked to: one message that names what, why and what to do."""
import os
import re
import signal
import subprocess
import time

import pytest
import services


def start(*args, env=None, wrap=(), timeout=10):
    full_env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "SPANLOOM_"))}
    full_env.update(env or {})
    return subprocess.run([*wrap, services.SPANLOOM, *args], capture_output=True, text=True, timeout=timeout, env=full_env,
                          stdin=subprocess.DEVNULL)


def unused_pid():
    with open("/proc/sys/kernel/pid_max") as f:
        pid = int(f.read()) - 1
    while os.path.exists(f"/proc/{pid}"):
        pid -= 1
    return str(pid)


def errors(p):
    return [line for line in p.stderr.splitlines() if line.startswith("spanloom: error: ")]


def test_help_and_version_need_no_root():
    p = start("--help")
    assert p.returncode == 0
    for word in ("--pid", "--exe", "--port", "--cgroup", "--collector", "OTEL_SERVICE_NAME", "OTEL_SAMPLING_RATE"):
        assert word in p.stdout
    p = start("--version")
    assert p.returncode == 0 and p.stdout.startswith("spanloom ")


def test_no_such_pid(root):
    pid = unused_pid()
    p = start("--pid", pid)
    assert p.returncode == 1
    assert len(errors(p)) == 1 and pid in p.stderr, p.stderr


@pytest.mark.parametrize("args, env, words", [
    (["--port", "abc"], {}, ["port", "abc"]),
    (["--port", "70000"], {}, ["port", "70000", "65535"]),
    (["--pid", "-3"], {}, ["pid", "-3"]),
    (["--collector", "magic"], {}, ["collector", "magic", "sock"]),
    (["--no-such-option"], {}, ["--no-such-option"]),
    ([], {"OTEL_SAMPLING_RATE": "2"}, ["OTEL_SAMPLING_RATE", "2"]),
    ([], {"OTEL_TRACES_SAMPLER": "sometimes"}, ["OTEL_TRACES_SAMPLER", "sometimes", "always_on"]),
    ([], {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}, ["OTEL_EXPORTER_OTLP_PROTOCOL", "smoke", "grpc"]),
    ([], {"OTEL_BSP_MAX_QUEUE_SIZE": "many"}, ["OTEL_BSP_MAX_QUEUE_SIZE", "many"]),
    (["--config", "/nonexistent/spanloom.conf"], {}, ["/nonexistent/spanloom.conf"]),
    (["--propagate", "b3"], {}, ["propagate", "b3", "headers"]),
    (["--propagate=auto,headers"], {}, ["propagate", "auto,headers", "headers,tcp"]),
    (["--keep-slow", "1s"], {}, ["keep-slow", "1s", "3600000"]),
    ([], {"SPANLOOM_MAX_TRACES_PER_SECOND": "-1"}, ["SPANLOOM_MAX_TRACES_PER_SECOND", "-1"]),
    ([], {"SPANLOOM_WITH_SDK": "maybe"}, ["SPANLOOM_WITH_SDK", "maybe", "true"]),
])
def test_bad_values(args, env, words):
    p = start(*args, env=env)
    assert p.returncode != 0
    assert len(errors(p)) == 1, p.stderr
    for word in words:
        assert word in errors(p)[0]


def test_not_root(gateway):
    if os.geteuid() != 0:
        wrap = ()
    else:
        wrap = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
    p = start("--pid", str(gateway.pid), wrap=wrap)
    assert p.returncode == 1
    assert len(errors(p)) == 1, p.stderr
    assert "root" in p.stderr or "CAP_BPF" in p.stderr


def test_no_match_is_no_exit(root, stack):
    agent = stack.spanloom("--port", str(services.free_port()), env={"OTEL_TRACES_EXPORTER": "none"})
    assert agent.alive()
    assert "no " in agent.output() and "match" in agent.output(), agent.output()
    assert agent.stop() == 0


def test_disabled(root, stack, gateway):
    agent = stack.spanloom("--pid", str(gateway.pid), env={"OTEL_ENABLED": "false"}, ready=False)
    services.wait_until(lambda: "OTEL_ENABLED" in agent.output(), 5, "the agent says that it is switched off")
    assert agent.alive() and not services.bpf_objects(agent.pid)
    assert agent.stop() == 0


def ready_line(agent):
    (line,) = [line for line in agent.output().splitlines() if line.startswith(services.READY_LINE)]
    return line


@pytest.mark.parametrize("args, env, words", [
    (["--propagate=off"], {}, ["traceparent into outgoing HTTP: off (--propagate=off),", "sampling all,"]),
    (["--propagate=tcp"], {}, ["traceparent into outgoing HTTP: off (--propagate=tcp), TCP option: "]),
    ([], {"OTEL_PROPAGATORS": "b3,baggage"}, ["traceparent into outgoing HTTP: off (OTEL_PROPAGATORS has no tracecontext),"]),
    (["--propagate=off", "--keep-errors", "--keep-slow=250"], {"OTEL_SAMPLING_RATE": "0.1"},
     ["sampling 0.1 (failed requests always; requests of 250 ms and longer always),"]),
    (["--propagate=off", "--max-traces-per-second=5"], {"OTEL_TRACES_SAMPLER": "always_off"},
     ["sampling none (whatever the caller decided; at most 5 new traces/s of a service),"]),
])
def test_ready_line_says_what_was_decided(root, stack, gateway, args, env, words):
    agent = stack.spanloom("--pid", str(gateway.pid), *args, env={"OTEL_TRACES_EXPORTER": "none", **env})
    assert agent.stop() == 0
    for word in words:
        assert word in ready_line(agent), agent.output()


def test_headers_or_why_not(root, stack, gateway):
    """Whatever this kernel can do, the line says it; when it can't, with a reason."""
    agent = stack.spanloom("--pid", str(gateway.pid), env={"OTEL_TRACES_EXPORTER": "none"})
    assert agent.stop() == 0
    assert re.search(r"traceparent into outgoing HTTP: (on|off \(.+\)), sampling", ready_line(agent)), agent.output()


def test_propagators_that_are_not_known(root, stack, gateway):
    agent = stack.spanloom("--pid", str(gateway.pid), "--propagate=off",
                           env={"OTEL_TRACES_EXPORTER": "none", "OTEL_PROPAGATORS": "tracecontext,b3multi,mine"})
    assert agent.stop() == 0
    warnings = [line for line in agent.output().splitlines() if "warning" in line and "OTEL_PROPAGATORS" in line]
    assert len(warnings) == 2 and "b3multi" in warnings[0] and "mine" in warnings[1], agent.output()


def test_process_that_is_set_up_for_an_sdk(root, stack, app_env):
    """It is said which process is left out, why, and what to do about it; nothing of it is reported meanwhile."""
    app = stack.uvicorn("gateway", env={**app_env, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"})
    env = {"OTEL_TRACES_EXPORTER": "none"}
    agent = stack.spanloom("--pid", str(app.pid), "--console=json", env=env)
    assert services.http_get(app.port, "/health")[0] == 200
    assert agent.stop() == 0
    said = [line for line in agent.output().splitlines() if f"process {app.pid} " in line and "its own spans" in line]
    assert len(said) == 1 and "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in said[0] and "--with-sdk" in said[0], agent.output()
    assert "/health" not in agent.output()
    agent = stack.spanloom("--pid", str(app.pid), "--console=json", "--with-sdk", env=env)
    assert services.http_get(app.port, "/health")[0] == 200
    assert agent.stop() == 0
    assert "its own spans" not in agent.output() and "/health" in agent.output(), agent.output()


def test_console_json_and_file(root, stack, gateway, tmp_path):
    import json
    path = tmp_path / "spans.jsonl"
    agent = stack.spanloom("--pid", str(gateway.pid), "--console=json", "--file", str(path),
                           env={"OTEL_TRACES_EXPORTER": "console"})
    assert services.http_get(gateway.port, "/items/77")[0] == 200
    assert agent.stop() == 0
    lines = [json.loads(line) for line in agent.output().splitlines() if line.startswith("{")]
    assert len(lines) == 1 and "/items/77" in json.dumps(lines)
    assert "/items/77" in path.read_text()


def test_console_tree(root, stack, gateway):
    agent = stack.spanloom("--pid", str(gateway.pid), "--console=tree", env={"OTEL_TRACES_EXPORTER": "console"})
    assert services.http_get(gateway.port, "/call")[0] == 200
    assert agent.stop() == 0
    text = agent.output()
    assert "GET" in text and "POST" in text and "INCR" in text


def test_missing_cap_sys_resource(root, stack, gateway):
    agent = stack.spanloom("--pid", str(gateway.pid), env={"OTEL_TRACES_EXPORTER": "none"},
                           wrap=("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"))
    assert agent.stop() == 0


@pytest.mark.parametrize("limit", [12, 17, 18, 19, 20, 25])
def test_few_open_files(root, gateway, limit):
    p = start("--pid", str(gateway.pid), wrap=("bash", "-c", f'ulimit -n {limit}; exec "$0" "$@"'))
    assert p.returncode == 1
    assert len(errors(p)) == 1 and "ulimit -n" in errors(p)[0], p.stderr


def test_endless_config():
    p = start("--config", "/dev/zero")
    assert p.returncode == 1
    assert len(errors(p)) == 1 and "/dev/zero" in errors(p)[0], p.stderr


def test_help_that_cannot_be_written():
    with open("/dev/full", "w") as full:
        p = subprocess.run([services.SPANLOOM, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert p.returncode == 1 and "standard output" in p.stderr


def test_password_of_the_endpoint_is_not_shown(root, stack, gateway):
    agent = stack.spanloom("--pid", str(gateway.pid), env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@127.0.0.1:9",
                                                           "SPANLOOM_SHUTDOWN_TIMEOUT": 200})
    assert services.http_get(gateway.port, "/items/1")[0] == 200
    time.sleep(1.5)
    assert agent.stop() == 0
    assert "127.0.0.1:9" in agent.output() and "hunter2" not in agent.output()


def wait_for_maps(pid):
    """For an agent whose ready line can't be read: its programs are there, and no more of them come."""
    def settled():
        before = len([kind for kind, _ in services.bpf_objects(pid) if kind == "prog"])
        time.sleep(0.7)
        return before and before == len([kind for kind, _ in services.bpf_objects(pid) if kind == "prog"])

    services.wait_until(settled, 20, "the agent has attached")


def test_closed_descriptors(root, gateway, tmp_path):
    """Nothing of the agent's becomes descriptor 0, 1 or 2, or its words would be written into it."""
    p = subprocess.Popen(["bash", "-c", 'exec "$0" "$@" <&- >&- 2>&-', services.SPANLOOM, "--pid", str(gateway.pid),
                          "--console=json", "--file", str(tmp_path / "spans")], env={"OTEL_TRACES_EXPORTER": "none"})
    try:
        wait_for_maps(p.pid)
        assert {os.readlink(f"/proc/{p.pid}/fd/{n}") for n in range(3)} == {"/dev/null"}
        assert services.http_get(gateway.port, "/items/5")[0] == 200
    finally:
        p.terminate()
        assert p.wait(10) == 0
    assert "/items/5" in (tmp_path / "spans").read_text()


def test_log_that_nobody_reads(root, gateway, tmp_path):
    """A full pipe behind stderr holds nothing up."""
    ours, its = os.pipe()
    os.set_blocking(its, False)
    try:
        while os.write(its, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(its, True)
    p = subprocess.Popen([services.SPANLOOM, "--pid", str(gateway.pid), "--file", str(tmp_path / "spans")], stderr=its,
                         env={"OTEL_TRACES_EXPORTER": "none"})
    try:
        wait_for_maps(p.pid)
        p.send_signal(signal.SIGUSR1)
        assert services.http_get(gateway.port, "/items/6")[0] == 200
    finally:
        p.terminate()
        assert p.wait(10) == 0
        os.close(ours)
        os.close(its)
    assert "/items/6" in (tmp_path / "spans").read_text()
