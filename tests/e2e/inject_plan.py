"""What a connection of the fuzz test sends, and how: made from a seed, the same at both ends.

Owns: the messages and the ways in which they are cut and sent. Invariant: every message is valid, and both ends know each
byte of it before it is sent.
"""
import random
from dataclasses import dataclass

from inject_messages import INNER, INNER_TRACED, Message

METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"HEAD"]
TRACEPARENTS = [b"traceparent", b"Traceparent", b"TraceParent", b"TRACEPARENT", b"tRaCePaReNt"]
OWN = b": 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
NOISE = [b"Accept: */*\r\n", b"User-Agent: fuzz/1.0 (like traceparent: 00-1-2-3)\r\n", b"X-Traceparent: 00-no-no-01\r\n",
         b"tracestate: a=b,c=d\r\n", b"Traceparents: none\r\n", b"X-Body: GET / HTTP/1.1\r\n", b"X-Empty:\r\n",
         b"Content-Lengths: 5\r\n", b"X-Content-Length: 70\r\n", b"Accept-Encoding: chunked, gzip\r\n", b"te: trailers\r\n",
         b"Cookie: a=1; traceparent=00\r\n", b"X-Transfer-Encoding: chunked\r\n", b"X-Eight: \xc3\xa4\xff\x80\r\n"]
STATUSES = range(200, 204)  # so that an answer that is given to another request is seen
FRAGMENTS = [INNER, INNER_TRACED, b"\r\n\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n", b"\x00\x01\xff\xfe", b"traceparent",
             b"x" * 40, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"5\r\nhello\r\n"]


def _bytes(rng, size):
    """So many bytes that look like requests, chunk ends, answers."""
    out = b""
    while len(out) < size:
        out += rng.choice(FRAGMENTS)
    return out[:size]


def _size(rng, calm):
    if calm:
        return rng.choice([0, 20, 300, 2000])
    return rng.choice([0, 1, 5, 57, 70, 200, 1000, 1448, 3000, 4096, 9000]) if rng.random() < 0.97 else 150_000


def _chunks(rng, size):
    out, left = b"", _bytes(rng, size)
    while left:
        n = rng.randint(1, len(left))
        name = rng.choice([b"%x", b"%X", b"000%x"]) % n
        out += name + rng.choice([b"", b"", b";ext=traceparent", b" ;a=\"b\""]) + b"\r\n" + left[:n] + b"\r\n"
        left = left[n:]
    trailer = rng.choice([b"", b"", b"X-Sum: 1\r\n", b"traceparent: 00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01\r\n"])
    return out + b"0\r\n" + trailer + b"\r\n"


def _head_noise(rng, tame):
    if not tame and rng.random() < 0.05:
        return [b"X-Long-%d: %s\r\n" % (n, b"y" * rng.randint(100, 900)) for n in range(rng.randint(3, 14))]
    return rng.sample(NOISE, rng.choice([0, 0, 1, 2, 3, 8]))


def message(rng, path, calm, tame):
    method, size = rng.choice(METHODS), _size(rng, calm)
    version = b"HTTP/1.1"
    if not tame and rng.random() < 0.03:
        version, method = b"HTTP/1.0", b"GET"
    headers = _head_noise(rng, tame)
    if b"GET" in method and rng.random() < 0.8:
        size = 0
    body = b""
    if size and version != b"HTTP/1.0":
        if rng.random() < 0.3:
            name = rng.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"TRANSFER-ENCODING:  Chunked ",
                               b"Transfer-Encoding: gzip, chunked"])
            headers.append(b"Transfer-Encoding: chunked\r\n" if tame else name + b"\r\n")
            body = _chunks(rng, size)
        else:
            body = _bytes(rng, size)
            name = rng.choice([b"Content-Length: %d", b"content-length:%d"] if tame else
                              [b"CONTENT-LENGTH: \t%d ", b"Content-Length: 000%d", b"content-Length:  %d"])
            headers.append(name % size + b"\r\n")
    elif rng.random() < 0.3:
        headers.append(b"Content-Length: 0\r\n")
    own = rng.random() < 0.1
    if own:
        headers.append(rng.choice(TRACEPARENTS) + OWN)
    interim = bool(body) and not calm and rng.random() < 0.05
    if interim:
        headers.append(rng.choice([b"Expect: 100-continue\r\n", b"expect: 100-Continue\r\n"]))
    rng.shuffle(headers)
    headers.insert(rng.randint(0, len(headers)), b"Host: 127.0.0.1\r\n")
    head = method + b" " + path + b" " + version + b"\r\n" + b"".join(headers) + b"\r\n"
    early = bool(body) and not interim and not calm and rng.random() < 0.05
    answer_size = rng.choice([0, 2, 2, 2, 700]) if rng.random() < 0.98 else 70_000
    status = rng.choice(STATUSES)
    answer = b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n" % (status, answer_size)
    if method != b"HEAD":
        answer += b"z" * answer_size
    return Message(head + body, head=len(head), path=path.decode(), closed=own or version == b"HTTP/1.0", interim=interim,
                   early=early, answer=answer, status=status)


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass
class Plan:
    """One connection."""

    messages: list
    depth: int  # messages in flight
    cuts: float  # how likely a piece is small
    send_buffer: int  # 0: the default
    receive_buffer: int
    no_delay: bool
    hop: bool  # each piece is sent by another thread
    pause: float  # how likely the sender rests between pieces
    slow: bool  # the reader rests
    heads: bool  # heads are sent whole, with what follows of the body or without it


def plan(seed, conn, calm=False):
    """
    Two of three connections are tame: heads as programs write them, sent whole, one request after the other; only what goes
    on behind the head is wild. On the others anything may be, and whoever follows them may well give up.
    """
    rng = random.Random(f"{seed}/{conn}")
    tame, count = calm or rng.random() < 0.67, rng.randint(5, 60)
    messages = [message(rng, b"/f/%d/%d/%d" % (seed, conn, n), calm, tame) for n in range(count)]
    if calm:
        return Plan(messages, 1, 0.0, 0, 0, True, False, 0.0, False, True)
    return Plan(messages, depth=1 if tame else rng.choice([1, 2, 4, 16]), cuts=rng.choice([0, 0, 0.1, 0.5, 0.9]),
                send_buffer=rng.choice([0, 0, 4608, 8192]), receive_buffer=rng.choice([0, 0, 4096]),
                no_delay=rng.random() < 0.6, hop=rng.random() < 0.3, pause=rng.choice([0, 0, 0.02, 0.1]),
                slow=rng.random() < 0.05, heads=tame)


def heads(p):
    """[(begin, end)] of all heads in the stream."""
    found, offset = [], 0
    for m in p.messages:
        found.append((offset, offset + m.head))
        offset += len(m.data)
    return found


def gates(p):
    """
    What has to have come back before what is sent: [(offset in the stream, answer bytes)], both ascending, from which the
    stream may go on; and all answers, interim ones too.
    """
    found, answers, ends, offset = [], b"", [], 0
    for n, m in enumerate(p.messages):
        if n >= p.depth:
            found.append((offset, ends[n - p.depth]))
        if m.interim:
            # The one before is answered first, so that the interim answer's place is known.
            if n and (offset, ends[n - 1]) not in found:
                found.append((offset, ends[n - 1]))
            answers += INTERIM
            found.append((offset + m.head, len(answers)))
        answers += m.answer
        ends.append(len(answers))
        offset += len(m.data)
    return found, answers
