"""Compares every client span with the truth: the id in its key or URL names the request that made it, so its parent has to
be the SERVER span with that id in its path, through custom spans where there are any.

Owns: the verdict, per construct. Refuses: to take one thing for another: a span that is not there is missing, one without
a parent is none, any other parent is wrong.
"""
import os
import time
from collections import Counter
from dataclasses import dataclass, field

import truth_load
from seen import SERVER, clients, servers

BESIDE = ("heartbeat", "startup")  # constructs that no request makes
BEHIND_SECONDS = 0.4  # until the work behind the last answer is done
INTERNAL = "INTERNAL"
EXAMPLES_MAX = 2


@dataclass
class Tally:
    right: int = 0
    wrong: int = 0
    none: int = 0
    missing: int = 0  # client spans that have to be there and are not, or are there too often
    servers: int = 0  # requests without exactly one SERVER span
    examples: list = field(default_factory=list)

    def note(self, what, text):
        setattr(self, what, getattr(self, what) + 1)
        if what != "right" and len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{what}: {text}")


@dataclass
class Verdict:
    tallies: dict  # construct → Tally
    table: dict
    requests: int

    def total(self, what):
        return sum(getattr(t, what) for t in self.tallies.values())

    def problems(self, none_allowed=()):
        """What must not be, as text: whatever is wrong or not there; none, but where the table or `none_allowed` says so."""
        found = []
        for name, t in sorted(self.tallies.items()):
            free = name in none_allowed or name in self.table and not self.table[name]["linked"]
            if t.wrong or t.missing or t.servers or (t.none and not free):
                found.append(f"{name}: {t.right} right, {t.wrong} wrong, {t.none} none, {t.missing} missing, "
                             f"{t.servers} servers; {t.examples}")
        return found

    def markdown(self):
        lines = ["| construct | right | wrong | none | not exactly once |", "| --- | ---: | ---: | ---: | ---: |"]
        rows = sorted(self.tallies.items()) + [("**all**", self)]
        for name, t in rows:
            get = t.total if t is self else lambda what, t=t: getattr(t, what)
            lines.append(f"| {name} | {get('right')} | {get('wrong')} | {get('none')} | {get('missing') + get('servers')} |")
        return "\n".join(lines)


def construct_of(truth):
    return truth.rsplit(".", 1)[0]


def server_of(span, by_id):
    """The SERVER span that a span is under, through INTERNAL ones; None: under none that is there."""
    for _ in range(32):
        span = by_id.get((span.trace_id, span.parent_id))
        if span is None or span.kind == SERVER:
            return span
    return None


def judge(spans, pids, items, table):
    """The Verdict over what was sent (Items of truth_load)."""
    tallies = {item.construct: Tally() for item in items}
    by_id = {(s.trace_id, s.span_id): s for s in spans if s.kind in (SERVER, INTERNAL)}
    calls = Counter()
    for span in clients(spans, pids):
        if span.truth is None:
            continue
        calls[span.truth] += 1
        construct = construct_of(span.truth)
        tally = tallies.setdefault(construct, Tally())
        if construct in BESIDE:
            tally.note("wrong" if span.parent_id else "right", f"{span.truth} has a parent")
            continue
        parent = server_of(span, by_id)
        if not span.parent_id:
            tally.note("none", f"{span.name} of {span.truth}")
        elif parent and parent.truth == span.truth and parent.pid == span.pid:
            tally.note("right", "")
        else:
            tally.note("wrong", f"{span.name} of {span.truth} is under {parent and parent.truth or span.parent_id}")
    seen = Counter(s.truth for s in servers(spans, pids))
    for item in items:
        least, most = table[item.construct]["least"], table[item.construct]["calls"]
        for request in item.ids:
            if not least <= calls[request] <= most:
                tallies[item.construct].note("missing", f"{request}: {calls[request]} calls, not {least} to {most}")
            if item.status and seen[request] != 1:
                tallies[item.construct].note("servers", f"{request}: {seen[request]} server spans")
    return Verdict(tallies, table, sum(len(item.ids) for item in items))


def family(pid):
    """A process and all its descendants."""
    found = {pid}
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                for child in f.read().split():
                    found |= family(int(child))
    except OSError:
        pass
    return found


def load(tracing, app, requests, connections, args=(), only=None, tag="", env=None, warm=0, settle=0.0):
    """
    Attaches an agent to `app`, sends the requests and ends the agent; the Verdict. `connections`: a number, or several for
    as many loads in turn. `only`: names of constructs. `warm`: requests before the agent comes.
    """
    table = {n: c for n, c in truth_load.table(app.port).items() if not only or n in only}
    if warm:
        truth_load.run(app.port, truth_load.plan(table, warm, tag="w" + tag), 8)
        time.sleep(BEHIND_SECONDS)
    if not tracing.agent:
        tracing.start(*args, pids=[app.pid], env=env)
        time.sleep(settle)
    items = []
    counts = [connections] if isinstance(connections, int) else connections
    for n in counts:
        part = truth_load.plan(table, requests // len(counts), seed=n, tag=f"{tag}{n}c")
        truth_load.run(app.port, part, n)
        items += part
    time.sleep(BEHIND_SECONDS)
    pids = family(app.pid)
    return judge(tracing.finish(), pids, items, table)
