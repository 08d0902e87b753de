"""The export side on its own: export_driver (the agent's queue and exporters in a small loop, built with sanitizers)
against a strict receiver that behaves, one that does not, and servers that are no collectors.

Every test asks the same of the driver: no call into the exporters blocks, every span ends in exactly one counter.
"""
import json
import os
import pty
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_receiver import OtlpReceiver

BUILD = os.environ.get("SPANLOOM_BUILD") or os.path.join(os.path.dirname(__file__), "..", "..", "build")
DRIVER = os.path.join(BUILD, "e2e", "export_driver")
# Longest time in one call. Nothing waits for 100 ms by accident, but two shared cores and ASan may take that long.
MAX_CALL_US = 250000
ENDS = ("exported", "queue_full", "export_failed", "export_rejected")

pytestmark = pytest.mark.skipif(not os.path.exists(DRIVER), reason="export_driver is not built")


class RawServer:
    """A TCP server that is no collector: mode "close", "hang", "rubbish", "endless" (HTTP/1 answer without end)."""

    def __init__(self, mode, port=0):
        self.mode, self.connections = mode, 0
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._stop = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self._stop.is_set():
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            if self.mode == "close":
                # RST, not FIN: the rudest way.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif self.mode == "hang":
                self._stop.wait(60)
            elif self.mode == "rubbish":
                client.recv(64)
                client.sendall(b"\x00\xff\x13\x37 no protocol at all\r\n\r\n")
            elif self.mode == "endless":
                client.recv(64)
                client.sendall(b"HTTP/1.1 200 OK\r\n")
                while not self._stop.is_set():
                    client.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        except OSError:
            pass
        finally:
            client.close()

    def stop(self):
        self._stop.set()
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


class Result:
    def __init__(self, process, output, log, stats):
        self.code, self.output, self.log, self.stats = process.returncode, output, log, stats

    def __getattr__(self, name):
        return self.stats[name]

    @property
    def lines(self):
        return [line for line in self.log.splitlines() if line]


def start(*args, stdout=subprocess.PIPE, env=None):
    stats = tempfile.NamedTemporaryFile(prefix="export-stats-", suffix=".json")
    command = [DRIVER, "--stats", stats.name, *map(str, args)]
    full_env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(env or {})}
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=full_env)
    process.stats_file = stats
    return process


def finish(process, timeout=60):
    output, log = process.communicate(timeout=timeout)
    log = log.decode(errors="replace")
    assert process.returncode == 0, log
    with process.stats_file as f:
        result = Result(process, output, log, json.load(open(f.name)))
    assert result.max_call_us < MAX_CALL_US
    return result


def drive(receiver, protocol, *args, **kw):
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    result = finish(start("--protocol", protocol, "--endpoint", endpoint, *args), **kw)
    assert sum(result.stats[name] for name in ENDS) == result.made, result.stats
    assert not receiver.errors
    return result


@pytest.fixture
def receiver():
    with OtlpReceiver() as r:
        yield r


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


@pytest.mark.parametrize("gzip", [False, True])
def test_everything_arrives(receiver, protocol, gzip):
    args = ["--gzip"] if gzip else []
    result = drive(receiver, protocol, "--spans", 3000, "--rounds", 2, "--every", 100, "--queue", 8000, "--services", 3,
                   "--odd", "--header", "x-team=traces", *args)
    spans = receiver.spans
    assert result.exported == len(spans) == 6000
    assert sorted(s.attributes["sequence"] for s in spans) == list(range(6000))
    assert {s.service for s in spans} == {"service-0", "service-1", "service-2"}
    assert all(r["headers"]["x-team"] == "traces" for r in receiver.requests)
    assert all(r["headers"]["user-agent"].startswith("spanloom/") for r in receiver.requests)
    assert 12 <= len(receiver.requests) <= 16
    size = sum(r["bytes"] for r in receiver.requests) / len(spans)
    if protocol == "http":
        assert size < 60 if gzip else size > 300
    assert not result.lines


