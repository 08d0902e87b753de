"""The callee: a FastAPI service that the gateway and the sync services call. Each answer says who was asked, so that a
test knows the truth without the tracer. Keys and paths carry the id of the request they belong to.

env: REDIS_PORT (default 6379), REDIS_UNIX (a socket's path; wins over the port)
run: python -m uvicorn agent_service:app --host 127.0.0.1 --port N
"""
import asyncio
import os
from contextlib import asynccontextmanager

import redis.asyncio as redis
from fastapi import FastAPI, Response
from pydantic import BaseModel


def redis_client() -> redis.Redis:
    path = os.environ.get("REDIS_UNIX")
    if path:
        return redis.Redis(unix_socket_path=path, decode_responses=True)
    return redis.Redis(port=int(os.environ.get("REDIS_PORT", "6379")), host="127.0.0.1", decode_responses=True)


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.redis = redis_client()
    yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


class Task(BaseModel):
    agent: str
    text: str = ""


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/work/{request_id}")
async def work(request_id: str, ms: int = 0):
    """What the truth-carrying services call: the id in the path is the caller's."""
    if ms:
        await asyncio.sleep(ms / 1000)
    return {"id": request_id}


@app.post("/rpc")
async def rpc(task: Task):
    """The agent runs a task: one Redis read, one Redis write."""
    known = await app.state.redis.get(f"agent:{task.agent}")
    await app.state.redis.set(f"task:{task.agent}", task.text, ex=60)
    return {"agent": task.agent, "known": known is not None, "echo": task.text}


@app.get("/slow")
async def slow(ms: int = 100):
    await asyncio.sleep(ms / 1000)
    return {"slept": ms}


@app.get("/status/{code}")
async def status(code: int):
    return Response(status_code=code)
