"""The blocking gateway with an id in every request, and a callee as well: what chain_gateway.py and chain_agent.py do, for
gunicorn's sync and gthread workers. /call uses requests over kept connections, /fanout httpx, /sync requests over new ones.

env, run: as sync_flask.py
"""
import httpx
import requests
from flask import request
from sync_flask import AGENT_URL, app, local, session, store


def client() -> httpx.Client:
    if not hasattr(local, "client"):
        local.client = httpx.Client(base_url=AGENT_URL, timeout=10, trust_env=False)
    return local.client


@app.get("/call/<request_id>")
def call_id(request_id: str):
    store.get(f"truth:{request_id}")
    answer = session().post(f"{AGENT_URL}/chain/{request_id}.0", json={"agent": "writer"}, timeout=10)
    return {"id": request_id, "calls": [answer.json()]}


@app.get("/fanout/<request_id>")
def fanout_id(request_id: str):
    return {"id": request_id, "calls": [client().get(f"/chain/{request_id}.{n}").json() for n in range(3)]}


@app.get("/sync/<request_id>")
def sync_id(request_id: str):
    with requests.Session() as s:
        s.trust_env = False
        return {"id": request_id, "calls": [s.get(f"{AGENT_URL}/chain/{request_id}.0", timeout=10).json()]}


@app.route("/chain/<call_id>", methods=["GET", "POST"])
def chain(call_id: str):
    request.get_data()
    store.get(f"truth:{call_id}")
    return {"id": call_id, "traceparent": [v for k, v in request.headers if k.lower() == "traceparent"], "tracestate": []}