def test_fields(receiver, protocol):
    drive(receiver, protocol, "--odd")
    root = next(s for s in receiver.spans if s.kind == "SERVER")
    failed = next(s for s in receiver.spans if s.status == "ERROR")
    assert root.name == "GET /\x1b]0;title\x07\ufffd" and root.parent_span_id == "" and root.flags == 0x101
    assert root.trace_state == "a=1" and root.dropped_attributes == 2
    assert failed.parent_span_id == root.span_id and failed.trace_id == root.trace_id
    assert failed.attributes["error.type"] == "connection_reset" and failed.status_message == ""
    assert failed.name == "PIPELINE" and failed.end - failed.start == 4_000_000
    assert root.attributes["odd.utf8"] == "\ufffd\ufffd ok \ufffd"
    assert root.attributes["odd.control"] == "\x1b[31mred\x07\0\n"
    assert root.attributes["odd.flag"] is True and root.attributes["http.response.status_code"] == 200
    assert root.resource == {"service.name": "service-0", "process.pid": 1}
    assert abs(root.end / 1e9 - time.time()) < 10
    assert (root.scope, bool(root.scope_version)) == ("spanloom", True)


def test_batches_by_delay_and_keeps_the_connection(receiver, protocol):
    drive(receiver, protocol, "--spans", 3, "--rounds", 4, "--every", 300, "--delay", 100, "--run", 1300)
    assert len(receiver.requests) == 4
    gaps = [b["time"] - a["time"] for a, b in zip(receiver.requests, receiver.requests[1:])]
    assert all(0.15 < gap < 0.6 for gap in gaps)
    if protocol == "http":  # gRPC without TLS opens one a batch on some versions of libcurl: see otlp_connect.c
        assert len({r["peer"] for r in receiver.requests}) == 1


def test_unavailable_for_a_while(receiver, protocol):
    receiver.behave("unavailable", times=2)
    result = drive(receiver, protocol, "--rounds", 3, "--every", 50, "--run", 2500)
    assert result.exported == 9
    assert len(result.lines) == 2, result.log
    assert "can't take spans now" in result.lines[0] and "takes spans again; 0 were lost" in result.lines[1]
    assert "\x1b" not in result.log


def test_down_then_up(protocol):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    path = "" if protocol == "grpc" else "/v1/traces"
    process = start("--protocol", protocol, "--endpoint", f"http://127.0.0.1:{port}{path}", "--rounds", 30, "--every", 100,
                    "--spans", 30, "--queue", 60, "--batch", 30, "--run", 6500)
    time.sleep(2)
    ports = {"grpc_port": port} if protocol == "grpc" else {"http_port": port}
    with OtlpReceiver(**ports) as receiver:
        result = finish(process)
        assert len(receiver.spans) == result.exported > 0 and not receiver.errors
    assert result.queue_full > 300 and result.exported + result.queue_full == 900
    assert len(result.lines) == 2, result.log
    assert f"no spans get through to http://127.0.0.1:{port}" in result.lines[0] and "Connection refused" in result.lines[0]
    assert f"takes spans again; {result.queue_full} were lost" in result.lines[1]


def test_down_for_ever(protocol):
    result = finish(start("--protocol", protocol, "--endpoint", "http://127.0.0.1:1/v1/traces", "--rounds", 20, "--every",
                          100, "--export-timeout", 700, "--queue", 6, "--run", 2500, "--flush", 5000))
    assert result.exported == 0 and result.export_failed >= 6 and result.export_failed + result.queue_full == 60
    assert len(result.lines) == 1, result.log
    assert result.took_ms < 4000  # the flush gives up soon


