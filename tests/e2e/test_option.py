"""The TCP option (--propagate=tcp): what links calls from sockets that block, where each end has an agent of its own, as on
two hosts. Also that connections carry every byte as before, whatever their segment size, and when segments get lost.
"""
import concurrent.futures
import ctypes
import hashlib
import socket
import struct
import tempfile
import threading

import chain
import pytest
import services
from chain import UNSTARVED

SO_ATTACH_FILTER = 26
BPF_LD_W_ABS, BPF_JMP_JGE_K, BPF_RET_K, SKF_AD_RANDOM = 0x20, 0x35, 0x06, 0xfffff000 + 56
PROGRAMS, CALLS = 4, 250  # each has four threads, see tests/apps/chain_client.py


def two_agents(tracing, callers, callees, *args):
    """Agents that know one end each: (of the callers, of the callees)."""
    here, there = tracing(), tracing("http/protobuf")
    here.start(*UNSTARVED, *args, pids=callers)
    there.start(*UNSTARVED, *args, pids=callees)
    return here, there


def all_go(programs):
    """Lets them run at the same time; what the callee received."""
    with concurrent.futures.ThreadPoolExecutor(len(programs)) as pool:
        return [call for calls in pool.map(lambda p: p.go(120), programs) for call in calls]


@pytest.mark.parametrize("way", ["requests", "http.client"])
def test_blocking_clients(tracing, stack, redis, way):
    """1,000 calls on kept connections, 16 at a time: the parent of each server span is the client's span of the same call."""
    callee = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    base = f"http://127.0.0.1:{callee.port}"
    programs = [chain.Program(stack, way, base, CALLS, f"{way}{n}") for n in range(PROGRAMS)]
    here, there = two_agents(tracing, [p.pid for p in programs], [callee.pid], "--propagate=tcp")
    calls = all_go(programs)
    spans = here.finish() + there.finish()
    verdict = chain.judge_client(spans, calls, callee.pids)
    assert not verdict.problems(), verdict.markdown()
    assert verdict.total("right", "joined") == PROGRAMS * CALLS, verdict.markdown() + here.agent.output()[-2000:]
    assert chain.figures(here.agent)["injected"] == PROGRAMS * CALLS
    assert not verdict.total("right", "header")


@pytest.mark.parametrize("propagate", ["tcp", "headers,tcp"])
@pytest.mark.parametrize("kind", ["gthread", "uvloop"])
def test_gateway(tracing, stack, redis, kind, propagate):
    """Calls that requests make, by whatever way their ids travel: none names another span, and few name none once the gateway
    is known."""
    agent = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    env = {"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"}
    app = stack.python_app("chain_flask", server=kind, env=env, workers=1) if kind == "gthread" else \
        stack.uvicorn("chain_gateway", env=env, loop=kind)
    here, there = two_agents(tracing, chain.family(app.pid), [agent.pid], f"--propagate={propagate}")
    warm = chain.run(app.port, chain.paths("warm", 120), 8)
    answers = chain.run(app.port, chain.paths("r", 400), 16)
    spans = here.finish() + there.finish()
    for some in (warm, answers):
        verdict = chain.judge(spans, some, agent.pids, redis=False)
        assert verdict.total("wrong") == verdict.total("missing") == 0, verdict.problems()
    calls = sum(len(a.calls) for a in answers)
    assert verdict.total("right", "joined") >= 0.98 * calls, verdict.markdown() + here.agent.output()[-2000:]


