"""How often an agent may be asked: a counter of a minute in Redis."""
from app.clients import clients

LIMIT = 1_000_000_000


async def check(agent: str) -> bool:
    async with clients.redis.pipeline(transaction=False) as pipe:
        pipe.incr(f"rate:{agent}").expire(f"rate:{agent}", 60).get(f"rate:{agent}")
        count = (await pipe.execute())[0]
    return count <= LIMIT
