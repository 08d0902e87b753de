"""A Flask service for gunicorn's sync and gthread workers: blocking Redis and blocking HTTP, the request's id in every
key and URL it touches.

env: AGENT_URL, REDIS_PORT
run: python -m gunicorn -b 127.0.0.1:N [-k gthread --threads 4] sync_flask:app
"""
import os
import threading

import redis
import requests
from flask import Flask

AGENT_URL = os.environ.get("AGENT_URL", "http://127.0.0.1:8001")

app = Flask(__name__)
store = redis.Redis(host="127.0.0.1", port=int(os.environ.get("REDIS_PORT", "6379")), decode_responses=True)
local = threading.local()


def session() -> requests.Session:
    """Keep-alive connections, one pool a thread."""
    if not hasattr(local, "session"):
        local.session = requests.Session()
        local.session.trust_env = False
    return local.session


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/truth/<request_id>")
def truth(request_id: str):
    store.get(f"truth:{request_id}")
    answer = session().get(f"{AGENT_URL}/work/{request_id}", timeout=10)
    assert answer.json()["id"] == request_id
    store.get(f"truth:{request_id}")
    return {"id": request_id}


@app.get("/fail")
def fail():
    raise RuntimeError("this route always fails")
