"""Who asked how much: one hash for each agent."""
from app.clients import clients


async def record_request(agent: str) -> None:
    await clients.redis.hincrby(f"usage:{agent}", "requests", 1)
