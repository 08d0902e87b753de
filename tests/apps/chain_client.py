"""A client that calls one of the chain_* services COUNT times, each call with an id of its own, and prints every answer as
a line of JSON. It begins when the file AFTER is there, so that a tracer can come first.

run: python chain_client.py HOW BASE COUNT TAG AFTER
     HOW is a key of WAYS; BASE http://HOST:PORT, or for the ways over a unix socket its path
"""
import asyncio
import concurrent.futures
import http.client
import json
import os
import socket
import sys
import threading
import time
import urllib.request
from urllib.parse import urlsplit

WORKERS, PIPELINED = 4, 3
local = threading.local()


def kept(name, make):
    """One for each thread."""
    if not hasattr(local, name):
        setattr(local, name, make())
    return getattr(local, name)


def by_requests(base, path, **how):
    import requests

    session = kept("session", requests.Session)
    session.trust_env = False
    return session.get(base + path, **how).text


def by_requests_timeout(base, path):
    """Its sockets don't block, as far as the kernel is concerned."""
    return by_requests(base, path, timeout=10)


def by_urllib(base, path):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(base + path) as answer:
        return answer.read().decode()


def exchange(connection, path):
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def by_http_client(base, path):
    where = urlsplit(base)
    return exchange(kept("http", lambda: http.client.HTTPConnection(where.hostname, where.port)), path)


def by_http_client_post(base, path):
    connection = kept("http", lambda: http.client.HTTPConnection(urlsplit(base).hostname, urlsplit(base).port))
    connection.request("POST", path, body=b"GET /chain/body HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    return connection.getresponse().read().decode()


def unix_connection(base):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(base)
    return connection


def by_http_client_unix(base, path):
    return exchange(kept("http", lambda: unix_connection(base)), path)


def by_urllib3(base, path):
    import urllib3

    return kept("pool", urllib3.PoolManager).request("GET", base + path).data.decode()


def by_httpx(base, path):
    import httpx

    return kept("client", lambda: httpx.Client(base_url=base, trust_env=False)).get(path).text


def in_threads(call):
    def run(base, paths):
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            return list(pool.map(lambda path: call(base, path), paths))

    return run


async def httpx_async(client, paths):
    async with client:
        return [a.text for a in await asyncio.gather(*(client.get(path) for path in paths))]


def by_httpx_async(base, paths):
    import httpx

    return asyncio.run(httpx_async(httpx.AsyncClient(base_url=base, trust_env=False), paths))


def by_httpx_unix(base, paths):
    import httpx

    transport = httpx.AsyncHTTPTransport(uds=base)
    return asyncio.run(httpx_async(httpx.AsyncClient(base_url="http://localhost", transport=transport), paths))


def by_aiohttp(base, paths):
    import aiohttp

    async def one(session, path):
        async with session.get(base + path) as answer:
            return await answer.text()

    async def run():
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(one(session, path) for path in paths))

    return asyncio.run(run())


def read_answer(stream):
    length = 0
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return stream.read(length).decode()


def pipelined(base, paths, cut=None):
    """A few requests in one send, or in two that are cut somewhere within the second request."""
    where, bodies = urlsplit(base), []
    with socket.create_connection((where.hostname, where.port)) as s, s.makefile("rb") as stream:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(paths), PIPELINED):
            some = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths[at:at + PIPELINED]]
            data = b"".join(some)
            where_cut = len(some[0]) + cut if cut is not None else len(data)
            for piece in (data[:where_cut], data[where_cut:]):
                if piece:
                    s.sendall(piece)
                    time.sleep(0.001 if cut is not None else 0)
            bodies += [read_answer(stream) for _ in some]
    return bodies


def by_pipelined_cut(base, paths):
    return [body for n in range(4) for body in pipelined(base, paths[n::4], cut=n * 7)]


WAYS = {"requests": in_threads(by_requests), "requests-timeout": in_threads(by_requests_timeout),
        "urllib": in_threads(by_urllib), "http.client": in_threads(by_http_client),
        "http.client-post": in_threads(by_http_client_post), "http.client-unix": in_threads(by_http_client_unix),
        "urllib3": in_threads(by_urllib3), "httpx": in_threads(by_httpx), "httpx-async": by_httpx_async,
        "httpx-unix": by_httpx_unix, "aiohttp": by_aiohttp, "pipelined": pipelined, "pipelined-cut": by_pipelined_cut}


def main():
    how, base, count, tag, after = sys.argv[1:]
    print("waits", flush=True)
    while not os.path.exists(after):
        time.sleep(0.02)
    for body in WAYS[how](base, [f"/chain/{tag}.{n}" for n in range(int(count))]):
        print(json.dumps(json.loads(body)))
    sys.stdout.flush()
    time.sleep(0.3)


main()
