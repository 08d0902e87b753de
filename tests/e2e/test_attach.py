"""Which processes are traced, from when on, and what is left behind."""
import http.client
import os
import signal
import socket
import subprocess
import time

import load
import pytest
import services
from seen import check_times, clients, match_requests, servers


def test_open_connections_are_picked_up(tracing, gateway, collector):
    """Connections that were open before the agent came are traced from their next request on."""
    open_before = [load.Connection(port=gateway.port) for _ in range(5)]
    for c in open_before:
        c.request("/items/1")
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    sent = [c.request(f"/items/{n}") for n, c in enumerate(open_before, 100)]
    sent.append(open_before[0].request("/call"))
    for c in open_before:
        c.close()
    spans = t.finish()
    match_requests(sent, servers(spans))
    assert len([s for s in clients(spans) if s.attrs.get("url.full", "").endswith("/rpc")]) == 1


def test_attach_in_the_middle_of_a_request(tracing, gateway, collector):
    """A request whose beginning nobody saw makes no span, and the next one on its connection does."""
    c = load.Connection(port=gateway.port)
    c.http.request("GET", "/upstream-slow?ms=4000")
    time.sleep(0.1)
    t = tracing()
    t.start("--collector", collector, pids=[gateway.pid])
    assert c.http.getresponse().read() == b""
    sent = [c.request("/items/5")]
    c.close()
    match_requests(sent, servers(t.finish()))


@pytest.mark.parametrize("by", ["port", "exe"])
def test_processes_that_start_later(tracing, stack, app_env, by, collector):
    t = tracing()
    port = services.free_port()
    rule = ["--port", str(port)] if by == "port" else ["--exe", os.path.realpath(services.PYTHON)]
    t.start("--collector", collector, *rule)
    app = stack.uvicorn("gateway", env=app_env, port=port)
    time.sleep(0.1)
    sent = load.run([f"/items/{n}" for n in range(50)], connections=2, port=app.port)
    match_requests(sent, servers(t.finish(), [app.pid]))


def test_port_range_and_config_file(tracing, gateway, tmp_path):
    conf = tmp_path / "spanloom.conf"
    conf.write_text(f"port = {gateway.port}-{gateway.port}\n# a comment\n")
    t = tracing()
    t.start("--config", str(conf))
    sent = load.run(["/items/1"], connections=1, port=gateway.port)
    match_requests(sent, servers(t.finish()))


def test_environment_selects(tracing, gateway):
    t = tracing()
    t.start(env={"SPANLOOM_PID": str(gateway.pid)})
    sent = load.run(["/items/1"], connections=1, port=gateway.port)
    match_requests(sent, servers(t.finish()))


def cgroup2_mount():
    with open("/proc/self/mounts") as f:
        return next((line.split()[1] for line in f if line.split()[2] == "cgroup2"), None)


def test_cgroup(tracing, stack, app_env):
    mount = cgroup2_mount()
    if not mount:
        pytest.skip("no cgroup v2 mount")
    folder = os.path.join(mount, f"spanloom-test-{os.getpid()}")
    os.mkdir(folder)
    stack.callback(os.rmdir, folder)
    t = tracing()
    t.start("--cgroup", folder)
    app = stack.uvicorn("gateway", env=app_env)
    with open(os.path.join(folder, "cgroup.procs"), "w") as f:
        f.write(str(app.pid))
    time.sleep(0.3)
    sent = load.run(["/items/1", "/items/2"], connections=1, port=app.port)
    match_requests(sent, servers(t.finish()))
    app.stop()


def test_uvicorn_workers(tracing, stack, app_env, collector):
    """Only the parent was named; its workers are traced, those that come later too."""
    app = stack.uvicorn("gateway", env=app_env, args=["--workers", "2"])
    services.wait_until(lambda: services.http_ok(app.port), 10, "workers")
    t = tracing()
    t.start("--collector", collector, pids=[app.pid])
    sent = load.run([f"/items/{n}" for n in range(100)], connections=8, port=app.port)
    os.kill(max(app.children()), signal.SIGKILL)  # a worker of this test's own service: uvicorn starts another
    time.sleep(3)
    sent += load.run([f"/items/{n}" for n in range(200, 300)], connections=8, port=app.port)
    match_requests(sent, servers(t.finish()))


def test_gunicorn_children(tracing, stack, app_env):
    app = stack.gunicorn("sync_flask", env=app_env, args=["--workers", "2"])
    t = tracing()
    t.start(pids=[app.pid])
    sent = load.run([f"/truth/{n}" for n in range(50)], connections=4, port=app.port)
    spans = t.finish()
    match_requests(sent, servers(spans))
    assert app.pid not in {s.pid for s in spans}


