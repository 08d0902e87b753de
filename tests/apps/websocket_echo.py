"""A WebSocket that gives back what it gets, at /ws; /seen tells how many traceparents the request came with.

run: python -m uvicorn websocket_echo:app --host 127.0.0.1 --port N
"""
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute


async def echo(socket):
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        await socket.send({**message, "type": "websocket.send"})


async def seen(request):
    return JSONResponse(len(request.headers.getlist("traceparent")))


app = Starlette(routes=[WebSocketRoute("/ws", echo), Route("/seen", seen)])