@pytest.mark.parametrize("mode", ["close", "hang", "rubbish", "endless"])
def test_no_collector_at_all(protocol, mode):
    with RawServer(mode) as server:
        result = finish(start("--protocol", protocol, "--endpoint", f"http://127.0.0.1:{server.port}/v1/traces", "--timeout",
                              300, "--export-timeout", 900, "--rounds", 3, "--every", 100, "--run", 1600, "--flush", 3000))
        assert server.connections >= 2
    assert result.exported == 0 and result.export_failed + result.export_rejected == 9
    assert 1 <= len(result.lines) <= 2, result.log


@pytest.mark.parametrize("after", [2, "date"])
def test_retry_after(receiver, after):
    receiver.behave("too_many", times=1, retry_after=after)
    result = drive(receiver, "http", "--run", 3000)
    assert result.exported == 3
    first, second = receiver.requests
    assert (0.9 if after == "date" else 1.9) < second["time"] - first["time"] < 3


def test_resource_exhausted_with_retry_info(receiver):
    receiver.behave("exhausted", times=1, retry_after=1.5)
    result = drive(receiver, "grpc", "--run", 2500)
    first, second = receiver.requests
    assert result.exported == 3 and 1.4 < second["time"] - first["time"] < 2.5


def test_resource_exhausted_without_retry_info(receiver):
    receiver.behave("exhausted", times=1)
    result = drive(receiver, "grpc", "--run", 1500)
    assert result.export_rejected == 3 and len(receiver.requests) == 1
    assert "RESOURCE_EXHAUSTED (8): full" in result.log


@pytest.mark.parametrize("code", [1, 4, 10, 11, 14, 15])
def test_grpc_codes_that_are_retried(receiver, code):
    receiver.behave("refuse", times=1, status=code, message="later")
    assert drive(receiver, "grpc", "--run", 800).exported == 3


@pytest.mark.parametrize("code", [2, 3, 5, 7, 12, 13, 16])
def test_grpc_codes_that_are_final(receiver, code):
    receiver.behave("refuse", times=1, status=code, message="50% no\n")
    result = drive(receiver, "grpc", "--run", 300)
    assert result.export_rejected == 3 and len(receiver.requests) == 1
    assert "50% no?" in result.log and len(result.lines) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_http_codes_that_are_retried(receiver, status):
    receiver.behave("refuse", times=1, status=status)
    assert drive(receiver, "http", "--run", 800).exported == 3


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 500, 501])
def test_http_codes_that_are_final(receiver, status):
    receiver.behave("refuse", times=1, status=status)
    result = drive(receiver, "http", "--run", 300)
    assert result.export_rejected == 3 and len(receiver.requests) == 1
    assert f"HTTP {status}: no?[31m" in result.log and len(result.lines) == 1


def test_partial_success(receiver, protocol):
    receiver.behave("partial", rejected=1, message="one too old\n")
    result = drive(receiver, protocol, "--rounds", 5, "--every", 200)
    assert result.exported == 10 and result.export_rejected == 5 and len(receiver.requests) == 5
    assert len(result.lines) == 1 and "rejected 1 spans of a batch: one too old?" in result.log


def test_rubbish_for_success(receiver, protocol):
    receiver.behave("rubbish")
    result = drive(receiver, protocol, "--rounds", 2, "--every", 200)
    assert result.export_rejected == 6 and len(result.lines) == 1 and "refuses spans" in result.log


def test_slow(receiver, protocol):
    receiver.behave("slow", seconds=0.5)
    result = drive(receiver, protocol, "--rounds", 5, "--every", 200, "--flush", 6000)
    assert result.exported == 15 and not result.lines


def test_never_answers(receiver, protocol):
    receiver.behave("hang", times=1, seconds=30)
    result = drive(receiver, protocol, "--timeout", 500, "--run", 1500)
    assert result.exported == 3 and len(receiver.requests) == 2
    assert len(result.lines) == 2 and "no spans get through" in result.lines[0]


def test_endless_answer(receiver, protocol):
    receiver.behave("endless", times=1)
    result = drive(receiver, protocol, "--run", 1000)
    assert result.export_rejected == 3 and "does not end" in result.log