def test_service_name_and_resource(tracing, stack, app_env):
    app = stack.uvicorn("gateway", env={**app_env, "OTEL_SERVICE_NAME": "named-by-its-own",
                                        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"})
    t = tracing()
    t.start(pids=[app.pid])
    load.run(["/items/1"], connections=1, port=app.port)
    (span,) = servers(t.finish())
    assert span.resource["service.name"] == "named-by-its-own"
    assert span.resource["deployment.environment.name"] == "test"
    assert span.resource["process.pid"] == app.pid
    assert span.resource["telemetry.sdk.name"] == "spanloom"
    assert span.resource["process.executable.name"].startswith("python")
    assert span.resource["host.name"] == os.uname().nodename


def test_two_agents_side_by_side(tracing, gateway):
    first, second = tracing(), tracing("http/protobuf")
    first.start(pids=[gateway.pid])
    second.start(pids=[gateway.pid])
    sent = load.run([f"/items/{n}" for n in range(50)], connections=4, port=gateway.port)
    match_requests(sent, servers(first.finish()))
    match_requests(sent, servers(second.finish()))


def test_never_traces_itself(tracing, gateway):
    t = tracing()
    t.start("--exe", "spanloom*", pids=[gateway.pid], env={"OTEL_BSP_SCHEDULE_DELAY": "50"})
    for n in range(10):
        load.run([f"/items/{n}"], connections=1, port=gateway.port)
        time.sleep(0.1)
    spans = t.finish()
    assert {s.pid for s in spans} == {gateway.pid}


def bpf_exists(kind, number):
    bpftool = os.environ.get("BPFTOOL") or subprocess.run([os.path.join(services.TOP, "tools", "find-bpftool")],
                                                          capture_output=True, text=True).stdout.strip()
    return subprocess.run([bpftool, kind, "show", "id", str(number)], capture_output=True).returncode == 0


def test_kill_leaves_nothing(tracing, gateway, collector):
    """kill -9 in the middle of traffic: every request is answered, and the kernel holds nothing of ours."""
    t = tracing()
    agent = t.start("--collector", collector, pids=[gateway.pid])
    held = services.bpf_objects(agent.pid)
    assert {kind for kind, _ in held} >= {"map", "prog"}
    connection = load.Connection(port=gateway.port)
    for n in range(200):
        if n == 100:
            agent.process.send_signal(signal.SIGKILL)
            agent.process.wait()
        assert connection.request(f"/items/{n}").status == 200
    connection.close()
    services.wait_until(lambda: not any(bpf_exists(kind, n) for kind, n in held), 5, f"{len(held)} BPF objects gone")


def test_stopped_for_a_while(tracing, gateway, collector):
    """An agent that does not run loses records and counts them; afterwards all is as before, and no span is wrong.

    Where it does run the clients rest between requests: 64 KB are full in 6 ms of theirs, and a busy machine may well
    keep the agent from a core for so long."""
    t = tracing()
    agent = t.start("--collector", collector, "--ring-size", "64K", "--nice", "0", pids=[gateway.pid])
    sent = load.run([f"/items/{n}" for n in range(200)], connections=4, pause=0.005, port=gateway.port)
    connection = load.Connection(port=gateway.port)
    agent.process.send_signal(signal.SIGSTOP)
    sent += [connection.request(f"/items/{n}") for n in range(200, 800)]
    agent.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    connection.request("/health")  # tells of the gap
    later = load.run([f"/items/{n}" for n in range(800, 1200)], connections=4, pause=0.005, port=gateway.port)
    later += [connection.request(f"/items/{n}") for n in range(1200, 1220)]
    connection.close()
    spans = servers(t.finish())
    assert t.drops().get("ring_full"), agent.output()
    late_paths = {s.path for s in later}
    check_times(match_requests(later, [s for s in spans if s.path in late_paths]))
    seen = {s.path for s in spans} - late_paths
    known = [s for s in sent if s.path in seen]
    assert len(known) >= 200
    check_times(match_requests(known, [s for s in spans if s.path in seen and s.path != "/health"]))


def test_collector_down_and_back(tracing, gateway):
    """A collector that is not there changes nothing for the application, and is one line in the log."""
    t = tracing()
    dead = services.free_port()
    agent = t.start(pids=[gateway.pid], env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{dead}",
                                             "SPANLOOM_SHUTDOWN_TIMEOUT": 500})
    for n in range(5):
        c = load.Connection(port=gateway.port)
        assert c.request(f"/items/{n}").status == 200
        c.close()
        time.sleep(0.3)
    begin = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - begin < 3
    assert agent.output().count(str(dead)) <= 3, agent.output()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_collector_that_never_reads(tracing, gateway, protocol):
    """More than its window takes, and nothing moves: the agent waits without work."""
    t = tracing(protocol)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
        agent = t.start(pids=[gateway.pid], env={"OTEL_EXPORTER_OTLP_ENDPOINT": dead, "SPANLOOM_SHUTDOWN_TIMEOUT": 500})
        load.run([f"/items/{n}" for n in range(1000)], port=gateway.port)
        time.sleep(1)
        before = services.cpu_seconds(agent.pid)
        time.sleep(2)
        assert services.cpu_seconds(agent.pid) - before < 0.2
        assert agent.stop() == 0


def test_span_reaches_the_collector_in_time(tracing, gateway):
    t = tracing()
    t.start(pids=[gateway.pid], env={"OTEL_BSP_SCHEDULE_DELAY": ""})
    c = load.Connection(port=gateway.port)
    for n in range(3):
        c.request(f"/items/{n}")
        begin = time.monotonic()
        t.receiver.wait_for(n + 1, 5)
        assert time.monotonic() - begin < 1.5
    c.close()
    t.finish()


def test_ready_in_time(tracing, gateway, collector):
    t = tracing()
    agent = t.start("--collector", collector, pids=[gateway.pid])
    t.finish()
    # The verifier goes through what reads interpreters once for each of the system calls.
    assert agent.ready_seconds < {"sock": 1, "syscall": 3}[collector], agent.ready_seconds


def test_keeps_up_when_the_client_is_http_10(tracing, gateway):
    t = tracing()
    t.start(pids=[gateway.pid])
    load.raw(gateway.port, b"GET /items/1 HTTP/1.0\r\n\r\n", until_close=True)
    c = http.client.HTTPConnection("127.0.0.1", gateway.port)
    c.request("GET", "/items/2", headers={"Connection": "close"})
    c.getresponse().read()
    (one, two) = sorted(servers(t.finish()), key=lambda s: s.path)
    assert (one.attrs["network.protocol.version"], two.attrs["network.protocol.version"]) == ("1.0", "1.1")
