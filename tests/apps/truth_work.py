"""What a request's code can do, one function a construct: each makes calls whose Redis keys and URLs carry the request's
id, so that the right parent of every client span is known without the tracer. constructs*.py put them behind the routes
/truth-NAME/ID of a framework each; GET /constructs tells which there are, and how many calls each makes.

Owns: the clients (opened by start()) and the table CONSTRUCTS. Refuses: frameworks; runs on Python 3.9 and later.
env: AGENT_URL (truth_backend.py or agent_service.py), REDIS_PORT, HEARTBEAT (seconds between the calls of a task beside all
     requests; 0: none)
"""
import asyncio
import contextvars
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
import anyio
import httpx
import redis
import redis.asyncio
import requests
from sqlalchemy.util import await_only, greenlet_spawn

AGENT_URL = os.environ.get("AGENT_URL", "http://127.0.0.1:8001")
REDIS = {"host": "127.0.0.1", "port": int(os.environ.get("REDIS_PORT", "6379"))}
HEARTBEAT = float(os.environ.get("HEARTBEAT", "0"))
LATER_SECONDS = 0.005
FOREVER_MS = 400  # an answer that nobody waits for

CONSTRUCTS = {}
CASE = contextvars.ContextVar("case", default=None)
clients = type("Clients", (), {})()  # redis, http, session, blocking, blocking_http, pool, jobs, tasks
local = threading.local()


def construct(calls, least=None, linked=True, since=(3, 9), style="plain", status=200, prefix=""):
    """
    Adds a function (request_id) to the table. `calls`: how many client spans it makes, at least `least` of them. Not
    `linked`: the interpreter itself doesn't know whose calls they are. `style`: how the client is to send the request
    (tests/e2e/truth_load.py). `prefix` stands before /truth-NAME/ID.
    """

    def add(function):
        if sys.version_info >= since:
            CONSTRUCTS[function.__name__] = {
                "run": function, "calls": calls, "least": calls if least is None else least, "linked": linked,
                "style": style, "status": status, "prefix": prefix}
        return function

    return add


def described(accepted=lambda c: True):
    """The table as GET /constructs gives it."""
    return {name: {k: v for k, v in c.items() if k != "run"} for name, c in CONSTRUCTS.items() if accepted(c)}


async def start():
    """Inside the loop, before the first request; its own calls belong to no request."""
    clients.redis = redis.asyncio.Redis(**REDIS, decode_responses=True)
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=200)
    clients.http = httpx.AsyncClient(base_url=AGENT_URL, timeout=20, limits=limits, trust_env=False)
    clients.session = aiohttp.ClientSession(AGENT_URL)
    start_blocking()
    clients.tasks = {asyncio.create_task(serve_jobs())}
    await use_redis("startup.1")
    await use_http("startup.2")
    if HEARTBEAT:
        clients.tasks.add(asyncio.create_task(heartbeat()))


def start_blocking():
    clients.blocking = redis.Redis(**REDIS, decode_responses=True)
    clients.blocking_http = httpx.Client(base_url=AGENT_URL, timeout=20, trust_env=False)
    clients.pool = ThreadPoolExecutor(4)


async def stop():
    for task in list(clients.tasks):
        task.cancel()
    await clients.http.aclose()
    await clients.session.close()
    await clients.redis.aclose()
    clients.pool.shutdown(wait=False)


async def heartbeat():
    for beat in range(1, 1 << 40):
        await asyncio.sleep(HEARTBEAT)
        await use_redis(f"heartbeat.{beat}")


async def serve_jobs():
    """One task that works for all requests."""
    clients.jobs = asyncio.Queue()
    while True:
        request_id, done = await clients.jobs.get()
        await use_redis(request_id)
        done.set_result(None)


# --- calls ---


async def use_redis(request_id):
    await clients.redis.get(f"truth:{request_id}")


async def use_http(request_id):
    answer = await clients.http.get(f"/work/{request_id}")
    assert answer.json()["id"] == request_id


async def use_both(request_id):
    await use_redis(request_id)
    await use_http(request_id)


def block_redis(request_id):
    clients.blocking.get(f"truth:{request_id}")


def block_http(request_id):
    if not hasattr(local, "session"):
        local.session = requests.Session()
        local.session.trust_env = False
    assert local.session.get(f"{AGENT_URL}/work/{request_id}", timeout=20).json()["id"] == request_id


def block_both(request_id):
    block_redis(request_id)
    block_http(request_id)


async def pause():
    """Lets the others run, sometimes for long enough that they end."""
    await asyncio.sleep(random.choice((0, 0, 0.001, 0.003)))


async def later(request_id):
    await asyncio.sleep(LATER_SECONDS)
    await use_redis(request_id)
    await use_redis(request_id)


def block_later(request_id):
    time.sleep(LATER_SECONDS)
    block_redis(request_id)


def keep(task):
    """The loop itself holds tasks weakly only."""
    clients.tasks.add(task)
    task.add_done_callback(clients.tasks.discard)
    return task


# --- awaits and tasks ---


