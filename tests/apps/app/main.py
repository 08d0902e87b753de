"""The gateway's endpoints: the A2A call (rate limit, usage, the agent), a fan-out of three, a `def` route, and /health.

run: python -m uvicorn app.main:app; env: see clients.py
"""
import asyncio
from contextlib import asynccontextmanager

from app.clients import clients
from app.services import a2a_client, rate_limit, usage
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI):
    await clients.open()
    yield
    await clients.close()


app = FastAPI(lifespan=lifespan)


class Message(BaseModel):
    text: str = ""


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/a2a/{agent}/rpc")
async def rpc(agent: str, message: Message):
    if not await rate_limit.check(agent):
        raise HTTPException(429, "too many requests")
    await usage.record_request(agent)
    return await a2a_client.call_agent(agent, message.text)


@app.get("/fanout/{agent}")
async def fanout(agent: str):
    answers = await asyncio.gather(*(clients.http.get(f"/work/{agent}-{n}") for n in range(3)))
    return [a.json()["id"] for a in answers]


@app.get("/report/{agent}")
def report(agent: str):
    """Blocking, so FastAPI runs it in a thread."""
    count = clients.blocking_redis.get(f"rate:{agent}")
    answer = clients.blocking_http.get(f"/work/{agent}")
    return {"count": count, "agent": answer.json()["id"]}
