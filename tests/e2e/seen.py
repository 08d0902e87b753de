"""Exported spans as the tests look at them, and the rules by which they are compared with the truth.

Owns: the one reading of what the receiver hands out, and the truth check: ids in paths, URLs and Redis keys say which
request a client span belongs to. Refuses: to count a span without an id as right or wrong.
"""
import re
from dataclasses import dataclass, field

SERVER, CLIENT = 2, 3
UNSET, ERROR = 0, 2
TRUTH = re.compile(r"/(?:truth(?:-\w+)?|threads|work)/([\w.-]+)|truth:([\w.-]+)")


@dataclass
class Seen:
    trace_id: str
    span_id: str
    parent_id: str  # "" for none
    name: str
    kind: int
    start: int
    end: int
    status: int
    attrs: dict
    resource: dict = field(repr=False)

    @property
    def path(self):
        return self.attrs.get("url.path")

    @property
    def pid(self):
        return self.resource.get("process.pid")

    @property
    def is_redis(self):
        return self.attrs.get("db.system.name") == "redis"

    @property
    def commands(self):
        """Redis: how many commands this span stands for."""
        return self.attrs.get("db.operation.batch.size", 1)

    @property
    def truth(self):
        """The id of the request that this span belongs to by what it says itself; None when it says nothing."""
        text = self.attrs.get("url.full") or self.attrs.get("url.path") or self.attrs.get("db.query.text") or ""
        m = TRUTH.search(text)
        return (m[1] or m[2]) if m else None


def view(receiver):
    """All spans of a receiver."""
    kinds, statuses = {"SERVER": SERVER, "CLIENT": CLIENT}, {"UNSET": UNSET, "ERROR": ERROR}
    return [Seen(s.trace_id, s.span_id, s.parent_span_id, s.name, kinds.get(s.kind, s.kind), s.start, s.end,
                 statuses.get(s.status, s.status), s.attributes, s.resource) for s in receiver.spans]


def servers(spans, pids=None):
    return [s for s in spans if s.kind == SERVER and (pids is None or s.pid in pids)]


def clients(spans, pids=None):
    return [s for s in spans if s.kind == CLIENT and (pids is None or s.pid in pids)]


def links(spans, pids):
    """(right, wrong, none): client spans of `pids` that carry an id, by the server span they are under."""
    by_id = {(s.trace_id, s.span_id): s for s in spans if s.kind == SERVER}
    right, wrong, none = [], [], []
    for span in clients(spans, pids):
        if span.truth is None:
            continue
        parent = by_id.get((span.trace_id, span.parent_id))
        if not span.parent_id:
            none.append(span)
        elif parent and parent.pid == span.pid and parent.truth == span.truth:
            right.append(span)
        else:
            wrong.append(span)
    return right, wrong, none


def match_requests(sent, spans):
    """Asserts that every request has exactly one server span that tells the same; gives the pairs."""
    by_path = {}
    for span in spans:
        query = span.attrs.get("url.query")
        by_path.setdefault(span.path + (f"?{query}" if query else ""), []).append(span)
    pairs, problems = [], []
    for request in sent:
        found = by_path.pop(request.path, [])
        if len(found) != 1:
            problems.append(f"{request.method} {request.path}: {len(found)} server spans")
            continue
        span = found[0]
        pairs.append((request, span))
        if span.attrs.get("http.request.method") != request.method:
            problems.append(f"{request.path}: method {span.attrs.get('http.request.method')}")
        if span.attrs.get("http.response.status_code") != request.status:
            problems.append(f"{request.path}: status {span.attrs.get('http.response.status_code')}, not {request.status}")
    problems += [f"server spans that nobody asked for: {path}" for path in by_path]
    assert not problems, f"{len(problems)} problems, the first: {problems[:10]}"
    return pairs


def check_times(pairs, slack_ns=1_000_000, late_ns=50_000_000):
    """
    A server span begins and ends within its client's own times. A send can be seen by its receiver before the sender
    runs again, so the end may be late by as long as the server's thread waited for a core; nearly none may be.
    """
    late = 0
    for request, span in pairs:
        assert span.start <= span.end, request
        assert request.begin - slack_ns <= span.start <= request.end + slack_ns, (request, span)
        assert span.end <= request.end + late_ns, (request, span)
        late += span.end > request.end + slack_ns
    assert late <= max(1, len(pairs) // 20), f"{late} of {len(pairs)} spans end after their client's request"