@construct(0)
async def plain(request_id: str):
    """No call at all: there while others make theirs."""
    return {"id": request_id}


@construct(3)
async def await_chain(request_id: str):
    async def deeper(depth):
        await pause()
        if depth:
            await deeper(depth - 1)
        else:
            await use_both(request_id)

    await deeper(3)
    await use_redis(request_id)
    return {"id": request_id}


@construct(4)
async def create_task(request_id: str):
    async def work():
        await use_redis(request_id)
        await asyncio.create_task(use_both(request_id))

    await asyncio.create_task(work())
    await use_redis(request_id)
    return {"id": request_id}


@construct(4)
async def gather(request_id: str):
    await asyncio.gather(use_redis(request_id), use_http(request_id), use_both(request_id))
    return {"id": request_id}


@construct(3, since=(3, 11))
async def task_group(request_id: str):
    async with asyncio.TaskGroup() as group:
        group.create_task(use_redis(request_id))
        group.create_task(use_both(request_id))
    return {"id": request_id}


@construct(3)
async def anyio_group(request_id: str):
    async with anyio.create_task_group() as group:
        group.start_soon(use_redis, request_id)
        group.start_soon(use_both, request_id)
    return {"id": request_id}


@construct(2, since=(3, 11))
async def task_context(request_id: str):
    task = asyncio.get_running_loop().create_task(use_both(request_id), context=contextvars.copy_context())
    await task
    return {"id": request_id}


@construct(2, since=(3, 12))
async def eager_task(request_id: str):
    """Runs up to its first wait before create_task is back."""
    loop = asyncio.get_running_loop()
    await asyncio.eager_task_factory(loop, use_both(request_id))
    return {"id": request_id}


@construct(3, least=2)
async def wait_for(request_id: str):
    """One that is in time, one that is cancelled."""
    await asyncio.wait_for(use_redis(request_id), 20)
    try:
        await asyncio.wait_for(clients.http.get(f"/work/{request_id}?ms={FOREVER_MS}"), 0.02)
    except asyncio.TimeoutError:
        pass
    await use_redis(request_id)
    return {"id": request_id}


@construct(2, least=1, since=(3, 11))
async def timeout(request_id: str):
    try:
        async with asyncio.timeout(0.02):
            await clients.session.get(f"/work/{request_id}?ms={FOREVER_MS}")
    except asyncio.TimeoutError:
        pass
    await use_redis(request_id)
    return {"id": request_id}


@construct(2, least=1)
async def cancelled(request_id: str):
    task = asyncio.create_task(clients.http.get(f"/work/{request_id}?ms={FOREVER_MS}"))
    await asyncio.sleep(0.01)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await use_redis(request_id)
    return {"id": request_id}


@construct(3)
async def call_soon(request_id: str):
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def second():
        task = keep(loop.create_task(use_both(request_id)))
        task.add_done_callback(lambda t: done.set_result(t.exception()))

    loop.call_soon(loop.call_soon, second)
    assert await done is None
    await use_redis(request_id)
    return {"id": request_id}


@construct(2)
async def call_later(request_id: str):
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def begin():
        task = keep(loop.create_task(use_both(request_id)))
        task.add_done_callback(lambda t: done.set_result(t.exception()))

    loop.call_later(random.choice((0, 0.002)), begin)
    assert await done is None
    return {"id": request_id}


@construct(4)
async def async_generator(request_id: str):
    async def steps():
        for _ in range(2):
            await use_redis(request_id)
            yield True
            await pause()

    @asynccontextmanager
    async def around():
        await use_redis(request_id)
        yield
        await use_redis(request_id)

    async with around():
        assert [step async for step in steps()] == [True, True]
    return {"id": request_id}


@construct(2)
async def aiohttp_client(request_id: str):
    async with clients.session.get(f"/work/{request_id}") as answer:
        assert (await answer.json())["id"] == request_id
    async with clients.session.post(f"/work/{request_id}", data=b"x" * 3000) as answer:
        assert answer.status == 200
    return {"id": request_id}


@construct(2)
async def redis_pipeline(request_id: str):
    async with clients.redis.pipeline(transaction=False) as pipe:
        pipe.incr(f"truth:{request_id}").expire(f"truth:{request_id}", 60).get(f"truth:{request_id}")
        await pipe.execute()
    await use_redis(request_id)
    return {"id": request_id}


@construct(3)
async def library_tasks(request_id: str):
    """Tasks whose only coroutines are the libraries'."""
    await asyncio.gather(*(clients.redis.get(f"truth:{request_id}") for _ in range(2)),
                         clients.http.get(f"/work/{request_id}"))
    return {"id": request_id}


@construct(3)
async def library_threads(request_id: str):
    """The libraries' functions in threads."""
    key = f"truth:{request_id}"
    await asyncio.to_thread(clients.blocking.get, key)
    await anyio.to_thread.run_sync(clients.blocking.get, key)
    await asyncio.get_running_loop().run_in_executor(clients.pool, clients.blocking.get, key)
    return {"id": request_id}


