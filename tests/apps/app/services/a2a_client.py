"""The call to the agent itself."""
from app.clients import clients


async def call_agent(agent: str, text: str) -> dict:
    answer = await clients.http.post("/rpc", json={"agent": agent, "text": text})
    answer.raise_for_status()
    return answer.json()
