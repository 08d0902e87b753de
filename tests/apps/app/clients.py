"""The gateway's connections, opened at its start.

env: AGENT_URL, REDIS_PORT
"""
import os

import httpx
import redis
import redis.asyncio

AGENT_URL = os.environ.get("AGENT_URL", "http://127.0.0.1:8001")
REDIS = {"host": "127.0.0.1", "port": int(os.environ.get("REDIS_PORT", "6379")), "decode_responses": True}


class Clients:
    async def open(self):
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
        self.redis = redis.asyncio.Redis(**REDIS)
        self.http = httpx.AsyncClient(base_url=AGENT_URL, timeout=20, limits=limits, trust_env=False)
        self.blocking_redis = redis.Redis(**REDIS)
        self.blocking_http = httpx.Client(base_url=AGENT_URL, timeout=20, limits=limits, trust_env=False)

    async def close(self):
        await self.http.aclose()
        await self.redis.aclose()
        self.blocking_http.close()


clients = Clients()
