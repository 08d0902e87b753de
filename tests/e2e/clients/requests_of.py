"""A client that makes the requests it is told to make with one of the usual Python libraries.

usage: requests_of.py LIBRARY PORT, LIBRARY one of those in CLIENTS
stdin: lines "PATH KIND", an empty line runs them, four at a time, on kept connections; then "done" is printed.
Kinds are those of every client here: get, post (a body that looks like requests), chunked, big, own (with a traceparent),
state (with a tracestate alone).
"""
import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

INNER = b"POST /inner HTTP/1.1\r\nHost: inner\r\nContent-Length: 0\r\n\r\n"
BODIES = {"post": INNER * 20, "big": INNER * 6000}
PIECES = [INNER, b"0\r\n\r\n" + INNER, INNER * 100]
OWN = {"TraceParent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}
HEADERS = {"own": OWN, "state": {"tracestate": "vendor=1,other=2"}}
AT_ONCE = 4


def sync_of(make):
    """Runs a batch in threads over what make(base) gives: a function (method, url, body or pieces, headers)."""

    def client(base):
        call = make(base)
        pool = ThreadPoolExecutor(AT_ONCE)

        def one(path, kind):
            body = iter(PIECES) if kind == "chunked" else BODIES.get(kind)
            call("POST" if body else "GET", base + path, body, HEADERS.get(kind, {}))

        return lambda batch: list(pool.map(lambda item: one(*item), batch))

    return client


def with_requests(timeout):
    def make(base):
        import requests

        session = requests.Session()
        session.trust_env = False

        def call(method, url, body, headers):
            assert session.request(method, url, data=body, headers=headers, timeout=timeout).text == "ok"

        return call

    return make


def with_urllib3(timeout):
    def make(base):
        import urllib3

        pool = urllib3.PoolManager(maxsize=AT_ONCE, timeout=timeout, retries=False)

        def call(method, url, body, headers):
            assert pool.request(method, url, body=body, headers=headers).data == b"ok"

        return call

    return make


def with_httpx(base):
    import httpx

    client = httpx.Client(trust_env=False)

    def call(method, url, body, headers):
        assert client.request(method, url, content=body, headers=headers).text == "ok"

    return call


async def pieces():
    for piece in PIECES:
        yield piece
        await asyncio.sleep(0)


def async_of(make, loop_factory=asyncio.new_event_loop):
    def client(base):
        loop = loop_factory()
        asyncio.set_event_loop(loop)
        session = loop.run_until_complete(make())

        async def run(batch):
            at_once = asyncio.Semaphore(AT_ONCE)

            async def one(path, kind):
                async with at_once:
                    body = pieces() if kind == "chunked" else BODIES.get(kind)
                    await session("POST" if body else "GET", base + path, body, HEADERS.get(kind, {}))

            await asyncio.gather(*(one(*item) for item in batch))

        return lambda batch: loop.run_until_complete(run(batch))

    return client


async def with_aiohttp():
    import aiohttp

    session = aiohttp.ClientSession()

    async def call(method, url, body, headers):
        async with session.request(method, url, data=body, headers=headers) as answer:
            assert await answer.text() == "ok"

    return call


async def with_async_httpx():
    import httpx

    client = httpx.AsyncClient(trust_env=False)

    async def call(method, url, body, headers):
        assert (await client.request(method, url, content=body, headers=headers)).text == "ok"

    return call


def uvloop():
    import uvloop

    return uvloop.new_event_loop()


CLIENTS = {"requests": sync_of(with_requests(10)), "requests-blocking": sync_of(with_requests(None)),
           "urllib3": sync_of(with_urllib3(10)), "urllib3-blocking": sync_of(with_urllib3(None)),
           "httpx": sync_of(with_httpx), "httpx-async": async_of(with_async_httpx), "aiohttp": async_of(with_aiohttp),
           "aiohttp-uvloop": async_of(with_aiohttp, uvloop), "httpx-uvloop": async_of(with_async_httpx, uvloop)}


def main():
    run = CLIENTS[sys.argv[1]](f"http://127.0.0.1:{sys.argv[2]}")
    batch = []
    for line in sys.stdin:
        if line.strip():
            batch.append(line.split())
        else:
            run(batch)
            batch = []
            print("done", flush=True)


if __name__ == "__main__":
    main()
