"""What every end-to-end test stands on: services of the session, a strict OTLP receiver and an agent of the test.

Owns: starting and stopping them. Refuses: to skip on the project's CI (CI=true makes a skip a failure).
Invariant: a test gets its spans only after the agent has ended, so none can be on its way.
"""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import services  # noqa: E402
from tracing import Tracing  # noqa: E402

COLLECTORS = ["sock", "syscall"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {call.excinfo.value if call.excinfo else ''}"
    return report


@pytest.fixture(scope="session")
def log_dir():
    folder = tempfile.mkdtemp(prefix="spanloom-e2e-")
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def needs():
    if not os.path.exists(services.SPANLOOM):
        pytest.skip("build/spanloom is not built")


@pytest.fixture(scope="session")
def root():
    if os.geteuid() != 0:
        pytest.skip("loading BPF programs needs root")


@pytest.fixture(scope="session")
def shared(log_dir):
    """For what lives as long as the session."""
    with services.Stack(log_dir) as stack:
        yield stack


@pytest.fixture
def stack(log_dir):
    """For what a test starts for itself."""
    with services.Stack(log_dir) as stack:
        yield stack


@pytest.fixture(scope="session")
def redis(shared):
    return shared.redis()


@pytest.fixture(scope="session")
def backend(shared, redis):
    """The agent service."""
    return shared.uvicorn("agent_service", env={"REDIS_PORT": redis.port})


@pytest.fixture(scope="session")
def callee(shared):
    """What the truth-carrying applications call."""
    return shared.truth_backend()


@pytest.fixture(scope="session")
def app_env(redis, backend):
    return {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{backend.port}"}


@pytest.fixture(scope="session")
def gateway(shared, app_env):
    return shared.uvicorn("gateway", env=app_env)


@pytest.fixture
def tracing(root, stack):
    """Makes a Tracing: tracing() over gRPC, tracing("http/protobuf") over HTTP."""
    made = []

    def make(protocol="grpc"):
        made.append(Tracing(stack, protocol))
        return made[-1]

    yield make
    for t in made:
        if t.agent and t.agent.alive():
            t.agent.stop()
        t.close()


@pytest.fixture(params=COLLECTORS)
def collector(request):
    return request.param
