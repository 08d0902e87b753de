"""A Flask service for gunicorn's workers whose requests leave work to other threads: a pool of the whole service, threads
that nobody waits for, a periodic one, and calls behind the answer. The id of the request that caused a call is in its key.

env: REDIS_PORT; HEARTBEAT (seconds between the periodic thread's calls; 0: none)
run: python -m gunicorn -b 127.0.0.1:N [-k gthread --threads 4] thread_work:app
"""
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import redis
from flask import Flask, Response

HEARTBEAT = float(os.environ.get("HEARTBEAT", "0"))
app = Flask(__name__)
store = redis.Redis(host="127.0.0.1", port=int(os.environ.get("REDIS_PORT", "6379")))
pool = ThreadPoolExecutor(3)
once = threading.Lock()


def use_redis(request_id: str, after_ms: int = 0):
    time.sleep(after_ms / 1000)
    store.get(f"truth:{request_id}")


def heartbeat():
    beats = 0
    while True:
        time.sleep(HEARTBEAT)
        beats += 1
        store.get(f"truth:heartbeat{beats}")


@app.before_request
def start_heartbeat():
    """Born in the first request, beside all later ones."""
    if HEARTBEAT and once.acquire(blocking=False):
        threading.Thread(target=heartbeat, daemon=True).start()


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/truth/<request_id>")
def truth(request_id: str):
    use_redis(request_id)
    return {"id": request_id}


@app.get("/truth-pool/<request_id>")
def pooled(request_id: str):
    """The pool's threads are made in one request and work for all."""
    pool.submit(use_redis, request_id).result()
    return {"id": request_id}


@app.get("/truth-forget/<request_id>")
def forget(request_id: str):
    pool.submit(use_redis, request_id, 3)
    return {"id": request_id}


@app.get("/truth-daemon/<request_id>")
def daemon(request_id: str):
    threading.Thread(target=use_redis, args=(request_id, 10), daemon=True).start()
    return {"id": request_id}


@app.get("/truth-joined/<request_id>")
def joined(request_id: str):
    with ThreadPoolExecutor(2) as own:
        list(own.map(use_redis, [request_id, request_id]))
    return {"id": request_id}


@app.get("/truth-after/<request_id>")
def after(request_id: str):
    response = Response(request_id)
    response.call_on_close(lambda: use_redis(request_id))
    return response
