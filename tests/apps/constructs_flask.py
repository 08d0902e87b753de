"""Flask: the blocking ones of truth_work.py for gunicorn's workers, with a stream and an error.

run: python -m gunicorn -k gthread --threads 8 constructs_flask:app; env: see truth_work.py
"""
import inspect

import truth_work as work
from flask import Flask, Response
from truth_work import construct

app = Flask(__name__)
work.start_blocking()


@construct(3)
def streaming(request_id: str):
    def body():
        for _ in range(2):
            work.block_redis(request_id)
            yield request_id

    work.block_redis(request_id)
    return Response(body())


@construct(1, status=500)
def exception(request_id: str):
    work.block_redis(request_id)
    raise RuntimeError(f"on purpose: {request_id}")


def is_blocking(c):
    return not inspect.iscoroutinefunction(c["run"])


@app.get("/health")
def health():
    return {"status": "ok"}


@app.get("/constructs")
def constructs():
    return work.described(is_blocking)


for name, c in work.CONSTRUCTS.items():
    if is_blocking(c):
        app.get(f"/truth-{name}/<request_id>", endpoint=name)(c["run"])
