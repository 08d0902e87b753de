"""A strict OTLP trace receiver for the tests, on loopback: gRPC and HTTP/protobuf.

Messages are kept as bytes when they arrive and decoded and checked when somebody looks, so that bursts cost little.
Whatever is wrong with them ends up in `.errors`. It can be told to misbehave. As a program:

    otlp_receiver.py [--grpc-port N] [--http-port N] [--out spans.jsonl]

prints one JSON line with its ports, appends spans as JSON lines, and exits 1 on SIGTERM or SIGINT when there were errors.
"""
import argparse
import dataclasses
import email.utils
import gzip
import http.server
import json
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
EPOCH_2020_NS = 1577836800 * 10**9
KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}


@dataclasses.dataclass
class Span:
    """One span, ids as lower-case hex, times in Unix ns."""

    trace_id: str
    span_id: str
    parent_span_id: str  # "" for none
    name: str
    kind: str
    start: int
    end: int
    attributes: dict
    status: str
    status_message: str
    flags: int
    trace_state: str
    dropped_attributes: int
    service: str
    resource: dict
    scope: str
    scope_version: str
    protocol: str  # "grpc" or "http"
    received: float  # time.time() of the message


@dataclasses.dataclass
class Behaviour:
    """What to do with a request: see OtlpReceiver.behave."""

    kind: str
    seconds: float = 0
    retry_after: object = None
    rejected: int = 0
    message: str = ""
    status: int = 0


def _varint(n):
    out = b""
    while True:
        out, n = out + bytes([n & 0x7F | (0x80 if n > 0x7F else 0)]), n >> 7
        if not n:
            return out


def _field(number, data):
    if isinstance(data, int):
        return _varint(number << 3) + _varint(data)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def rpc_status(code, message, retry_seconds=None):
    """google.rpc.Status, with a RetryInfo when there is a delay."""
    out = _field(1, code) + _field(2, message.encode())
    if retry_seconds is not None:
        whole = int(retry_seconds)
        duration = _field(1, whole) + _field(2, int((retry_seconds - whole) * 1e9))
        info = _field(1, b"type.googleapis.com/google.rpc.RetryInfo") + _field(2, _field(1, duration))
        out += _field(3, info)
    return out


def _any_value(value):
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_any_value(v) for v in value.array_value.values]
    if which == "kvlist_value":
        return {kv.key: _any_value(kv.value) for kv in value.kvlist_value.values}
    return getattr(value, which)


def _unknown_fields(message, path):
    found = [f"{path}: unknown field {f.field_number}" for f in UnknownFieldSet(message)]
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for item in [value] if hasattr(value, "ListFields") else value:
            found += _unknown_fields(item, f"{path}.{descriptor.name}")
    return found