def test_flush_within_its_time(receiver, protocol):
    receiver.behave("hang", seconds=5)
    result = drive(receiver, protocol, "--spans", 300, "--flush", 700)
    assert 600 < result.took_ms < 1500 and result.export_failed == 300
    assert "300 spans had not reached the collector" in result.log


def test_flush_of_much(receiver, protocol):
    result = drive(receiver, protocol, "--spans", 5000, "--queue", 6000, "--delay", 60000, "--flush", 5000)
    assert result.exported == 5000


# --- TLS ---


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA, a server and a client certificate, and a second CA that knows neither."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    def authority(name):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout",
                f"{name}.key", "-out", f"{name}.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def leaf(name, extension):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(extension)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    authority("ca")
    authority("other")
    leaf("server", "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    leaf("client", "extendedKeyUsage=clientAuth\n")
    return folder


@pytest.fixture
def tls_receiver(pki):
    with OtlpReceiver(tls=tuple((pki / n).read_bytes() for n in ("server.pem", "server.key", "ca.pem"))) as r:
        yield r


def test_tls_with_client_certificate(tls_receiver, pki, protocol):
    result = drive(tls_receiver, protocol, "--rounds", 3, "--every", 200, "--ca", pki / "ca.pem", "--key", pki / "client.key",
                   "--cert", pki / "client.pem")
    assert result.exported == 9 and not result.lines
    assert len({r["peer"] for r in tls_receiver.requests}) == 1


@pytest.mark.parametrize("ca, cert", [("ca.pem", None), ("other.pem", "client"), (None, "client")])
def test_tls_refused(tls_receiver, pki, protocol, ca, cert):
    args = ["--ca", pki / ca] if ca else []
    args += ["--key", pki / f"{cert}.key", "--cert", pki / f"{cert}.pem"] if cert else []
    result = drive(tls_receiver, protocol, *args, "--export-timeout", 500, "--run", 1000)
    assert result.export_failed == 3 and not tls_receiver.spans
    assert len(result.lines) == 1 and "no spans get through to https://127.0.0.1" in result.log


@pytest.mark.parametrize("args, said", [
    (["--endpoint", "ftp://localhost/"], "is not a URL that spans can be sent to"),
    (["--endpoint", "localhost"], None),
    (["--endpoint", "http://"], "is not a URL"),
    (["--endpoint", "https://localhost", "--ca", "/nonexistent.pem"], "OTEL_EXPORTER_OTLP_CERTIFICATE: /nonexistent.pem"),
    (["--endpoint", "http://localhost", "--header", "a b=c"], "OTEL_EXPORTER_OTLP_HEADERS"),
    (["--endpoint", "http://localhost", "--header", "a=b\r\nc: d"], "OTEL_EXPORTER_OTLP_HEADERS"),
    (["--file", "/nonexistent/spans.json"], "/nonexistent/spans.json"),
])
def test_bad_options_are_said(args, said):
    process = start(*args, "--flush", 100)
    _, log = process.communicate(timeout=20)
    assert process.returncode == (1 if said else process.returncode)
    assert not said or said in log.decode()


# --- file and console ---


def test_file_is_otlp_json(tmp_path):
    path = tmp_path / "spans.json"
    finish(start("--file", path, "--odd", "--services", 2, "--rounds", 2, "--every", 200))
    result = finish(start("--file", path, "--spans", 3))
    assert result.file_failed == 0
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    names = []
    for line in lines:
        # The official classes read ids as base64; OTLP/JSON has them as hex.
        text = re.sub(r'"((?:trace|span|parentSpan)Id)":"([0-9a-f]+)"',
                      lambda m: f'"{m[1]}":"{json_format.base64.b64encode(bytes.fromhex(m[2])).decode()}"', line)
        request = json_format.Parse(text, ExportTraceServiceRequest())
        spans = [s for rs in request.resource_spans for ss in rs.scope_spans for s in ss.spans]
        assert len(spans) == 3 and {len(s.trace_id) for s in spans} == {16}
        assert sum(s.kind == 2 for s in spans) == 1 and sum(s.status.code == 2 for s in spans) == 1
        names += [s.name for s in spans]
    assert names.count("GET /\x1b]0;title\x07\ufffd") == 2


def test_file_that_cannot_be_written():
    result = finish(start("--file", "/dev/full", "--rounds", 3, "--every", 150))
    assert result.file_failed == 9 and len(result.lines) == 1 and "No space left" in result.log


def test_console_json():
    result = finish(start("--console", "json", "--odd"))
    spans = [json.loads(line) for line in result.output.decode().splitlines()]
    assert len(spans) == 3
    root = next(s for s in spans if s["kind"] == "SERVER")
    assert root["name"] == "GET /\x1b]0;title\x07\ufffd" and "parentSpanId" not in root
    assert root["attributes"]["http.response.status_code"] == 200 and root["status"] == {"code": "UNSET"}
    assert root["resource"]["service.name"] == "service-0" and len(root["traceId"]) == 32
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", result.output)


def test_console_tree_plain():
    result = finish(start("--console", "tree", "--spans", 7, "--odd", "--services", 2, "--run", 600))
    text = result.output.decode()
    traces = text.strip().split("\n\n")
    assert len(traces) == 3 and result.console_busy == 0
    head, root, child, failed = traces[0].splitlines()
    assert re.fullmatch(r"trace [0-9a-f]{32} · 3 spans · [\d.]+ ms · 1 error", head)
    assert re.match(r"service-\d  GET /\\x1b\]0;title\\x07\ufffd +━+ +20\.[0-9] ms  200$", root)
    assert re.match(r"service-\d  ├─ GET +━+ +4\.00 ms  200$", child)
    assert re.match(r"service-\d  └─ PIPELINE +━+ +4\.00 ms  error connection_reset$", failed)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("env, coloured", [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)])