@pytest.mark.parametrize("sampler", ["always_off", "traceidratio"])
def test_sampling(tracing, stack, redis, sampler):
    """The decision goes along: what the caller's agent leaves out, the callee's agent leaves out as well."""
    callee = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    program = chain.Program(stack, "requests", f"http://127.0.0.1:{callee.port}", 200, sampler)
    here, there = tracing(), tracing("http/protobuf")
    here.start(*UNSTARVED, "--propagate=tcp", pids=[program.pid],
               env={"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.5"})
    there.start(*UNSTARVED, "--propagate=tcp", pids=[callee.pid])
    calls = program.go()
    clients, callees = chain.Seen(here.finish()).clients, chain.Seen(there.finish()).callees
    assert set(clients) == set(callees)
    assert not clients if sampler == "always_off" else 60 < len(clients) < 140
    for call in calls:
        for client, callee_span in zip(clients.get(call["id"], []), callees.get(call["id"], [])):
            assert chain.under(callee_span, client) == "right"


# --- what is carried -----------------------------------------------------------------------------------------------------

BULK = """
import hashlib, os, socket, sys, time
port, total, segment, after = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
print("waits", flush=True)
while not os.path.exists(after):
    time.sleep(0.05)
s = socket.socket()
if segment:
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
s.connect(("127.0.0.1", port))
block, sent = os.urandom(1 << 20), hashlib.sha256()
s.sendall(b"POST /b HTTP/1.1\\r\\nContent-Length: %d\\r\\n\\r\\n" % total)
for at in range(0, total, len(block)):
    piece = block[:total - at]
    s.sendall(piece)
    sent.update(piece)
answer = b""
while len(answer) < 64:
    answer += s.recv(64 - len(answer))
left = total
got = hashlib.sha256()
while left:
    piece = s.recv(min(left, 1 << 20))
    left -= len(piece)
    got.update(piece)
assert answer.decode() == sent.hexdigest(), "what was sent"
assert got.hexdigest() == sent.hexdigest(), "what came back"
"""


def random_loss(sock):
    """Throws away one in fifty of the segments that reach the socket."""
    code = b"".join(struct.pack("=HBBI", *op) for op in (
        (BPF_LD_W_ABS, 0, 0, SKF_AD_RANDOM), (BPF_JMP_JGE_K, 1, 0, 0xffffffff // 50),
        (BPF_RET_K, 0, 0, 0), (BPF_RET_K, 0, 0, 0xffffffff)))
    buffer = ctypes.create_string_buffer(code)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 4, ctypes.addressof(buffer)))


def serve_bulk(listener, total, found):
    """Takes the body, answers with its digest and then with the body itself; what went wrong is in `found`."""
    conn = listener.accept()[0]
    with conn, tempfile.TemporaryFile() as body:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += conn.recv(1)
        found.append(head)
        digest, left = hashlib.sha256(), total
        while left:
            piece = conn.recv(min(left, 1 << 20))
            if not piece:
                return
            left -= len(piece)
            digest.update(piece)
            body.write(piece)
        conn.sendall(digest.hexdigest().encode())
        body.seek(0)
        conn.sendfile(body)


@pytest.mark.parametrize("size,segment,loss", [(512 << 20, 0, False), (64 << 20, 536, False), (8 << 20, 88, False),
                                               (16 << 20, 1460, True)])
def test_bulk(tracing, stack, size, segment, loss):
    """A connection that sends options carries much both ways, byte by byte, and in time."""
    listener = socket.create_server(("127.0.0.1", 0))
    if loss:
        random_loss(listener)
    after = f"{stack.log_dir}/after-bulk-{size}"
    client = stack.start("bulk", [services.PYTHON, "-c", BULK, str(listener.getsockname()[1]), str(size), str(segment), after])
    client.wait_ready(lambda: "waits" in client.output())
    t = tracing()
    t.start(*UNSTARVED, "--propagate=tcp", pids=[client.pid])
    found = []
    server = threading.Thread(target=serve_bulk, args=(listener, size, found), daemon=True)
    server.start()
    open(after, "w").close()
    code = client.process.wait(120)
    server.join(10)
    assert code == 0, client.output()
    assert found[0].startswith(b"POST /b HTTP/1.1\r\nContent-Length: ") and b"traceparent" not in found[0]
    t.finish()
    assert chain.figures(t.agent)["injected"] == 1, t.agent.output()