@construct(1)
def library_thread(request_id: str):
    thread = threading.Thread(target=clients.blocking.get, args=(f"truth:{request_id}",))
    thread.start()
    thread.join()
    return {"id": request_id}


@construct(1, linked=False)
async def job_queue(request_id: str):
    """Done by a task that works for all: only the application knows for whom."""
    done = asyncio.get_running_loop().create_future()
    await clients.jobs.put((request_id, done))
    await done
    return {"id": request_id}


# --- after the answer ---


@construct(2)
async def task_forget(request_id: str):
    keep(asyncio.create_task(later(request_id)))
    return {"id": request_id}


@construct(2)
async def late_forget(request_id: str):
    """The task that goes on is made by a task that ended."""

    async def first():
        keep(asyncio.create_task(later(request_id)))

    await asyncio.create_task(first())
    return {"id": request_id}


@construct(1)
async def thread_forget(request_id: str):
    threading.Thread(target=block_later, args=(request_id,), daemon=True).start()
    return {"id": request_id}


@construct(1)
async def executor_forget(request_id: str):
    asyncio.get_running_loop().run_in_executor(None, block_later, request_id)
    return {"id": request_id}


# --- threads ---


@construct(3)
def def_endpoint(request_id: str):
    block_both(request_id)
    assert clients.blocking_http.get(f"/work/{request_id}").status_code == 200
    return {"id": request_id}


@construct(2)
async def to_thread(request_id: str):
    await asyncio.to_thread(block_both, request_id)
    return {"id": request_id}


@construct(2)
async def executor_default(request_id: str):
    await asyncio.get_running_loop().run_in_executor(None, block_both, request_id)
    return {"id": request_id}


@construct(3)
async def executor_own(request_id: str):
    await asyncio.get_running_loop().run_in_executor(clients.pool, block_both, request_id)
    await use_redis(request_id)
    return {"id": request_id}


@construct(2)
async def submit(request_id: str):
    await asyncio.gather(*(asyncio.wrap_future(clients.pool.submit(block_redis, request_id)) for _ in range(2)))
    return {"id": request_id}


@construct(3)
def submit_def(request_id: str):
    block_redis(request_id)
    list(clients.pool.map(block_redis, [request_id, request_id]))
    return {"id": request_id}


@construct(2)
def own_pool(request_id: str):
    """A pool for this request alone: its threads are new, and end with it."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(block_redis, [request_id, request_id]))
    return {"id": request_id}


@construct(2)
async def nested_executor(request_id: str):
    """An item of one executor puts an item into another."""

    def outer():
        block_redis(request_id)
        clients.pool.submit(block_redis, request_id).result()

    await asyncio.get_running_loop().run_in_executor(None, outer)
    return {"id": request_id}


@construct(2)
def thread_joined(request_id: str):
    threads = [threading.Thread(target=block_redis, args=(request_id,)) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return {"id": request_id}


@construct(2)
async def threadsafe(request_id: str):
    """From the loop into a thread and back into the loop."""
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(use_both(request_id), loop).result())
    return {"id": request_id}


@construct(1)
async def loop_in_thread(request_id: str):
    """asyncio.run in a thread: a loop, its tasks and its connections for one request."""

    async def alone():
        async with redis.asyncio.Redis(**REDIS) as own:
            await asyncio.create_task(own.execute_command("GET", f"truth:{request_id}"))

    await asyncio.to_thread(asyncio.run, alone())
    return {"id": request_id}


# --- contexts and greenlets ---


@construct(2)
async def copied_context(request_id: str):
    await contextvars.copy_context().run(asyncio.create_task, use_both(request_id))
    return {"id": request_id}


@construct(2)
async def empty_context(request_id: str):
    """A context that is no copy, made by the request all the same."""
    await contextvars.Context().run(asyncio.create_task, use_both(request_id))
    return {"id": request_id}


@construct(2)
def context_def(request_id: str):
    contextvars.copy_context().run(block_both, request_id)
    return {"id": request_id}


@construct(2)
async def variable_set(request_id: str):
    """A context that was written to holds other variables, and is the same."""
    CASE.set(request_id)
    await use_both(request_id)
    assert CASE.get() == request_id
    return {"id": request_id}


@construct(2)
async def greenlet(request_id: str):
    """What SQLAlchemy does: synchronous code in a greenlet awaits through its parent."""

    def work():
        await_only(use_redis(request_id))
        await_only(use_http(request_id))

    await greenlet_spawn(work)
    return {"id": request_id}


# --- how the request comes ---


@construct(1, style="pipelined")
async def pipelined(request_id: str):
    await use_redis(request_id)
    return {"id": request_id}


@construct(2, style="split_head")
async def split_head(request_id: str):
    await use_both(request_id)
    return {"id": request_id}


@construct(1, style="new_connection")
async def new_connection(request_id: str):
    await use_redis(request_id)
    return {"id": request_id}


@construct(2, least=0, style="disconnect", status=0)
async def disconnect(request_id: str):
    """The client goes away in between."""
    await use_redis(request_id)
    await asyncio.sleep(0.03)
    await use_redis(request_id)
    return {"id": request_id}
