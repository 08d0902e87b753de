"""The gateway with an id in every request: /call, /fanout and /sync as they are in gateway.py, each call to chain_agent
with an id of its own, and each answer saying what the callee received.

env, run: as gateway.py; the callee has to be one of the chain_* services
"""
import asyncio
import json

import httpx
import requests
from fastapi import Request
from fastapi.responses import StreamingResponse
from gateway import AGENT_URL, app

FORWARDED = ("traceparent", "tracestate")


@app.get("/call/{request_id}")
async def call_id(request_id: str, ms: int = 0, fail: int = 0):
    """Redis, then the agent."""
    await app.state.redis.get(f"truth:{request_id}")
    params = {k: v for k, v in {"ms": ms, "fail": fail}.items() if v}
    answer = await app.state.http.post(f"/chain/{request_id}.0", params=params, json={"agent": "writer", "text": "hello"})
    return {"id": request_id, "calls": [answer.json() if answer.status_code == 200 else {"id": f"{request_id}.0"}]}


@app.post("/call/{request_id}")
async def call_with_body(request_id: str, request: Request):
    """The same once the body is here; a large one makes the server stop reading for a while."""
    await request.body()
    return await call_id(request_id)


@app.get("/tail/{request_id}")
async def tail_id(request_id: str):
    """The client has all of the answer a while before the server knows that it was all."""
    body = json.dumps(await call_id(request_id)).encode()

    async def pieces():
        yield body
        await asyncio.sleep(0.003)

    return StreamingResponse(pieces(), headers={"Content-Length": str(len(body))}, media_type="application/json")


@app.get("/fanout/{request_id}")
async def fanout_id(request_id: str):
    answers = await asyncio.gather(*(app.state.http.get(f"/chain/{request_id}.{n}") for n in range(3)))
    return {"id": request_id, "calls": [a.json() for a in answers]}


@app.get("/sync/{request_id}")
def sync_id(request_id: str):
    """A `def` route: anyio runs it in a worker thread."""
    with requests.Session() as session:
        session.trust_env = False
        return {"id": request_id, "calls": [session.get(f"{AGENT_URL}/chain/{request_id}.0", timeout=10).json()]}


@app.get("/forward/{request_id}")
async def forward_id(request_id: str, request: Request):
    """What a service does that hands the trace context on by itself."""
    headers = [(k, v) for k, v in request.headers.items() if k in FORWARDED]
    answer = await app.state.http.get(f"/chain/{request_id}.0", headers=headers)
    return {"id": request_id, "calls": [answer.json()]}


@app.get("/broken/{request_id}")
async def broken_id(request_id: str):
    """The call succeeds, then the request fails."""
    await app.state.http.get(f"/chain/{request_id}.0")
    raise httpx.HTTPError("this route always fails")
