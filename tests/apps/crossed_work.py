"""Servers by hand on asyncio that cross what a framework keeps apart, the id of the request that caused a call in its key.

/truth-wait/ID is answered by the next /truth-post/ID, which makes calls of its own around that; /truth-stream/ID the same,
but its answer ends later. On the second port one task serves each connection: /truth-tail/ID makes its call behind its
answer, /truth/ID before.

env: REDIS_PORT, LOOP; run: python crossed_work.py PORT PORT2
"""
import asyncio
import os
import re
import sys

import redis.asyncio

REQUEST = re.compile(rb"GET /truth-?(\w*)/([\w.-]+)")
ALONE_SECONDS = 0.1  # so long an answer waits for another request
LATER_SECONDS = 0.003
store = redis.asyncio.Redis(host="127.0.0.1", port=int(os.environ.get("REDIS_PORT", "6379")))
waiting, tasks = [], set()


def head(length):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length


async def use_redis(request_id: str):
    await store.get(f"truth:{request_id}")


class Crossed(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def data_received(self, data):
        kind, request_id = (part.decode() for part in REQUEST.match(data).groups())
        if kind == "post":
            task = self.loop.create_task(self.post(request_id))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            waiting.append((self, kind))
            self.loop.call_later(ALONE_SECONDS, self.answer, (self, kind))

    def answer(self, entry):
        if entry not in waiting:
            return
        waiting.remove(entry)
        other, kind = entry
        other.transport.write(head(2))
        if kind == "stream":
            self.loop.call_later(2 * LATER_SECONDS, other.transport.write, b"ok")
        else:
            other.transport.write(b"ok")

    async def post(self, request_id: str):
        await use_redis(request_id)
        for entry in list(waiting):
            self.answer(entry)
        await use_redis(request_id)
        await use_redis(request_id)
        self.transport.write(head(2) + b"ok")


async def one_task(reader, writer):
    try:
        while True:
            kind, request_id = (part.decode() for part in REQUEST.match(await reader.readuntil(b"\r\n\r\n")).groups())
            if kind != "tail":
                await use_redis(request_id)
            writer.write(head(2) + b"ok")
            if kind == "tail":
                await asyncio.sleep(LATER_SECONDS)
                await use_redis(request_id)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    loop = asyncio.get_running_loop()
    await store.ping()
    await loop.create_server(Crossed, "127.0.0.1", int(sys.argv[1]))
    await asyncio.start_server(one_task, "127.0.0.1", int(sys.argv[2]))
    await asyncio.Event().wait()


if os.environ.get("LOOP") == "uvloop":
    import uvloop
    uvloop.install()
asyncio.run(main())
