"""What becomes of each kind of trace context that comes with a request: which span, and what the request's own call then
carries. Row by row against W3C Trace Context (level 1, and level 2's flag `random`). As a program it prints the table:

    sudo build/venv/bin/python tests/e2e/test_w3c.py

Owns: the rows. Invariant: whatever came, the header that the callee received names a span of the trace that the request's
server span is in, or nothing was sent.
"""
import os
import sys
import tempfile
from dataclasses import dataclass

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import chain  # noqa: E402
import services  # noqa: E402
from tracing import Tracing  # noqa: E402

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "11112222333344445555666677778888"
VALID = f"00-{TRACE}-{PARENT}-01"
HEAD_SEEN = 8192  # the kernel side looks no further
CUTS = tuple(range(1, 400))  # at every byte
WARM = 150

TAKEN, NEW, EITHER = "taken", "new trace", "taken or new"


@dataclass
class Row:
    name: str
    lines: tuple  # header lines as they are sent
    expect: str = TAKEN
    sampled: bool = True
    cuts: tuple = ()
    filler: int = 0  # bytes of headers in front of them
    random: bool = False  # level 2's flag came as well
    route: str = "call"
    beyond: bool = False  # more than the kernel side looks at: the call may go out without a header


def one(name, value, expect=TAKEN, sampled=True, **how):
    return Row(name, (f"traceparent: {value}",), expect, sampled, **how)


