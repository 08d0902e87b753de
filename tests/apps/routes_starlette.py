"""Starlette's routes without FastAPI, with the recorder of routes_app.py around them.

run: python -m uvicorn routes_starlette:app
"""
from fastapi import FastAPI
from routes_app import Recorder
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route, Router


async def health(request):
    return PlainTextResponse("ok")


async def read_item(request):
    if request.path_params["item_id"] == 404:
        raise HTTPException(404)
    if request.path_params["item_id"] == 500:
        raise RuntimeError("on purpose")
    return PlainTextResponse("item")


def plain_function(request):
    return PlainTextResponse("def")


async def stream(request):
    async def body():
        yield "one"
        yield "two"

    return StreamingResponse(body())


class Things(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("thing")


async def hosted_plain(request):
    return PlainTextResponse("hosted")


async def hosted_route(name: str):
    return name


async def raw(scope, receive, send):
    """An ASGI application that is no router."""
    await PlainTextResponse("raw")(scope, receive, send)


hosted = FastAPI()
hosted.add_route("/plain/{name}", hosted_plain)
hosted.add_api_route("/api/{name}", hosted_route)

routes = [
    Route("/health", health),
    Route("/items/{item_id:int}", read_item),
    Route("/def/{name}", plain_function),
    Route("/stream", stream),
    Route("/things/{thing_id}", Things),
    Mount("/api", routes=[Route("/items/{item_id:int}", read_item), Mount("/deep", routes=[Route("/{name}", health)])]),
    Mount("/tenants/{tenant}", routes=[Route("/items/{item_id:int}", read_item)]),
    Mount("/router", app=Router([Route("/{name}", health)])),
    Mount("/raw", app=raw),
    Mount("/hosts", routes=[Host("127.0.0.1", app=hosted)]),
]
app = Recorder(Starlette(routes=routes))
