"""The gateway: a FastAPI service under uvicorn and uvloop that calls the agent service over httpx and uses Redis, with
a route for each way in which such services make calls. The /truth routes carry the request's id into every key and
URL that they touch, so a test can tell the right parent of every client span.

env: AGENT_URL (default http://127.0.0.1:8001), REDIS_PORT or REDIS_UNIX (see agent_service.py),
     DEAD_PORT (a loopback port where nobody listens; default 1)
run: python -m uvicorn gateway:app --host 127.0.0.1 --port N
"""
import asyncio
import os
from contextlib import asynccontextmanager

import httpx
import requests
from agent_service import redis_client
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

AGENT_URL = os.environ.get("AGENT_URL", "http://127.0.0.1:8001")
DEAD_URL = f"http://127.0.0.1:{os.environ.get('DEAD_PORT', '1')}"


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.redis = redis_client()
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=AGENT_URL, timeout=10, limits=limits, trust_env=False) as client:
        app.state.http = client
        yield
    await app.state.redis.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/items/{item_id}")
async def item(item_id: int, q: str | None = None):
    if item_id == 404:
        raise HTTPException(status_code=404, detail="no such item")
    return {"item_id": item_id, "q": q}


@app.post("/items")
async def create_item(request: Request):
    body = await request.body()
    return Response(status_code=201, content=str(len(body)), media_type="text/plain")


@app.get("/redis")
async def use_redis():
    """A pipeline and a plain command, as a rate limiter does it."""
    async with app.state.redis.pipeline(transaction=False) as pipe:
        pipe.incr("rate:gateway")
        pipe.expire("rate:gateway", 60)
        pipe.get("rate:gateway")
        count = (await pipe.execute())[0]
    await app.state.redis.hincrby("usage:gateway", "calls", 1)
    return {"count": count}


@app.get("/call")
async def call():
    """Rate limit in Redis, then the agent: the shape of the product's main request."""
    await app.state.redis.incr("rate:call")
    answer = await app.state.http.post("/rpc", json={"agent": "writer", "text": "hello"})
    return answer.json()


@app.get("/fanout")
async def fanout():
    answers = await asyncio.gather(*(app.state.http.get(f"/work/part-{n}") for n in range(3)))
    return [a.json()["id"] for a in answers]


@app.get("/sync")
def sync_route():
    """A `def` route: anyio runs it in a worker thread."""
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{AGENT_URL}/work/sync", timeout=10).json()


@app.get("/background")
async def background(tasks: BackgroundTasks):
    """Work that goes on after the answer."""

    async def later():
        await app.state.redis.incr("background:done")

    tasks.add_task(later)
    return {"accepted": True}


@app.get("/stream")
async def stream(chunks: int = 3):
    async def body():
        for n in range(chunks):
            yield f"chunk {n}\n".encode()
            await asyncio.sleep(0)

    return StreamingResponse(body(), media_type="text/plain")


@app.get("/fail")
async def fail():
    raise RuntimeError("this route always fails")


@app.get("/upstream-down")
async def upstream_down():
    """The agent service is not there: the connection is refused."""
    try:
        await app.state.http.get(f"{DEAD_URL}/nobody")
    except httpx.ConnectError:
        return Response(status_code=502)
    return Response(status_code=500)


@app.get("/upstream-slow")
async def upstream_slow(ms: int = 500):
    """The agent service does not answer in time: the call is given up."""
    try:
        await app.state.http.get("/slow", params={"ms": ms}, timeout=ms / 5000)
    except httpx.ReadTimeout:
        return Response(status_code=504)
    return {"slow": False}


@app.get("/truth/{request_id}")
async def truth(request_id: str):
    """One Redis command and one HTTP call, both carrying the id."""
    await app.state.redis.get(f"truth:{request_id}")
    answer = await app.state.http.get(f"/work/{request_id}")
    assert answer.json()["id"] == request_id
    return {"id": request_id}


@app.get("/truth-fanout/{request_id}")
async def truth_fanout(request_id: str):
    await asyncio.gather(app.state.redis.get(f"truth:{request_id}"), app.state.http.get(f"/work/{request_id}"),
                         app.state.http.get(f"/work/{request_id}"))
    return {"id": request_id}


@app.get("/truth-sync/{request_id}")
def truth_sync(request_id: str):
    with requests.Session() as session:
        session.trust_env = False
        session.get(f"{AGENT_URL}/work/{request_id}", timeout=10)
    return {"id": request_id}