def test_console_tree_on_a_terminal(env, coloured):
    master, slave = pty.openpty()
    import fcntl
    import termios
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 72, 0, 0))
    process = start("--console", "tree", "--run", 500, stdout=slave, env=env)
    os.close(slave)
    text = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        text += data
    finish(process)
    os.close(master)
    text = text.decode()
    assert ("\x1b[31m" in text) == coloured
    plain = re.sub(r"\x1b\[\d+m", "", text)
    assert "└─ PIPELINE" in plain and "\x1b" not in plain
    assert all(len(line) <= 72 for line in plain.splitlines())


@pytest.mark.parametrize("mode", ["tree", "json"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_console_that_nobody_reads(mode, kind):
    if kind == "pipe":
        reader, writer = os.pipe()
    elif kind == "socket":
        a, b = socket.socketpair()
        reader, writer = a.detach(), b.detach()
    else:
        reader, writer = pty.openpty()
    process = start("--console", mode, "--spans", 3000, "--rounds", 8, "--every", 50, "--run", 500, "--flush", 300,
                    stdout=writer)
    os.close(writer)
    result = finish(process)
    os.close(reader)
    assert result.console_busy > 0 and result.took_ms < 5000


def test_console_whose_reader_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    process = start("--console", "json", "--rounds", 5, "--every", 100, stdout=writer)
    os.close(writer)
    result = finish(process)
    assert result.console_busy >= 9 and len(result.lines) == 1 and "nobody reads" in result.log


def test_all_at_once(receiver, tmp_path):
    """One exporter that fails takes nothing from the others."""
    receiver.behave("unavailable")
    path = tmp_path / "spans.json"
    result = finish(start("--endpoint", receiver.grpc_endpoint, "--protocol", "grpc", "--file", path, "--console", "json",
                          "--rounds", 4, "--every", 150, "--flush", 500))
    assert len(result.output.splitlines()) == 12 and len(path.read_text().splitlines()) == 4
    assert result.exported == 0
