"""A WebSocket echo (aiohttp) at both ends, and plain requests beside it, for the tests of injection.

`server` prints its port; it echoes messages at /ws, and /seen tells whether the request had a traceparent. `client PORT` does
messages {"count": n}: so many that look like requests, of all sizes, on one WebSocket that stays open; one JSON line back.
"""
import asyncio
import json
import sys

from aiohttp import ClientSession, WSMsgType, web

INNER = "POST /inner HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n"
LARGEST = 4000  # of INNER in a message


async def echo(request):
    socket = web.WebSocketResponse(max_msg_size=1 << 26)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def seen(request):
    return web.json_response(len(request.headers.getall("traceparent", [])))


async def serve():
    app = web.Application()
    app.add_routes([web.get("/ws", echo), web.get("/seen", seen)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("port", site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def messages(session, socket, count):
    said = {"right": 0, "wrong": 0, "requests": 0, "headers": 0}
    for n in range(count):
        text = INNER * (LARGEST if n % 50 == 49 else n % 7 + 1)
        if n % 2:
            await socket.send_bytes(text.encode())
            back = (await socket.receive_bytes(timeout=20)).decode()
        else:
            await socket.send_str(text)
            back = await socket.receive_str(timeout=20)
        said["right" if back == text else "wrong"] += 1
        if n % 10 == 9:
            async with session.get("/seen") as answer:
                said["headers"] += await answer.json()
            said["requests"] += 1
    return said


async def client(port):
    loop = asyncio.get_running_loop()
    async with ClientSession(f"http://127.0.0.1:{port}") as session:
        print("ready", flush=True)
        socket = None
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            socket = socket or await session.ws_connect("/ws", max_msg_size=1 << 26)
            count = json.loads(line.split(" ", 1)[1])["count"]
            print(json.dumps(await messages(session, socket, count)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "server" else client(int(sys.argv[2])))
