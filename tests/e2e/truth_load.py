"""The truth-carrying load: every request has an id of its own, CONSTRUCT.NUMBER, which is in its path and which the
application puts into all that the request makes it call. Several ways to send a request, because how its bytes arrive
decides how its beginning is found.

Owns: the client's connections. Refuses: to retry; a wrong answer ends the run. It shares the cores with what is tested, so
it is as light as asyncio's streams allow.
"""
import asyncio
import contextlib
import json
import random
import urllib.request
from collections import deque
from dataclasses import dataclass

PIPELINED = 3
HEAD = "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: truth\r\n{more}\r\n"
BODY = b"0123456789" * 30
CLOSE_FRAME = b"\x88\x80\0\0\0\0"  # RFC 6455: close, masked with zeros, empty
TIMEOUT_SECONDS = 60
LEAVE_SECONDS = 0.015

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Item:
    """What is sent at once: one request, or a few pipelined ones."""

    construct: str
    ids: list
    style: str
    status: int
    prefix: str

    def head(self, n=0, method="GET", more=""):
        path = f"{self.prefix}/truth-{self.construct}/{self.ids[n]}"
        return HEAD.format(method=method, path=path, more=more).encode()


def table(port):
    """The constructs of an application: {name: {calls, least, linked, style, status, prefix}}."""
    with _direct.open(f"http://127.0.0.1:{port}/constructs", timeout=10) as answer:
        return json.load(answer)


def plan(constructs, requests, seed=1, tag=""):
    """So many requests, the constructs by turns in a random order."""
    names, items, n = list(constructs), [], 0
    while n < requests:
        for name in names:
            c = constructs[name]
            count = PIPELINED if c["style"] == "pipelined" else 1
            items.append(Item(name, [f"{name}.{tag}{n + k}" for k in range(count)], c["style"], c["status"], c["prefix"]))
            n += count
    random.Random(seed).shuffle(items)
    return items


class Client:
    """One connection at a time, opened anew when the server closed it."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def open(self):
        if not self.writer or self.writer.is_closing() or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    def close(self):
        if self.writer:
            self.writer.close()
        self.writer = None

    async def answer(self):
        """(status, body)"""
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, lower = int(head[9:12]), head.lower()
        body = b""
        at = lower.find(b"\r\ncontent-length:")
        if status == 101:
            self.writer.write(CLOSE_FRAME)
            with contextlib.suppress(ConnectionError):  # the server may be gone before it has read that
                await self.reader.read(-1)
        elif status < 200:
            return status, b""
        elif at >= 0:
            body = await self.reader.readexactly(int(lower[at + 17:lower.index(b"\r\n", at + 2)]))
        elif b"transfer-encoding: chunked" in lower:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        else:
            body = await self.reader.read(-1)
        if b"connection: close" in lower or status in (101, 500):  # uvicorn ends the connection after an exception
            self.close()
        return status, body

    async def pieces(self, *pieces):
        for piece in pieces:
            self.writer.write(piece)
            await asyncio.sleep(random.choice((0.0005, 0.001, 0.002)))

    async def check(self, item, n=0):
        status, body = await self.answer()
        if status != item.status or status == 200 and item.ids[n].encode() not in body:
            raise RuntimeError(f"{item.ids[n]}: {status}, {body[:200]}")

    async def send(self, item):
        await self.open()
        await STYLES[item.style](self, item)


async def plain(client, item):
    client.writer.write(item.head())
    await client.check(item)


async def pipelined(client, item):
    client.writer.write(b"".join(item.head(n) for n in range(len(item.ids))))
    for n in range(len(item.ids)):
        await client.check(item, n)


async def split_head(client, item):
    head = item.head()
    await client.pieces(head[:7], head[7:-5], head[-5:])
    await client.check(item)


async def body_pieces(client, item):
    head = item.head(method="POST", more=f"Content-Length: {len(BODY)}\r\n")
    await client.pieces(head, BODY[:100], BODY[100:200], BODY[200:])
    await client.check(item)


async def chunked_body(client, item):
    chunk = b"%x\r\n%s\r\n" % (len(BODY), BODY)
    await client.pieces(item.head(method="POST", more="Transfer-Encoding: chunked\r\n") + chunk[:20], chunk[20:],
                        b"0\r\n\r\n")
    await client.check(item)


async def head_then_body(client, item):
    client.writer.write(item.head(method="POST", more=f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"))
    status, _ = await client.answer()
    if status != 100:
        raise RuntimeError(f"{item.ids[0]}: {status}, not 100")
    client.writer.write(BODY)
    await client.check(item)


async def new_connection(client, item):
    client.close()
    await client.open()
    client.writer.write(item.head(more="Connection: close\r\n"))
    await client.check(item)


async def disconnect(client, item):
    client.close()
    await client.open()
    client.writer.write(item.head())
    await asyncio.sleep(LEAVE_SECONDS)
    client.close()


async def websocket(client, item):
    client.close()
    await client.open()
    client.writer.write(item.head(more="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                  "Sec-WebSocket-Key: c3Bhbmxvb20gdGVzdHMuLg==\r\n"))
    await client.check(item)


STYLES = {f.__name__: f for f in (plain, pipelined, split_head, body_pieces, chunked_body, head_then_body, new_connection,
                                  disconnect, websocket)}


async def _run(port, items, connections):
    queue = deque(items)

    async def worker():
        client = Client(port)
        try:
            while queue:
                item = queue.popleft()
                try:
                    await asyncio.wait_for(client.send(item), TIMEOUT_SECONDS)
                except (OSError, EOFError, asyncio.TimeoutError) as e:
                    raise RuntimeError(f"{item.ids[0]} ({item.style}): {e!r}") from e
        finally:
            client.close()

    await asyncio.gather(*(worker() for _ in range(connections)))


def run(port, items, connections):
    """Sends everything; RuntimeError when an answer is not the expected one."""
    asyncio.run(_run(port, items, connections))
