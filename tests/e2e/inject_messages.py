"""What a stream of requests looks like with one header line added to some of them, and nothing else.

Owns: the one definition of that line (W3C Trace Context, version 00) and of where it may stand: right behind the request
line. Refuses: any other difference, with the place where it is.
"""
import re
from dataclasses import dataclass

LINE = re.compile(rb"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-(0[0-3])\r\n")
LINE_BYTES = 70
# What a body may hold to look like a request of its own, also one that has a traceparent.
INNER = b"POST /inner HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n"
INNER_TRACED = b"GET /inner HTTP/1.1\r\ntraceparent: 00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01\r\n\r\n"


@dataclass(frozen=True)
class Ids:
    """What an added line says, in lower-case hex."""

    trace_id: str
    span_id: str
    flags: str


@dataclass
class Message:
    """One request as its sender makes it."""

    data: bytes
    head: int = 0  # bytes of its head
    path: str = ""
    closed: bool = False  # nothing may be added: own traceparent, HTTP/1.0, no HTTP at all
    interim: bool = False  # Expect: 100-continue, the body waits
    early: bool = False  # the answer comes when the head is there
    answer: bytes = b""
    status: int = 0  # of the answer

    def __post_init__(self):
        self.line = self.data.find(b"\n") + 1


class Mismatch(AssertionError):
    pass


def difference(what, got, expected):
    """Where two byte strings part, in words."""
    at = next((n for n, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
    low = max(0, at - 60)
    return (f"{what}: {len(got)} bytes, not {len(expected)}; they part at {at}: got ..{bytes(got[low:at + 100])!r}.., "
            f"expected ..{bytes(expected[low:at + 100])!r}..")


def added(got, expected, what="request"):
    """The Ids of the line that was added to `expected`, None when nothing was; Mismatch for anything else."""
    if got == expected:
        return None
    at = expected.find(b"\n") + 1
    m = LINE.match(got, at)
    if not m or got[:at] + got[m.end():] != expected:
        raise Mismatch(difference(what, got, expected))
    return Ids(*(text.decode() for text in m.groups()))


class Walk:
    """Follows a stream of which every message is known before; feed() tells of heads and messages as they become complete."""

    def __init__(self, messages):
        self.messages, self.at, self.head_told = messages, 0, False
        self.waiting, self.ids = bytearray(), []

    def _extra(self):
        """The Ids of the line in front, None when there is none, False when that can't be told yet."""
        m, got = self.messages[self.at], self.waiting
        if got[:m.line] != m.data[:m.line][:len(got)]:
            raise Mismatch(difference(f"request line of message {self.at}", got, m.data))
        rest = got[m.line:m.line + LINE_BYTES]
        own = m.data[m.line:min(m.head, m.line + LINE_BYTES)]
        if rest[:len(own)] == own:
            return None
        if len(rest) < LINE_BYTES:
            return False
        found = LINE.fullmatch(rest)
        if not found:
            raise Mismatch(difference(f"message {self.at}", got[:len(m.data)], m.data))
        return Ids(*(text.decode() for text in found.groups()))

    def feed(self, data):
        """Yields ("head" | "message", index)."""
        self.waiting += data
        while self.at < len(self.messages):
            m = self.messages[self.at]
            if len(self.waiting) < min(m.head, m.line + LINE_BYTES):
                return
            ids = self._extra()
            if ids is False:
                return
            extra = LINE_BYTES if ids else 0
            if len(self.waiting) < m.head + extra:
                return
            if not self.head_told:
                self.head_told = True
                yield "head", self.at
            if len(self.waiting) < len(m.data) + extra:
                return
            got = self.waiting[:m.line] + self.waiting[m.line + extra:len(m.data) + extra]
            if got != m.data:
                raise Mismatch(difference(f"message {self.at}", got, m.data))
            if ids and m.closed:
                raise Mismatch(f"message {self.at} got a header: {bytes(self.waiting[:300])!r}")
            del self.waiting[:len(m.data) + extra]
            self.ids.append(ids)
            self.at, self.head_told = self.at + 1, False
            yield "message", self.at - 1
        if self.waiting:
            raise Mismatch(f"bytes behind the last message: {bytes(self.waiting[:200])!r}")