def rows():
    found = [
        Row("none", (), NEW),
        one("version 00, flags 01", VALID),
        Row("name in upper case", (f"TRACEPARENT: {VALID}",)),
        Row("name in mixed case", (f"TraceParent: {VALID}",)),
        one("trace id in upper case", f"00-{TRACE.upper()}-{PARENT}-01", NEW),
        one("parent id in upper case", f"00-{TRACE}-{PARENT.upper()}-01", NEW),
        one("not hexadecimal", f"00-{TRACE[:-1]}g-{PARENT}-01", NEW),
        one("version 01", f"01-{TRACE}-{PARENT}-01"),
        one("version 01, more fields", f"01-{TRACE}-{PARENT}-01-what-the-future-will-be-like"),
        one("version cc", f"cc-{TRACE}-{PARENT}-01"),
        one("version cc, more fields", f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like"),
        one("version cc, more without '-'", f"cc-{TRACE}-{PARENT}-01.what", NEW),
        one("version fe", f"fe-{TRACE}-{PARENT}-01"),
        one("version ff", f"ff-{TRACE}-{PARENT}-01", NEW),
        one("version CC", f"CC-{TRACE}-{PARENT}-01", NEW),
        one("version 00, more fields", f"00-{TRACE}-{PARENT}-01-what", NEW),
        one("version 00, a '-' more", f"00-{TRACE}-{PARENT}-01-", NEW),
        one("version of one digit", f"0-{TRACE}-{PARENT}-01", NEW),
        one("too short: a digit of the flags missing", VALID[:-1], NEW),
        one("too short: no flags", f"00-{TRACE}-{PARENT}", NEW),
        one("too short: half a trace id", f"00-{TRACE[:16]}-{PARENT}-01", NEW),
        one("too long: a digit more in the trace id", f"00-{TRACE}0-{PARENT}-01", NEW),
        one("too long: a digit more in the parent id", f"00-{TRACE}-{PARENT}0-01", NEW),
        one("too long: a digit more in the flags", f"{VALID}0", NEW),
        one("other separators", VALID.replace("-", "_"), NEW),
        one("empty", "", NEW),
        one("trace id of zeros", f"00-{'0' * 32}-{PARENT}-01", NEW),
        one("parent id of zeros", f"00-{TRACE}-{'0' * 16}-01", NEW),
        one("flags 00", f"00-{TRACE}-{PARENT}-00", sampled=False),
        one("flags 02", f"00-{TRACE}-{PARENT}-02", sampled=False, random=True),
        one("flags 03", f"00-{TRACE}-{PARENT}-03", random=True),
        one("flags ff", f"00-{TRACE}-{PARENT}-ff", random=True),
        one("flags fe", f"00-{TRACE}-{PARENT}-fe", sampled=False, random=True),
        one("flags .0", f"00-{TRACE}-{PARENT}-.0", NEW),
        Row("two headers, different", (f"traceparent: {VALID}", f"traceparent: 00-{OTHER}-{PARENT}-01"), NEW),
        Row("two headers, the second malformed", (f"traceparent: {VALID}", "traceparent: x"), NEW),
        Row("two headers, the same, names in different case", (f"traceparent: {VALID}", f"TRACEPARENT: {VALID}"), EITHER),
        Row("two headers, different, names in different case", (f"TraceParent: {VALID}", f"traceparent: 00-{OTHER}-{PARENT}-01"),
            NEW),
        Row("no space in front", (f"traceparent:{VALID}",)),
        Row("spaces around", (f"traceparent:   {VALID}   ",)),
        Row("tabs around", (f"traceparent:\t{VALID}\t",)),
        Row("spaces and tabs around", (f"traceparent: \t {VALID} \t ",)),
        one("a space within", f"00-{TRACE} -{PARENT}-01", NEW),
        one("two values with a comma", f"{VALID},{VALID}", NEW),
        Row("another header's name ends so", (f"x-traceparent: {VALID}",), NEW),
        Row("another header's name begins so", (f"traceparent2: {VALID}",), NEW),
        Row("trace-parent", (f"trace-parent: {VALID}",), NEW),
        Row("in another header's value", (f"x-note: traceparent: {VALID}",), NEW),
        Row("with tracestate", (f"traceparent: {VALID}", "tracestate: vendor=value,other=1")),
        Row("tracestate in front", ("tracestate: vendor=value", f"traceparent: {VALID}")),
        Row("tracestate alone", ("tracestate: vendor=value",), NEW),
        Row("malformed, with tracestate", (f"traceparent: ff-{TRACE}-{PARENT}-01", "tracestate: vendor=value"), NEW),
        one("at the end of nearly 8 KB", VALID, filler=HEAD_SEEN - 260),
        one("beyond 8 KB", VALID, EITHER, filler=HEAD_SEEN + 500, beyond=True),
        one("handed on by the service", VALID, route="forward"),
        Row("handed on by the service, with tracestate", (f"traceparent: {VALID}", "tracestate: vendor=value"), route="forward"),
        one("head sent byte by byte", VALID, cuts=CUTS),
    ]
    request = head(found[1], "x", 0)
    name, value, end = request.index(b"traceparent"), request.index(VALID.encode()), request.index(b"\r\n\r\n")
    for what, cut in (("within the method", 2), ("in front of the name", name), ("within the name", name + 5),
                      ("behind the name", name + 11), ("behind the colon", name + 12), ("in front of the value", value),
                      ("within the trace id", value + 20), ("within the flags", value + 54), ("behind the value", value + 55),
                      ("within CRLF", value + 56), ("in front of the end", end), ("within the end", end + 2),
                      ("in front of the last byte", end + 3)):
        found.append(one(f"head cut {what}", VALID, cuts=(cut,)))
    found.append(one("head cut in many places", VALID, cuts=(2, name + 3, value + 1, value + 30, end + 3)))
    return found


def head(row, tag, n):
    """The request's bytes."""
    lines, left = [f"GET /{row.route}/{tag}{n} HTTP/1.1", "Host: localhost"], row.filler
    while left > 0:
        lines.append(f"X-Filler-{left}: " + "f" * min(left, 500))
        left -= len(lines[-1]) + 2
    return "\r\n".join([*lines, *row.lines, "Accept: */*", "", ""]).encode("latin-1")


@dataclass
class Result:
    row: Row
    request: object  # its server span, None: there is none
    client: object
    callee: object
    received: list  # traceparents
    tracestate: list
    state: str  # what the server span says of it

    @property
    def outgoing(self):
        """(trace id, span id, flags) of the one header that was received, or None."""
        m = chain.TRACEPARENT.fullmatch(self.received[0]) if self.received else None
        return m and (m[1], m[2], int(m[3], 16))

    def problems(self):
        return [text for check in (self._span, self._whole, self._header) for text in check()]

    def _span(self):
        row, request = self.row, self.request
        if not row.sampled:
            return [f"a {what} span of an unsampled request" for what in ("request", "client", "callee") if getattr(self, what)]
        if not request:
            return ["no server span"]
        taken = (request.trace_id, request.parent_id) == (TRACE, PARENT)
        if row.expect == TAKEN and not taken:
            return [f"not taken: {chain.brief(request)}"]
        if row.expect == NEW and (request.parent_id or request.trace_id in (TRACE, OTHER)):
            return [f"not a new trace: {chain.brief(request)}"]
        state = next((v[12:] for v in row.lines if v.startswith("tracestate")), "") if taken else ""
        if self.state != state:
            return [f"its trace state is {self.state!r}, not {state!r}"]
        return [] if taken or not request.parent_id else [f"half taken: {chain.brief(request)}"]

    def _whole(self):
        if not self.row.sampled or not self.request:
            return []
        if not self.client or not self.callee:
            return ["no span of the call, or of its callee"]
        found = [] if chain.under(self.client, self.request) == "right" else [f"the call: {chain.brief(self.client)}"]
        # A service that hands on what came names that as its callee's parent.
        fine = chain.under(self.callee, self.client) == "right" or (
            self.row.route == "forward" and (self.callee.trace_id, self.callee.parent_id) == (TRACE, PARENT))
        return found + ([] if fine else [f"the callee: {chain.brief(self.callee)}"])

    def _header(self):
        row = self.row
        if row.route == "forward":
            same = self.received == [VALID] and self.tracestate == [v[12:] for v in row.lines if v.startswith("tracestate")]
            return [] if same else [f"not as it was sent: {self.received} {self.tracestate}"]
        if row.beyond and not self.received:
            return []
        if len(self.received) != 1 or not self.outgoing or self.tracestate:
            return [f"received {self.received} {self.tracestate}"]
        trace, span, flags = self.outgoing
        found = []
        if flags & 1 != row.sampled or flags & ~3 or (flags & 2 and not row.random and row.expect == TAKEN):
            found.append(f"flags {flags:02x}")
        if row.sampled and self.client and (trace, span) != (self.client.trace_id, self.client.span_id):
            found.append(f"the header names {trace} {span}, the span is {chain.brief(self.client)}")
        if not row.sampled and (trace != TRACE or span == PARENT):
            found.append(f"the header names {trace} {span}")
        return found

    def cells(self):
        """What is done, for the table."""
        if self.request:
            span = "taken" if self.request.trace_id == TRACE else "a new trace"
        else:
            span = "taken, not sampled: no span" if self.outgoing and self.outgoing[0] == TRACE else "no span"
        if self.row.route == "forward":
            sent = "as it came" if self.received == [VALID] else "changed"
        elif not self.outgoing:
            sent = "nothing"
        else:
            trace, _, flags = self.outgoing
            sent = f"{'the same' if trace == TRACE else 'the new'} trace, our span, {flags:02x}"
        return self.row.name, span, sent


def observe(stack, tracing, args=()):
    """The Results, in the order of the rows."""
    redis = stack.redis()
    agent = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    app = stack.uvicorn("chain_gateway", env={"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    chain.start(tracing, "--propagate=headers", *args, pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", WARM), 8)
    table, answers = rows(), []
    for n, row in enumerate(table):
        status, body = chain.send(app.port, head(row, "w", n), row.cuts)
        if status != 200:
            raise RuntimeError(f"{row.name}: {status}")
        answers.append(body["calls"][0])
    seen = chain.Seen(tracing.finish(), agent.pids, {app.pid})
    states = {s.span_id: s.trace_state for s in tracing.receiver.spans}
    results = []
    for n, row in enumerate(table):
        request = only(seen.requests, f"w{n}")
        results.append(Result(row, request, only(seen.clients, f"w{n}.0"), only(seen.callees, f"w{n}.0"),
                              answers[n]["traceparent"], answers[n]["tracestate"], states[request.span_id] if request else ""))
    return results


def only(spans, which):
    found = spans.get(which, [])
    assert len(found) < 2, f"{which}: {found}"
    return found[0] if found else None


def test_table(tracing):
    t = tracing()
    results = observe(t.stack, t)
    problems = [f"{r.row.name}: {'; '.join(r.problems())}" for r in results if r.problems()]
    assert not problems, f"{len(problems)} of {len(results)} rows:\n" + "\n".join(problems) + "\n" + t.agent.output()[-2000:]


@pytest.mark.parametrize("collector", ["syscall"])
def test_table_off_the_wire(tracing, collector):
    """Without headers of ours: the spans are the same, and the callee is joined."""
    t = tracing()
    results = observe(t.stack, t, ["--propagate=off", "--collector", collector])
    problems = []
    for r in results:
        found = r._span() + r._whole()
        if r.row.route != "forward" and r.received:
            found.append(f"received {r.received}")
        problems += [f"{r.row.name}: {'; '.join(found)}"] if found else []
    assert not problems, f"{len(problems)} of {len(results)} rows:\n" + "\n".join(problems) + "\n" + t.agent.output()[-2000:]


def main():
    if os.geteuid() != 0:
        sys.exit("test_w3c: loading BPF programs needs root")
    services.exit_on_signals()
    logs = tempfile.mkdtemp(prefix="spanloom-w3c-")
    os.chmod(logs, 0o755)
    with services.Stack(logs) as stack:
        tracing = Tracing(stack, "grpc")
        results = observe(stack, tracing, sys.argv[1:])
        tracing.close()
    print("| traceparent that came | the request | what its call carries |\n| --- | --- | --- |")
    for r in results:
        print("| " + " | ".join(r.cells()) + " |")
    for r in results:
        for text in r.problems():
            print(f"{r.row.name}: {text}", file=sys.stderr)
    return 1 if any(r.problems() for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
