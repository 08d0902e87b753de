"""Starlette without FastAPI: all of truth_work.py, with a stream and a background task of Starlette's own.

run: python -m uvicorn constructs_starlette:app; env: see truth_work.py
"""
import inspect
from contextlib import asynccontextmanager

import truth_work as work
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route
from truth_work import construct


@asynccontextmanager
async def lifespan(app):
    await work.start()
    yield
    await work.stop()


@construct(3)
async def background(request_id: str):
    await work.use_redis(request_id)
    return JSONResponse({"id": request_id}, background=BackgroundTask(work.later, request_id))


@construct(2)
async def streaming(request_id: str):
    async def body():
        for _ in range(2):
            await work.use_redis(request_id)
            yield request_id

    return StreamingResponse(body())


def answer(result):
    return result if not isinstance(result, dict) else JSONResponse(result)


def endpoint(run):
    if inspect.iscoroutinefunction(run):
        async def handle(request):
            return answer(await run(request.path_params["request_id"]))
    else:
        def handle(request):
            return answer(run(request.path_params["request_id"]))
    return handle


async def health(request):
    return JSONResponse({"status": "ok"})


async def constructs(request):
    return JSONResponse(work.described())


truths = [Route(f"/truth-{name}/{{request_id}}", endpoint(c["run"])) for name, c in work.CONSTRUCTS.items()]
app = Starlette(routes=[Route("/health", health), Route("/constructs", constructs), Mount("/", routes=truths)],
                lifespan=lifespan)
