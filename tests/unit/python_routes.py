"""Applications of FastAPI, Starlette and aiohttp whose scopes test_python_routes.c reads: one request for each way a route
can come about, and the http.route that it should have.

Prints "ready" when all is set up, and after a line of input what to compare; expectations that the framework itself
contradicts (its status, its own telemetry's route) are printed as "wrong".
"""
import asyncio, functools, os, sys, warnings
warnings.simplefilter("ignore")
import contextlib
from unittest import mock
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
import fastapi.routing
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
import uvicorn.protocols.http.h11_impl as h11
try:
    import uvicorn.protocols.http.httptools_impl as httptools
except ImportError:
    httptools = None
import aiohttp.web, aiohttp.web_protocol
from aiohttp.test_utils import make_mocked_request


def wrapped(f):
    @functools.wraps(f)
    async def wrapper(*args, **kwargs):
        return await f(*args, **kwargs)
    return wrapper


def handler(name):
    async def endpoint(request: Request):
        return PlainTextResponse("")
    endpoint.__name__ = name
    return endpoint


async def plain(request):
    return PlainTextResponse("")


async def plain_too(request):
    return PlainTextResponse("")


def blocking(request):
    return PlainTextResponse("")


class Klass(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("")


async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.close()


class Quiet(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        return await call_next(request)


app = FastAPI()
app.add_middleware(Quiet)


@app.get("/items/{item_id}")
async def read_item(item_id: int):
    return item_id


@app.get("/checked/{name}")
@wrapped
async def checked(name: str):
    raise HTTPException(403)


@app.get("/broken/{name}")
def broken(name: str):
    raise ValueError


@app.get("/files/{where:path}")
async def files(where: str):
    return where


@app.get("/one/{x}")
@app.get("/other/{x}")
async def both(x: str):
    return x


@app.websocket("/ws/{room}")
async def room(websocket: WebSocket, room: str):
    await socket(websocket)


things = APIRouter(prefix="/things")


@things.get("/{thing_id}")
async def thing(thing_id: str):
    return thing_id


@things.websocket("/{thing_id}/ws")
async def thing_socket(websocket: WebSocket, thing_id: str):
    await socket(websocket)


things.add_route("/plain/{y}", plain_too)
version = APIRouter(prefix="/v1", dependencies=[Depends(lambda: None)])
version.include_router(things)
app.include_router(version, prefix="/api/{tenant}")
app.include_router(things, prefix="/again")
app.add_route("/starlette/{z}", plain)

inner = FastAPI()


@inner.get("/users/{user_id}")
async def user(user_id: str):
    return user_id


deepest = FastAPI()


@deepest.get("/leaf/{leaf}")
async def leaf(leaf: str):
    return leaf


inner.mount("/deeper/{level}", deepest)
app.mount("/sub", inner)
app.mount("/org/{org}/v{number}", inner)
app.mount("/static", StaticFiles(directory=os.path.dirname(os.path.abspath(__file__))))
app.mount("/wide/{all:path}/end", deepest)

configured = FastAPI(root_path="/configured")
configured.add_api_route("/in/{it}", user)

bare = Starlette(
    routes=[
        Route("/", plain),
        Route("/users/{id:int}", plain_too, methods=["GET", "POST"]),
        Route("/class/{c}", Klass),
        Route("/partial/{p}", functools.partial(plain)),
        Route("/blocking/{b}", blocking),
        WebSocketRoute("/ws/{w}", socket),
        Mount("/m/{m}", routes=[Route("/inner/{i}", handler("h1")), Mount("/n", app=Quiet(Router([Route("/last", handler("h2"))])))]),
        Mount("/fast", app=inner),
        Host("{who}.example.org", app=Router([Route("/hosted/{h}", handler("h4"))])),
    ]
)

unprefixed = Starlette(routes=[Mount("", routes=[Route("/unprefixed/{u}", handler("h3"))])])

print("ready", flush=True)
sys.stdin.readline()
keep = []
telemetry = getattr(fastapi.routing, "_route_selected", None)


def run(app, path, method, type_, root):
    scope = {
        "type": type_, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": root + path,
        "raw_path": (root + path).encode(), "root_path": root, "query_string": b"", "scheme": "http",
        "headers": [(b"host", b"a.example.org" if "hosted" in path else b"localhost")],
        "server": ("localhost", 80), "client": ("127.0.0.1", 1), "state": {}, "extensions": {},
    }
    if type_ == "websocket":
        scope["subprotocols"] = []
    if telemetry:
        from fastapi.telemetry._api import _RequestTelemetry
        scope["fastapi.telemetry"] = _RequestTelemetry(span=None, span_method=method)
    status = []

    async def receive():
        return {"type": type_ + (".connect" if type_ == "websocket" else ".request"), "body": b"", "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            status.append(message["status"])

    with contextlib.suppress(Exception):
        asyncio.run(app(scope, receive, send))
    return scope, status[0] if status else 0


def case(app, path, expected, function="", method="GET", type_="http", root="", status=None, setting=True):
    scope, got = run(app, path, method, type_, root)
    if status is not None and got != status:
        print("wrong", 0, path, got, sep="\t")
    keep.append(scope)
    said = getattr(scope.get("fastapi.telemetry"), "route", None)
    ids = [id(scope[k]) if scope.get(k) is not None else 0 for k in ("route", "endpoint", "router")]
    context = scope.get("fastapi", {}).get("effective_route_context")
    for key in scope:
        if key in ("route", "endpoint", "router", "root_path", "fastapi"):
            print("key", hex(id(key)), key, sep="\t")
    for key in scope.get("fastapi", {}):
        if key == "effective_route_context":
            print("key", hex(id(key)), key, sep="\t")
    print("case", hex(id(scope)), *map(hex, ids), hex(id(context)) if context is not None else "0x0",
          scope.get("root_path", ""), expected, function, path, sep="\t")
    # what FastAPI says of itself, where the whole application is FastAPI's
    if said and expected and isinstance(app, FastAPI) and (root if setting else "") + said != expected and app is not configured:
        print("wrong", 0, path, said, sep="\t")


for turn in range(2):
    case(app, "/items/3", "/items/{item_id}", "read_item", status=200)
    case(app, "/items/x", "/items/{item_id}", "read_item", status=422)
    case(app, "/items/3", "/items/{item_id}", "read_item", method="POST", status=405)
    case(app, "/items/3", "/items/{item_id}", "read_item", method="HEAD", status=405)
    case(app, "/checked/n", "/checked/{name}", "checked", status=403)
    case(app, "/broken/n", "/broken/{name}", "broken", status=500)
    case(app, "/files/a/b/c", "/files/{where}", "files", status=200)
    case(app, "/one/1", "/one/{x}", "both", status=200)
    case(app, "/other/1", "/other/{x}", "both", status=200)
    case(app, "/none", "", status=404)
    case(app, "/ws/1", "/ws/{room}", "room", type_="websocket")
    case(app, "/api/t1/v1/things/9", "/api/{tenant}/v1/things/{thing_id}", "thing", status=200)
    case(app, "/api/t1/v1/things/9", "/api/{tenant}/v1/things/{thing_id}", "thing", method="PUT", status=405)
    case(app, "/again/things/9", "/again/things/{thing_id}", "thing", status=200)
    case(app, "/api/t1/v1/things/9/ws", "/api/{tenant}/v1/things/{thing_id}/ws", "thing_socket", type_="websocket")
    # one endpoint under two prefixes, and no route in the scope: not certain before FastAPI 0.137
    case(app, "/again/plain/y", "/again/plain/{y}" if telemetry else "", "plain_too", status=200)
    case(app, "/starlette/z", "/starlette/{z}", "plain", status=200)
    case(app, "/sub/users/1", "/sub/users/{user_id}", "user", status=200)
    case(app, "/sub/nothing", "/sub/{path}", status=404)
    case(app, "/sub/docs", "/sub/docs", status=200)
    case(app, "/org/acme/v7/users/1", "/org/{org}/v{number}/users/{user_id}", "user", status=200)
    case(app, "/org/sub/v7/users/1", "/org/{org}/v{number}/users/{user_id}", "user", status=200)
    case(app, "/sub/deeper/1/leaf/2", "/sub/deeper/{level}/leaf/{leaf}", "leaf", status=200)
    case(app, "/org/o/v1/deeper/1/leaf/2", "/org/{org}/v{number}/deeper/{level}/leaf/{leaf}", "leaf", status=200)
    case(app, "/static/missing", "/static/{path}", status=404)
    case(app, "/wide/a/b/end/leaf/2", "", status=200)
    case(app, "/openapi.json", "/openapi.json", status=200)
    case(app, "/items/3", "/proxy/items/{item_id}", "read_item", root="/proxy", status=200)
    # made from a request: no setting of this process
    case(app, "/items/3", "/items/{item_id}", "read_item", root="/tenant-of-a-header", status=200, setting=False)
    case(app, "/org/o/v1/users/1", "/org/{org}/v{number}/users/{user_id}", "user", root="/prox", status=200,
         setting=False)
    case(app, "/org/o/v1/users/1", "/a/b/org/{org}/v{number}/users/{user_id}", "user", root="/a/b", status=200)
    case(configured, "/in/1", "/configured/in/{it}", "user")
    case(bare, "/", "/", "plain", status=200)
    case(bare, "/users/7", "/users/{id}", "plain_too", status=200)
    case(bare, "/users/7", "/users/{id}", "plain_too", method="HEAD", status=200)
    case(bare, "/users/7", "/users/{id}", "plain_too", method="PUT", status=405)
    case(bare, "/users/x", "", status=404)
    case(bare, "/class/c", "/class/{c}", status=200)
    case(bare, "/partial/p", "/partial/{p}", "plain", status=200)
    case(bare, "/blocking/b", "/blocking/{b}", "blocking", status=200)
    case(bare, "/ws/w", "/ws/{w}", "socket", type_="websocket")
    case(bare, "/m/1/inner/2", "/m/{m}/inner/{i}", status=200)
    case(bare, "/m/1/n/last", "/m/{m}/n/last", status=200)
    case(bare, "/m/1/none", "/m/{m}/{path}", status=404)
    case(bare, "/fast/users/1", "/fast/users/{user_id}", "user", status=200)
    case(bare, "/fast/openapi.json", "/fast/openapi.json", status=200)
    case(unprefixed, "/unprefixed/u", "/unprefixed/{u}", status=200)
    case(bare, "/users/7", "/users/{id}", "plain_too", root="/tenant", status=200, setting=False)
    case(bare, "/users/7", "/rooted/users/{id}", "plain_too", root="/rooted", status=200)


# --- aiohttp ---


async def get_user(request):
    return aiohttp.web.Response()


async def aiohttp_cases():
    sub = aiohttp.web.Application()
    sub.router.add_get("/users/{user}", get_user)
    top = aiohttp.web.Application()
    top.router.add_get("/plain", get_user)
    top.router.add_get(r"/items/{item:\d+}", get_user)
    top.add_subapp("/sub/", sub)
    top.freeze()
    for path, expected in (("/plain", "/plain"), ("/items/5", "/items/{item}"), ("/sub/users/5", "/sub/users/{user}"), ("/none", "")):
        request = make_mocked_request("GET", path)
        request._match_info = await top.router.resolve(request)
        keep.append(request)
        print("aiohttp", hex(id(request)), hex(id(request._match_info._route)), expected, "get_user" if expected else "", path, sep="\t")


asyncio.run(aiohttp_cases())

# --- who answers ---

if httptools:
    cycle = httptools.RequestResponseCycle({"is": "scope"}, *[mock.MagicMock()] * 10)
    keep.append(cycle)
    print("answer", hex(id(cycle)), hex(id(httptools.RequestResponseCycle.send.__code__)), hex(id(cycle.scope)), sep="\t")
code = h11.RequestResponseCycle.__init__.__code__
cycle = h11.RequestResponseCycle({"is": "scope"}, *[mock.MagicMock()] * (code.co_argcount - 2))
keep.append(cycle)
print("answer", hex(id(cycle)), hex(id(h11.RequestResponseCycle.send.__code__)), hex(id(cycle.scope)), sep="\t")
for f in (Starlette.__call__, FastAPI.__call__, PlainTextResponse.__call__):
    if "scope" in f.__code__.co_cellvars or f.__code__.co_varnames[1] != "scope":
        print("wrong", 0, f.__qualname__, "scope is no plain local", sep="\t")
    print("local", hex(id(f.__code__)), sep="\t")
for f in (aiohttp.web_protocol.RequestHandler.finish_response, aiohttp.web_protocol.RequestHandler._handle_request):
    if "request" in f.__code__.co_cellvars or f.__code__.co_varnames[1] != "request":
        print("wrong", 0, f.__qualname__, "request is no plain local", sep="\t")
    print("match", hex(id(f.__code__)), hex(id(keep[-3])), sep="\t")
print("ready", flush=True)
sys.stdin.read()
