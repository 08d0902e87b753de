"""Functions that the tests make custom spans of, behind the routes /truth-KIND/ID. Which call a client span was made in is
told by the key: truth:ID/PART.

env: REDIS_PORT, LIBRARY (path of a shared library with do_work(ms) and do_call(function))
run: python -m uvicorn spans_app:app
"""
import asyncio
import ctypes
import os
from contextlib import asynccontextmanager

import redis as blocking
import redis.asyncio
from fastapi import FastAPI

REDIS = {"host": "127.0.0.1", "port": int(os.environ.get("REDIS_PORT", "6379"))}
LIBRARY = os.environ.get("LIBRARY")
native = ctypes.CDLL(LIBRARY) if LIBRARY else None
CALLBACK = ctypes.CFUNCTYPE(None)


@asynccontextmanager
async def lifespan(app):
    app.state.redis = redis.asyncio.Redis(**REDIS)
    app.state.blocking = blocking.Redis(**REDIS)
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


async def get(request_id, part):
    await app.state.redis.get(f"truth:{request_id}/{part}")
    await asyncio.sleep(0.001)


async def coroutine(request_id, part="one"):
    await get(request_id, part)
    await get(request_id, part)


def function(request_id, part="one"):
    app.state.blocking.get(f"truth:{request_id}/{part}")
    app.state.blocking.get(f"truth:{request_id}/{part}")


async def recursive(request_id, depth):
    await get(request_id, f"before-{depth}")
    if depth:
        await recursive(request_id, depth - 1)
    await get(request_id, f"after-{depth}")


async def outer(request_id):
    await get(request_id, "outer")
    await asyncio.gather(coroutine(request_id, "left"), coroutine(request_id, "right"))
    await get(request_id, "outer")


async def generator(request_id):
    for n in range(3):
        await get(request_id, f"step-{n}")
        yield n


class Worker:
    def __init__(self, request_id):
        self.request_id = request_id

    async def run(self, part):
        await get(self.request_id, part)
        await get(self.request_id, part)

    @staticmethod
    async def aside(request_id):
        await get(request_id, "aside")


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/truth-coroutine/{request_id}")
async def one_coroutine(request_id: str):
    await get(request_id, "without")
    await coroutine(request_id)
    await get(request_id, "without")


@app.get("/truth-twice/{request_id}")
async def twice(request_id: str):
    """One call after the other, in the same request: two spans, though the second may get the first one's frame."""
    await coroutine(request_id, "first")
    await coroutine(request_id, "second")


@app.get("/truth-def/{request_id}")
def in_thread(request_id: str):
    function(request_id)


@app.get("/truth-gather/{request_id}")
async def concurrent(request_id: str):
    await asyncio.gather(coroutine(request_id, "left"), coroutine(request_id, "right"))


@app.get("/truth-task/{request_id}")
async def in_task(request_id: str):
    await asyncio.create_task(coroutine(request_id))


@app.get("/truth-recursive/{request_id}")
async def recursion(request_id: str):
    await recursive(request_id, 2)


@app.get("/truth-nested/{request_id}")
async def nested(request_id: str):
    await outer(request_id)


@app.get("/truth-method/{request_id}")
async def method(request_id: str):
    await Worker(request_id).run("method")
    await Worker.aside(request_id)


@app.get("/truth-generator/{request_id}")
async def generated(request_id: str):
    async for _ in generator(request_id):
        pass


@app.get("/truth-native/{request_id}")
def call_native(request_id: str, ms: int = 5):
    native.do_work(ms)
    app.state.blocking.get(f"truth:{request_id}/after")


@app.get("/truth-callback/{request_id}")
def call_back(request_id: str):
    """The native function calls Python, which calls Redis."""
    native.do_call(CALLBACK(lambda: app.state.blocking.get(f"truth:{request_id}/inside")))
