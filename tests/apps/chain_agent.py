"""The agent service with an id in every call: it answers with the id and with the trace context that it received, so a test
compares what came over the wire with the spans. /port says which connection was asked, for calls that look all the same.

env: as agent_service.py
run: python -m uvicorn chain_agent:app --host 127.0.0.1 --port N
"""
import asyncio

from agent_service import app
from fastapi import HTTPException, Request

asked = {}  # (client's address) → requests so far


def received(request: Request) -> dict:
    """The values of each header of trace context, in the order in which they came."""
    found = {"traceparent": [], "tracestate": []}
    for name, value in request.headers.raw:
        if name.decode().lower() in found:
            found[name.decode().lower()].append(value.decode("latin-1"))
    return found


@app.api_route("/chain/{call_id}", methods=["GET", "POST"])
async def chain(call_id: str, request: Request, ms: int = 0, fail: int = 0):
    if request.method == "POST":
        await request.body()
    await app.state.redis.get(f"truth:{call_id}")
    if ms:
        await asyncio.sleep(ms / 1000)
    if fail:
        raise HTTPException(status_code=fail)
    return {"id": call_id, **received(request)}


@app.get("/port")
async def port(request: Request):
    """Who asked, and for which time on its connection: enough to tell identical requests apart afterwards."""
    client = request.scope["client"][1] if request.scope.get("client") else 0
    asked[client] = asked.get(client, 0) + 1
    turn = asked[client]
    await app.state.redis.get(f"truth:port{client}.{turn}")
    return {"port": client, "turn": turn, **received(request)}
