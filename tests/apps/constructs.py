"""FastAPI: all of truth_work.py as endpoints, and what FastAPI and Starlette add: dependencies, background tasks, streams,
middlewares around a sub-application, websockets, errors.

run: python -m uvicorn constructs:app   (or hypercorn, granian, gunicorn); env: see truth_work.py
"""
import asyncio
from contextlib import asynccontextmanager

import truth_work as work
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from truth_work import construct


@asynccontextmanager
async def lifespan(app):
    await work.start()
    yield
    await work.stop()


app = FastAPI(lifespan=lifespan)
inner = FastAPI()


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.get("/constructs")
async def constructs():
    return work.described()


# --- dependencies ---


async def needs_redis(request_id: str):
    await work.use_redis(request_id)
    return request_id


async def needs_both(request_id: str, first: str = Depends(needs_redis)):
    await asyncio.create_task(work.use_http(first))
    yield request_id
    await work.use_redis(request_id)


def needs_blocking(request_id: str):
    work.block_redis(request_id)
    return request_id


def needs_blocking_around(request_id: str):
    work.block_redis(request_id)
    yield request_id
    work.block_redis(request_id)


@construct(4)
async def depends_async(request_id: str, needed: str = Depends(needs_both)):
    await work.use_redis(request_id)
    return {"id": needed}


@construct(4)
async def depends_def(request_id: str, one: str = Depends(needs_blocking), two: str = Depends(needs_blocking_around)):
    await work.use_redis(request_id)
    return {"id": two}


# --- after the answer, and along with it ---


@construct(4)
async def background(request_id: str, tasks: BackgroundTasks):
    tasks.add_task(work.later, request_id)
    tasks.add_task(work.block_later, request_id)
    await work.use_redis(request_id)
    return {"id": request_id}


@construct(3)
def background_def(request_id: str, tasks: BackgroundTasks):
    tasks.add_task(work.later, request_id)
    work.block_redis(request_id)
    return {"id": request_id}


@construct(4)
async def streaming(request_id: str):
    async def body():
        for n in range(3):
            await work.use_redis(request_id)
            yield f"{request_id} {n}\n"
            await work.pause()

    await work.use_http(request_id)
    return StreamingResponse(body(), media_type="text/plain")


@construct(3)
async def streaming_def(request_id: str):
    """A plain generator, each step of it in a thread."""

    def body():
        for n in range(3):
            work.block_redis(request_id)
            yield f"{request_id} {n}\n"

    return StreamingResponse(body(), media_type="text/plain")


# --- middlewares around a sub-application ---


class Around:
    """A pure ASGI middleware."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        if "/truth-asgi_middleware/" not in path:
            return await self.wrapped(scope, receive, send)
        request_id = path.rsplit("/", 1)[1]
        await work.use_redis(request_id)
        await self.wrapped(scope, receive, send)
        await work.use_redis(request_id)


class Dispatch(BaseHTTPMiddleware):
    """One that runs what it wraps in a task of its own."""

    async def dispatch(self, request: Request, call_next):
        request_id = request.url.path.rsplit("/", 1)[1]
        await work.use_redis(request_id)
        response = await call_next(request)
        await work.use_redis(request_id)
        return response


inner.add_middleware(Around)
inner.add_middleware(Dispatch)


@construct(4, prefix="/inner")
async def http_middleware(request_id: str):
    await work.use_both(request_id)
    return {"id": request_id}


@construct(5, prefix="/inner")
async def asgi_middleware(request_id: str):
    await work.use_redis(request_id)
    return {"id": request_id}


@construct(4, prefix="/inner")
def middleware_def(request_id: str):
    work.block_both(request_id)
    return {"id": request_id}


# --- how the request comes, and how it ends ---


@construct(2, style="body_pieces")
async def body_pieces(request_id: str, request: Request):
    seen = 0
    async for piece in request.stream():
        if piece and not seen:
            await work.use_redis(request_id)
        seen += len(piece)
    await work.use_http(request_id)
    return {"id": request_id, "bytes": seen}


@construct(2, style="chunked_body")
async def chunked_body(request_id: str, request: Request):
    body = await request.body()
    await work.use_both(request_id)
    return {"id": request_id, "bytes": len(body)}


@construct(1, style="head_then_body")
async def continues(request_id: str, request: Request):
    """The client sends the body once it was told to go on."""
    body = await request.body()
    await work.use_redis(request_id)
    return {"id": request_id, "bytes": len(body)}


@construct(2, style="websocket", status=101)
async def websocket(socket: WebSocket, request_id: str):
    await work.use_redis(request_id)
    await socket.accept()
    await work.use_redis(request_id)
    await socket.send_text(request_id)
    await socket.close()


@construct(1, status=500)
async def exception(request_id: str):
    await work.use_redis(request_id)
    raise RuntimeError(f"on purpose: {request_id}")


@construct(1, status=418)
async def http_error(request_id: str):
    await work.use_redis(request_id)
    raise HTTPException(418, request_id)


def add_routes():
    for name, c in work.CONSTRUCTS.items():
        path = f"/truth-{name}/{{request_id}}"
        if c["style"] == "websocket":
            app.add_api_websocket_route(path, c["run"])
        else:
            (inner if c["prefix"] else app).add_api_route(path, c["run"], methods=["GET", "POST"])
    app.mount("/inner", inner)


add_routes()