class OtlpReceiver:
    """Starts on construction; use as a context manager or call close().

    tls: (certificate PEM, key PEM, client CA PEM or None) as bytes; clients must show a certificate when there is a CA.
    """

    def __init__(self, grpc_port=0, http_port=0, host="127.0.0.1", tls=None, unique=True):
        self.requests = []  # dicts: protocol, headers, bytes, peer, time
        self._unique = unique
        self._lock = threading.Lock()
        self._pending = []  # (protocol, raw bytes, time)
        self._spans, self._errors, self._seen = [], [], set()
        self._behaviours, self._default = [], Behaviour("ok")
        self._stop = threading.Event()
        self._start_grpc(host, grpc_port, tls)
        self._start_http(host, http_port, tls)
        scheme = "https" if tls else "http"
        self.grpc_endpoint = f"{scheme}://{host}:{self.grpc_port}"
        self.http_endpoint = f"{scheme}://{host}:{self.http_port}/v1/traces"

    # --- for tests ---

    @property
    def spans(self):
        """All spans so far, in the order of arrival."""
        self._drain()
        return list(self._spans)

    @property
    def errors(self):
        """What was wrong with what came, as text."""
        self._drain()
        return list(self._errors)

    def wait_for(self, count, timeout=10.0):
        """The spans, once there are at least `count`; AssertionError after `timeout` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self._drain()
            if len(self._spans) >= count:
                return self.spans
            time.sleep(0.02)
        raise AssertionError(f"{len(self._spans)} of {count} spans after {timeout} s; errors: {self._errors[:3]}")

    def clear(self):
        self._drain()
        with self._lock:
            self._spans, self._errors, self._seen = [], [], set()
            self.requests.clear()

    def behave(self, kind, times=None, **details):
        """For the next `times` requests (None: all from now on) do as `kind` says:

        ok; slow(seconds): ok, later; unavailable: 503 / UNAVAILABLE; too_many(retry_after=seconds or "date"): 429;
        exhausted(retry_after=seconds or None): RESOURCE_EXHAUSTED with or without RetryInfo; refuse(status, message): that HTTP
        or gRPC status; partial(rejected, message); rubbish: success with a body that is none; hang(seconds): no answer;
        close: ends the connection without one; endless: an answer that does not end. Spans count only when accepted.
        """
        behaviour = Behaviour(kind, **details)
        with self._lock:
            if times is None:
                self._behaviours, self._default = [], behaviour
            else:
                self._behaviours += [behaviour] * times

    def close(self):
        self._stop.set()
        self._grpc.stop(0)
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # --- receiving ---

    def _next_behaviour(self):
        with self._lock:
            return self._behaviours.pop(0) if self._behaviours else self._default

    def _accept(self, protocol, raw):
        with self._lock:
            self._pending.append((protocol, raw, time.time()))

    def _note_request(self, protocol, headers, size, peer):
        self.requests.append({"protocol": protocol, "headers": headers, "bytes": size, "peer": peer, "time": time.time()})

    def _error(self, text):
        with self._lock:
            self._errors.append(text)

    def _start_grpc(self, host, port, tls):
        receiver = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, call):
                if call.method != f"/{SERVICE}/Export":
                    receiver._error(f"grpc: method {call.method}")
                    return None
                # A stream with one message looks the same on the wire, and can be made to go on for ever.
                return grpc.unary_stream_rpc_method_handler(receiver._grpc_export)

        options = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        self._grpc = grpc.server(futures.ThreadPoolExecutor(8), options=options)
        self._grpc.add_generic_rpc_handlers((Handler(),))
        if tls:
            creds = grpc.ssl_server_credentials([(tls[1], tls[0])], tls[2], tls[2] is not None)
            self.grpc_port = self._grpc.add_secure_port(f"{host}:{port}", creds)
        else:
            self.grpc_port = self._grpc.add_insecure_port(f"{host}:{port}")
        self._grpc.start()

    def _grpc_export(self, raw, context):
        b = self._next_behaviour()
        headers = {k: v for k, v in context.invocation_metadata()}
        self._note_request("grpc", headers, len(raw), context.peer())
        if "user-agent" not in headers:
            self._error("grpc: no user-agent")
        if b.kind in ("slow", "hang"):
            self._stop.wait(b.seconds or 60)
        if b.kind in ("unavailable", "hang", "close"):
            context.abort(grpc.StatusCode.UNAVAILABLE, b.message or "not now, 100% of the time\n")
        if b.kind in ("exhausted", "too_many"):
            status = rpc_status(8, "full", b.retry_after)
            context.set_trailing_metadata((("grpc-status-details-bin", status),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        if b.kind == "refuse":
            code = next(c for c in grpc.StatusCode if c.value[0] == b.status)
            context.abort(code, b.message)
        if b.kind == "rubbish":
            yield b"<html>this is no collector</html>"
            return
        while b.kind == "endless" and context.is_active() and not self._stop.is_set():
            yield bytes(4096)
        self._accept("grpc", raw)
        yield self._response(b)

    def _response(self, b):
        response = ExportTraceServiceResponse()
        if b.kind == "partial":
            response.partial_success.rejected_spans = b.rejected
            response.partial_success.error_message = b.message
        return response.SerializeToString()

    def _start_http(self, host, port, tls):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one segment, else Nagle and delayed ACKs add 40 ms

            def do_POST(self):
                receiver._http_export(self)

            def do_GET(self):
                receiver._error(f"http: {self.command} {self.path}")
                self.send_error(405)

            def log_message(self, *unused):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, address):
                pass  # clients that are cut off are part of the tests

        self._http = Server((host, port), Handler)
        self.http_port = self._http.server_address[1]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _load_tls(context, tls)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def _http_export(self, handler):
        raw = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {k.lower(): v for k, v in handler.headers.items()}
        self._note_request("http", headers, len(raw), handler.client_address)
        if handler.path != "/v1/traces":
            self._error(f"http: path {handler.path}")
        if headers.get("content-type") != "application/x-protobuf":
            self._error(f"http: content-type {headers.get('content-type')}")
        if "user-agent" not in headers or "content-length" not in headers:
            self._error("http: no user-agent or content-length")
        if headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        b = self._next_behaviour()
        if b.kind in ("slow", "hang"):
            self._stop.wait(b.seconds or 60)
        if b.kind in ("close", "hang"):
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif b.kind in ("unavailable", "too_many", "exhausted", "refuse"):
            self._http_failure(handler, b)
        elif b.kind == "rubbish":
            self._http_answer(handler, 200, b"<html>this is no collector</html>", "text/html")
        elif b.kind == "endless":
            self._http_endless(handler)
        else:
            self._accept("http", raw)
            self._http_answer(handler, 200, self._response(b))

    def _http_failure(self, handler, b):
        status = b.status or {"unavailable": 503}.get(b.kind, 429)
        after = b.retry_after
        if after == "date":
            after = email.utils.formatdate(time.time() + 2, usegmt=True)
        extra = [("Retry-After", str(after))] if after is not None else []
        self._http_answer(handler, status, rpc_status(0, b.message or "no\x1b[31m"), extra=extra)

    @staticmethod
    def _http_answer(handler, status, body, kind="application/x-protobuf", extra=()):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in extra:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()

    def _http_endless(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-protobuf")
        handler.end_headers()
        while not self._stop.is_set():
            handler.wfile.write(bytes(65536))

    # --- checking ---

    def _drain(self):
        with self._lock:
            pending, self._pending = self._pending, []
            for protocol, raw, received in pending:
                try:
                    self._errors += self._decode(protocol, raw, received)
                except DecodeError as e:
                    self._errors.append(f"{protocol}: not protobuf: {e}")

    def _decode(self, protocol, raw, received):
        message = ExportTraceServiceRequest()
        message.ParseFromString(raw)
        errors = []
        known = ExportTraceServiceRequest()
        known.CopyFrom(message)
        known.DiscardUnknownFields()
        if known.ByteSize() != len(raw):
            errors += _unknown_fields(message, "request") or [f"{protocol}: {len(raw)} bytes for {known.ByteSize()}"]
        count = 0
        for rs in message.resource_spans:
            resource = self._attributes(rs.resource.attributes, "resource", errors)
            if not resource.get("service.name"):
                errors.append(f"resource without service.name: {resource}")
            for ss in rs.scope_spans:
                for span in ss.spans:
                    count += 1
                    self._spans.append(self._span(span, ss.scope, resource, protocol, received, errors))
        if not count:
            errors.append(f"{protocol}: an empty request")
        return errors

    @staticmethod
    def _attributes(pairs, where, errors):
        out = {}
        for kv in pairs:
            if not kv.key or kv.key in out:
                errors.append(f"{where}: key {kv.key!r} empty or twice")
            out[kv.key] = _any_value(kv.value)
            if out[kv.key] is None:
                errors.append(f"{where}: no value for {kv.key}")
        return out

    def _span(self, s, scope, resource, protocol, received, errors):
        where = f"span {s.name!r} of {resource.get('service.name')}"
        if len(s.trace_id) != 16 or not any(s.trace_id):
            errors.append(f"{where}: trace id {s.trace_id.hex()!r}")
        if len(s.span_id) != 8 or not any(s.span_id):
            errors.append(f"{where}: span id {s.span_id.hex()!r}")
        if s.parent_span_id and (len(s.parent_span_id) != 8 or not any(s.parent_span_id)):
            errors.append(f"{where}: parent {s.parent_span_id.hex()!r}")
        if s.parent_span_id == s.span_id:
            errors.append(f"{where}: its own parent")
        if s.kind not in KINDS:
            errors.append(f"{where}: kind {s.kind}")
        if s.status.code not in STATUSES:
            errors.append(f"{where}: status {s.status.code}")
        if not s.name:
            errors.append(f"{where}: no name")
        start, end = s.start_time_unix_nano, s.end_time_unix_nano
        if not EPOCH_2020_NS < start <= end <= (received + 5) * 1e9:
            errors.append(f"{where}: from {start} to {end}, received {received}")
        if not scope.name:
            errors.append(f"{where}: no scope")
        key = (s.trace_id, s.span_id)
        if self._unique and key in self._seen:
            errors.append(f"{where}: received twice: {s.trace_id.hex()} {s.span_id.hex()}")
        self._seen.add(key)
        return Span(
            s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), s.name, KINDS.get(s.kind, str(s.kind)), start, end,
            self._attributes(s.attributes, where, errors), STATUSES.get(s.status.code, str(s.status.code)),
            s.status.message, s.flags, s.trace_state, s.dropped_attributes_count, resource.get("service.name", ""), resource,
            scope.name, scope.version, protocol, received,
        )


def _load_tls(context, tls):
    with tempfile.TemporaryDirectory() as folder:
        for name, data in zip(("cert", "key", "ca"), tls):
            if data:
                with open(os.path.join(folder, name), "wb") as f:
                    f.write(data)
        context.load_cert_chain(os.path.join(folder, "cert"), os.path.join(folder, "key"))
        if tls[2]:
            context.load_verify_locations(os.path.join(folder, "ca"))
            context.verify_mode = ssl.CERT_REQUIRED


def main():
    parser = argparse.ArgumentParser(description="A strict OTLP trace receiver on loopback.")
    parser.add_argument("--grpc-port", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--out", help="append the spans here, a JSON object a line")
    args = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *unused: done.set())
    with OtlpReceiver(args.grpc_port, args.http_port) as receiver:
        print(json.dumps({"grpc": receiver.grpc_port, "http": receiver.http_port}), flush=True)
        shown = errors = 0
        while True:
            last = done.wait(0.2)
            spans, found = receiver.spans, receiver.errors
            if args.out:
                with open(args.out, "a", encoding="utf-8") as out:
                    for span in spans[shown:]:
                        out.write(json.dumps(dataclasses.asdict(span)) + "\n")
            for text in found[errors:]:
                print(text, file=sys.stderr, flush=True)
            shown, errors = len(spans), len(found)
            if last:
                return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
