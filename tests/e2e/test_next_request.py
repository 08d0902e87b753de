"""Requests that begin while the server is not done with the one before on their connection. What it makes for them then is
made in the work for that one, and has to be their own all the same.
"""
import asyncio

import chain
import pytest

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
    agent = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    app = stack.python_app("chain_gateway", loop=loop, http=http,
                           env={"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    chain.start(t, "--propagate=headers", pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", 60), 8)
    answers = asyncio.run(load(app.port))
    verdict = chain.judge(t.finish(), answers, agent.pids, chain.family(app.pid))
    said = verdict.markdown() + t.agent.output()[-3000:]
    assert not verdict.problems(), said
    for what in ("linked", "header"):
        assert verdict.total("right", what) == CONNECTIONS * ROUNDS * 3, said


# --- an answer whose last byte is not the end of the work: uvicorn begins what it has queued in there ---------------------

async def load_tails(port, unsampled):
    answers = []

    async def worker(k):
        client = chain.Client(port)
        try:
            for n in range(40):
                path = f"/{'call' if n % 5 == 4 else 'tail'}/t{k}x{n}"
                out = unsampled and (n + k) % 3 == 0
                headers = f"traceparent: 00-{k + 1:016x}{n + 1:016x}-{n + 1:016x}-00\r\n" if out else ""
                answer = await asyncio.wait_for(client.get(path, headers), 60)
                if not out:
                    answers.append(answer)
        finally:
            client.close()

    await asyncio.gather(*(worker(k) for k in range(CONNECTIONS)))
    return answers


@pytest.mark.parametrize("loop,unsampled", [("uvloop", False), ("uvloop", True), ("asyncio", True)])
def test_requests_behind_streams(tracing, stack, redis, loop, unsampled):
    agent = chain.start_callee(stack, "uvicorn", {"REDIS_PORT": redis.port})
    app = stack.python_app("chain_gateway", loop=loop,
                           env={"REDIS_PORT": redis.port, "AGENT_URL": f"http://127.0.0.1:{agent.port}"})
    t = tracing()
    chain.start(t, "--propagate=headers", pids=[app.pid, agent.pid])
    chain.run(app.port, chain.paths("warm", 60), 8)
    answers = asyncio.run(load_tails(app.port, unsampled))
    chain.run(app.port, chain.paths("again", 60), 8)
    later = chain.run(app.port, chain.paths("later", 90), 8)
    spans = t.finish()
    verdict = chain.judge(spans, answers, agent.pids, chain.family(app.pid))
    said = verdict.markdown() + t.agent.output()[-3000:]
    assert "parent_other_trace" not in t.agent.output(), said
    assert not verdict.problems(), said
    assert verdict.total("right", "linked") == len(answers), said
    # Nothing of it stays behind.
    verdict = chain.judge(spans, later, agent.pids, chain.family(app.pid))
    calls = sum(len(a.calls) for a in later)
    said = verdict.markdown() + t.agent.output()[-3000:]
    assert not verdict.problems(), said
    assert verdict.total("right", "header") == verdict.total("right", "linked") == calls, said
