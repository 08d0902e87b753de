"""A body that makes the server stop reading for a while: what reads on then was made in the work for the request (asyncio
makes a new reader there), and the next request on that connection has to be its own all the same.
"""
import asyncio

import chain
import pytest

CONNECTIONS, ROUNDS = 8, 5
BODY = b"x" * 200_000  # uvicorn stops reading at 64 KiB


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
