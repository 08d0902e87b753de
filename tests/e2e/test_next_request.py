"""Requests that begin while the server is not done with the one before on their connection. What it makes for them then is
made in the work for that one, and has to be their own all the same.
"""
import asyncio

import chain
import pytest
import services
import venvs

CONNECTIONS, ROUNDS = 8, 5
BODY = b"x" * 200_000  # uvicorn stops reading at 64 KiB


# --- a body that makes the server stop reading for a while: asyncio makes a new reader in the request's work --------------

class Uploader(chain.Client):
    async def upload(self, path):
        await self.open()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n"
        for piece in (head.encode("latin-1") + BODY[:len(BODY) // 2], BODY[len(BODY) // 2:]):
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)
        status, _ = await self.answer()
        assert status == 200


async def load(port):
    answers = []

    async def worker(k):
        client = Uploader(port)
        try:
            for n in range(ROUNDS):
                await client.upload(f"/call/up{k}x{n}")
                for _ in range(3):
                    answers.append(await asyncio.wait_for(client.get(f"/call/next{len(answers)}x{k}x{n}"), 60))
        finally:
            client.close()

    await asyncio.gather(*(worker(k) for k in range(CONNECTIONS)))
    return answers


@pytest.mark.parametrize("loop,http", [("asyncio", "httptools"), ("asyncio", "h11"), ("uvloop", "httptools")])
def test_requests_behind_uploads(tracing, stack, redis, loop, http):
    pair = chain.Pair(stack, redis, loop=loop, http=http)
    t = pair.trace(tracing)
    chain.run(pair.port, chain.paths("warm", 60), 8)
    answers = asyncio.run(load(pair.port))
    assert sum(len(a.calls) for a in answers) == CONNECTIONS * ROUNDS * 3
    pair.expect(t, t.finish(), answers)


# --- an answer whose last byte is not the end of the work: uvicorn begins what it has queued in there ---------------------

async def load_tails(port, unsampled):
    """The Answers to requests that are sampled, and to those that are not."""
    answers, left_out = [], []

    async def worker(k):
        client = chain.Client(port)
        try:
            for n in range(40):
                path = f"/{'call' if n % 5 == 4 else 'tail'}/t{k}x{n}"
                out = unsampled and (n + k) % 3 == 0
                headers = f"traceparent: 00-{k + 1:016x}{n + 1:016x}-{n + 1:016x}-00\r\n" if out else ""
                answer = await asyncio.wait_for(client.get(path, headers), 60)
                (left_out if out else answers).append(answer)
        finally:
            client.close()

    await asyncio.gather(*(worker(k) for k in range(CONNECTIONS)))
    return answers, left_out


@pytest.mark.parametrize("loop,unsampled", [("uvloop", False), ("uvloop", True), ("asyncio", True), ("uvloop-0.22.1", False),
                                            ("uvloop-0.22.1", True)])
def test_requests_behind_streams(tracing, stack, redis, loop, unsampled):
    loop, _, release = loop.partition("-")
    python = venvs.Interpreter(services.PYTHON, "3.11")
    pair = chain.Pair(stack, redis, venvs.with_package(python, loop, release) if release else python, loop=loop)
    t = pair.trace(tracing)
    chain.run(pair.port, chain.paths("warm", 60), 8)
    answers, left_out = asyncio.run(load_tails(pair.port, unsampled))
    chain.run(pair.port, chain.paths("again", 60), 8)
    later = chain.run(pair.port, chain.paths("later", 90), 8)
    spans = t.finish()
    assert not chain.count(t.agent, "parent_other_trace"), t.agent.output()[-3000:]
    assert sum(len(a.calls) for a in answers) == len(answers)
    pair.expect(t, spans, answers, ("linked",))
    clients = chain.Seen(spans).clients
    strays = [s for a in left_out for call in a.calls for s in clients.get(call["id"], [])]
    assert not [chain.brief(s) for s in strays if s.parent_id]
    pair.expect(t, spans, later)  # nothing of it stays behind
