"""A FastAPI service that does what hides whose call is whose: tasks that outlive their request, work behind the answer,
executors that nobody waits for, and a task beside all requests. Every key carries the id of the request that caused it;
the heartbeat's carry their own.

env: REDIS_PORT; HEARTBEAT (seconds between its calls; 0: none)
run: python -m uvicorn loop_work:app --host 127.0.0.1 --port N
"""
import asyncio
import os
import time
from contextlib import asynccontextmanager

import redis as blocking_redis
from agent_service import redis_client
from fastapi import BackgroundTasks, FastAPI

HEARTBEAT = float(os.environ.get("HEARTBEAT", "0"))
tasks = set()


def start(coroutine):
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def heartbeat():
    beats = 0
    while True:
        await asyncio.sleep(HEARTBEAT)
        beats += 1
        await app.state.redis.get(f"truth:heartbeat{beats}")


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.redis = redis_client()
    app.state.blocking = blocking_redis.Redis(host="127.0.0.1", port=int(os.environ.get("REDIS_PORT", "6379")))
    if HEARTBEAT:
        start(heartbeat())
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


async def use_redis(request_id: str, after_ms: int = 0):
    if after_ms:
        await asyncio.sleep(after_ms / 1000)
    await app.state.redis.get(f"truth:{request_id}")
    await app.state.redis.get(f"truth:{request_id}")


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/truth/{request_id}")
async def truth(request_id: str):
    await use_redis(request_id)


@app.get("/truth-slow/{request_id}")
async def slow(request_id: str, ms: int = 20):
    """Makes no call at all, but is there while others do."""
    await asyncio.sleep(ms / 1000)


@app.get("/truth-behind/{request_id}")
async def behind(request_id: str, background: BackgroundTasks):
    background.add_task(use_redis, request_id, 3)


@app.get("/truth-forget/{request_id}")
async def forget(request_id: str, ms: int = 5):
    start(use_redis(request_id, ms))


@app.get("/truth-executor/{request_id}")
async def executor(request_id: str):
    """A worker thread that nobody waits for."""

    def work():
        time.sleep(0.004)
        app.state.blocking.get(f"truth:{request_id}")

    asyncio.get_running_loop().run_in_executor(None, work)


@app.get("/truth-def/{request_id}")
def threaded(request_id: str):
    app.state.blocking.get(f"truth:{request_id}")
