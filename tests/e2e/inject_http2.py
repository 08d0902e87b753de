"""gRPC and HTTP/2 in plain text from the first byte at both ends, for the tests of injection.

`KIND server` prints its port; it gives back what it gets. `KIND client PORT` does calls {"count": n}: so many, with bodies
that look like requests, on one connection that stays open; one JSON line back. KIND: grpc, grpc-aio, h2c (hypercorn and
httpx).
"""
import asyncio
import json
import socket
import sys

METHOD = "/spanloom.Echo/Echo"
INNER = b"POST /inner HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n"


def body(n):
    return INNER * (3000 if n % 20 == 19 else n % 7 + 1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def handlers(echo):
    import grpc
    return grpc.method_handlers_generic_handler("spanloom.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})


def serve_grpc():
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers(lambda request, _: request),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("port", port, flush=True)
    server.wait_for_termination()


async def serve_grpc_aio():
    import grpc

    async def echo(request, _):
        return request

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(echo),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("port", port, flush=True)
    await server.wait_for_termination()


async def serve_h2c():
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        got, more = b"", True
        while more:
            message = await receive()
            got, more = got + message.get("body", b""), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-version", scope["http_version"].encode())]})
        await send({"type": "http.response.body", "body": got})

    config, port = Config(), free_port()
    config.bind, config.loglevel = [f"127.0.0.1:{port}"], "CRITICAL"
    print("port", port, flush=True)
    await serve(app, config)


def grpc_client(port):
    import grpc
    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(METHOD)
    return lambda n: call(body(n), timeout=20) == body(n)


def grpc_aio_client(port, loop):
    import grpc

    async def make():
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}").unary_unary(METHOD)

    call = loop.run_until_complete(make())

    async def one(n):
        return await call(body(n), timeout=20) == body(n)

    return lambda n: loop.run_until_complete(one(n))


def h2c_client(port):
    import httpx
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", http1=False, http2=True, trust_env=False, timeout=20)

    def one(n):
        answer = client.post("/echo", content=body(n))
        return answer.headers["x-version"] == "2" and answer.content == body(n)

    return one


def client(kind, port):
    loop = asyncio.new_event_loop() if kind == "grpc-aio" else None
    one = grpc_aio_client(port, loop) if loop else {"grpc": grpc_client, "h2c": h2c_client}[kind](port)
    print("ready", flush=True)
    for line in sys.stdin:
        count = json.loads(line.split(" ", 1)[1])["count"]
        print(json.dumps({"right": sum(one(n) for n in range(count))}), flush=True)


def serve(kind):
    if kind == "grpc":
        serve_grpc()
    else:
        asyncio.run(serve_h2c() if kind == "h2c" else serve_grpc_aio())


if __name__ == "__main__":
    serve(sys.argv[1]) if sys.argv[2] == "server" else client(sys.argv[1], int(sys.argv[3]))
