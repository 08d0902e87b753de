"""aiohttp.web: the asynchronous ones of truth_work.py, with a stream. aiohttp has one task a connection, which handles its
requests one after the other.

env: see truth_work.py; run: python constructs_aiohttp.py PORT [uvloop]
"""
import inspect
import sys

import truth_work as work
from aiohttp import web
from truth_work import construct


@construct(3)
async def streaming(request_id: str, request: web.Request):
    response = web.StreamResponse()
    await work.use_redis(request_id)
    await response.prepare(request)
    for _ in range(2):
        await work.use_redis(request_id)
        await response.write(request_id.encode())
    await response.write_eof()
    return response


@construct(2, style="body_pieces")
async def body_pieces(request_id: str, request: web.Request):
    await work.use_redis(request_id)
    body = await request.read()
    await work.use_redis(request_id)
    return {"id": request_id, "bytes": len(body)}


@construct(1, status=500)
async def exception(request_id: str):
    await work.use_redis(request_id)
    raise RuntimeError(f"on purpose: {request_id}")


def endpoint(run):
    wants_request = "request" in inspect.signature(run).parameters

    async def handle(request):
        extra = {"request": request} if wants_request else {}
        result = await run(request.match_info["request_id"], **extra)
        return web.json_response(result) if isinstance(result, dict) else result

    return handle


def is_async(c):
    return inspect.iscoroutinefunction(c["run"])


async def health(request):
    return web.json_response({"status": "ok"})


async def constructs(request):
    return web.json_response(work.described(is_async))


async def around(app):
    await work.start()
    yield
    await work.stop()


app = web.Application()
app.cleanup_ctx.append(around)
app.router.add_get("/health", health)
app.router.add_get("/constructs", constructs)
for name, c in work.CONSTRUCTS.items():
    if is_async(c):
        app.router.add_route("*", f"/truth-{name}/{{request_id}}", endpoint(c["run"]))

if __name__ == "__main__":
    loop = None
    if "uvloop" in sys.argv[2:]:
        import uvloop
        loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, loop=loop)
