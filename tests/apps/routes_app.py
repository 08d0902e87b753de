"""FastAPI routes of every kind, and a wrapper around all that notes what the framework itself says of each request once it
was answered: the parameters that it took from the path, and the endpoint. GET /recorded gives the notes.

run: python -m uvicorn routes_app:app   (with --root-path /api as behind a proxy that takes /api away)
"""
import json

from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

records = []


class Recorder:
    """Outermost: sees the scope as routing has left it."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    async def __call__(self, scope, receive, send):
        if scope.get("path", "").endswith("/recorded"):
            return await JSONResponse(records)(scope, receive, send)
        path = scope.get("path")
        try:
            await self.wrapped(scope, receive, send)
        finally:
            if path is not None:
                endpoint = scope.get("endpoint")
                records.append({"path": path, "method": scope.get("method"), "params": scope.get("path_params"),
                                "endpoint": getattr(endpoint, "__qualname__", None),
                                "line": getattr(getattr(endpoint, "__code__", None), "co_firstlineno", None)})


main = FastAPI(root_path_in_servers=False)
users = APIRouter(prefix="/users/{user_id}")
posts = APIRouter(prefix="/posts")
sub = FastAPI()
tenant = FastAPI()


@main.get("/health")
async def health():
    return {"status": "ok"}


@main.get("/items/{item_id}")
async def read_item(item_id: int):
    if item_id == 404:
        raise HTTPException(404, "no such item")
    if item_id == 500:
        raise RuntimeError("on purpose")
    return {"item_id": item_id}


@main.post("/items", status_code=201)
async def create_item():
    return {"created": True}


@main.get("/def/{name}")
def plain_function(name: str):
    return {"name": name}


@main.get("/files/{file_path:path}")
async def read_file(file_path: str):
    return {"file": file_path}


@main.get("/stream/{count}")
async def stream(count: int):
    async def body():
        for n in range(count):
            yield f"{n}\n"

    return StreamingResponse(body(), media_type="text/plain")


@main.api_route("/both/{name}", methods=["GET", "HEAD"])
async def both(name: str):
    return PlainTextResponse("x")


async def never():
    raise HTTPException(403, "never")


@main.get("/guarded/{name}", dependencies=[Depends(never)])
async def guarded(name: str):
    return {}


@main.websocket("/ws/{room}")
async def room(socket: WebSocket, room: str):
    await socket.accept()
    await socket.close()


@users.get("")
async def read_user(user_id: str):
    return {"user": user_id}


@posts.get("/{post_id}")
async def read_post(user_id: str, post_id: int):
    return {"user": user_id, "post": post_id}


users.include_router(posts)
main.include_router(users, prefix="/v1")
main.include_router(users, prefix="/v2")


@sub.get("/things/{thing_id}")
async def read_thing(thing_id: int):
    return {"thing": thing_id}


@tenant.get("/things/{thing_id}")
async def read_tenant_thing(thing_id: int):
    return {"thing": thing_id}


async def mounted(request):
    return PlainTextResponse(json.dumps(request.path_params))


class Early:
    """Answers before any route is looked for."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    async def __call__(self, scope, receive, send):
        if scope.get("path", "").endswith("/early"):
            return await PlainTextResponse("no", status_code=401)(scope, receive, send)
        headers = dict(scope.get("headers", ()))
        if b"x-forwarded-prefix" in headers:  # as some do behind proxies: what it says is from outside
            scope["root_path"] = headers[b"x-forwarded-prefix"].decode()
        await self.wrapped(scope, receive, send)


main.add_middleware(Early)
main.mount("/sub", sub)
main.mount("/tenants/{tenant}", tenant)
main.router.routes.append(Mount("/plain", routes=[Route("/{name}/x", mounted)]))
app = Recorder(main)
