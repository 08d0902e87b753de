"""http.route against what the framework itself reports: the template, filled with the parameters that the framework took
from the path, gives the path; a request that no route matched has none. Code of server spans is the endpoint.
"""
import http.client
import json
import time

import pytest
import services
import venvs
from seen import servers

ANY = object()  # the framework has matched a mount, and nothing in it; what that is called is a matter of taste

FASTAPI = [  # method, path, status, template
    ("GET", "/health", 200, "/health"),
    ("GET", "/items/42", 200, "/items/{item_id}"),
    ("GET", "/items/43?q=1", 200, "/items/{item_id}"),
    ("GET", "/items/404", 404, "/items/{item_id}"),
    ("GET", "/items/500", 500, "/items/{item_id}"),
    ("GET", "/items/none", 422, "/items/{item_id}"),
    ("POST", "/items", 201, "/items"),
    ("PUT", "/items", 405, "/items"),
    ("GET", "/nothing", 404, None),
    ("GET", "/nothing/else/404", 404, None),
    ("GET", "/items/42/", 307, None),
    ("GET", "/def/one", 200, "/def/{name}"),
    ("GET", "/files/a/b/c.txt", 200, "/files/{file_path}"),
    ("GET", "/stream/3", 200, "/stream/{count}"),
    ("HEAD", "/both/one", 200, "/both/{name}"),
    ("HEAD", "/items/42", 405, "/items/{item_id}"),
    ("GET", "/guarded/one", 403, "/guarded/{name}"),
    ("GET", "/early", 401, None),
    ("GET", "/v1/users/ann", 200, "/v1/users/{user_id}"),
    ("GET", "/v2/users/bob", 200, "/v2/users/{user_id}"),
    ("GET", "/v1/users/ann/posts/7", 200, "/v1/users/{user_id}/posts/{post_id}"),
    ("GET", "/v2/users/ann/posts/8", 200, "/v2/users/{user_id}/posts/{post_id}"),
    ("GET", "/v2/users/ann/posts/x", 422, "/v2/users/{user_id}/posts/{post_id}"),
    ("GET", "/sub/things/1", 200, "/sub/things/{thing_id}"),
    ("GET", "/sub/things/x", 422, "/sub/things/{thing_id}"),
    ("GET", "/sub/nothing", 404, ANY),
    ("GET", "/tenants/acme/things/1", 200, "/tenants/{tenant}/things/{thing_id}"),
    ("GET", "/tenants/other/things/2", 200, "/tenants/{tenant}/things/{thing_id}"),
    ("GET", "/plain/one/x", 200, "/plain/{name}/x"),
]
STARLETTE = [
    ("GET", "/health", 200, "/health"),
    ("HEAD", "/health", 200, "/health"),
    ("GET", "/items/42", 200, "/items/{item_id}"),
    ("GET", "/items/404", 404, "/items/{item_id}"),
    ("GET", "/items/500", 500, "/items/{item_id}"),
    ("GET", "/items/none", 404, None),
    ("POST", "/items/42", 405, "/items/{item_id}"),
    ("GET", "/def/one", 200, "/def/{name}"),
    ("GET", "/stream", 200, "/stream"),
    ("GET", "/things/1", 200, "/things/{thing_id}"),
    ("POST", "/things/1", 405, "/things/{thing_id}"),
    ("GET", "/nothing", 404, None),
    ("GET", "/api/items/42", 200, "/api/items/{item_id}"),
    ("GET", "/api/deep/one", 200, "/api/deep/{name}"),
    ("GET", "/api/nothing", 404, ANY),
    ("GET", "/tenants/acme/items/1", 200, "/tenants/{tenant}/items/{item_id}"),
    ("GET", "/router/one", 200, "/router/{name}"),
    ("GET", "/raw/one", 200, ANY),
    ("GET", "/hosts/plain/one", 200, "/hosts/plain/{name}"),
    ("GET", "/hosts/api/one", 200, "/hosts/api/{name}"),
]
# Which releases of the frameworks: the pinned ones, and older ones that keep routes otherwise.
OLDER = {"pinned": [], "before-0.137": [("fastapi", "0.128.8"), ("starlette", "0.49.3")],
         "starlette-0.41": [("fastapi", "0.115.6"), ("starlette", "0.41.3")]}
AGAIN = 3  # the first one finds a route that nobody has read before


def request(port, method, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def check(span, method, path, expected, prefix=""):
    route = span.attrs.get("http.route")
    if expected is ANY:
        assert route is None or "{" in route or path.startswith(route.replace(prefix, "", 1)), route
        return
    expected = expected and prefix + expected
    assert route == expected, f"{method} {path}: {route}, not {expected}"
    assert span.name == (f"{method} {route}" if route else method)


def run_cases(tracing, app, cases, prefix="", pause=0.0):
    """With a pause behind each request its route is looked up before the next one is there."""
    t = tracing("http/protobuf")
    t.start(pids=[app.pid])
    request(app.port, "GET", "/health")
    for _ in range(AGAIN):
        for method, path, status, _ in cases:
            got, _ = request(app.port, method, path)
            time.sleep(pause)
            assert got == status, f"{method} {path}: {got}"
    records = json.loads(request(app.port, "GET", "/recorded")[1])
    spans = [s for s in servers(t.finish()) if s.path != "/recorded"]
    assert len(spans) == 1 + AGAIN * len(cases)
    expected = {(method, path.split("?")[0]): template for method, path, _, template in cases}
    for span in spans:
        method = span.attrs["http.request.method"]
        check(span, method, span.path, expected.get((method, span.path), "/health"), prefix)
    # Only what a mount has matched and nothing in it may lack a template, and then it is counted.
    unclear = AGAIN * sum(template is ANY for _, _, _, template in cases)
    assert t.drops().get("route_unknown", 0) <= unclear, t.drops()
    return spans, records


def check_records(spans, records, cases, prefix=""):
    """The templates against what the framework itself has noted."""
    unclear = {path for _, path, _, template in cases if template is ANY}
    notes = {(r["method"], r["path"]): r for r in records}
    checked = 0
    for span in spans:
        route, method = span.attrs.get("http.route"), span.attrs["http.request.method"]
        note = notes.get((method, prefix + span.path)) or notes[(method, span.path)]
        if route and note["params"] is not None and span.path not in unclear:
            assert route.format(**note["params"]) == prefix + span.path
            checked += 1
    assert checked > len(spans) / 2


@pytest.mark.parametrize("frameworks,loop,http", [
    ("pinned", "uvloop", "httptools"), ("pinned", "asyncio", "h11"), ("before-0.137", "uvloop", "httptools"),
    ("starlette-0.41", "asyncio", "h11")])
def test_fastapi(tracing, stack, frameworks, loop, http):
    python = venvs.Interpreter(services.PYTHON, "3.11")
    for package, pin in OLDER[frameworks]:
        python = venvs.with_package(python, package, pin)
    app = stack.python_app("routes_app", loop=loop, http=http, env=python.env)
    spans, records = run_cases(tracing, app, FASTAPI)
    check_records(spans, records, FASTAPI)


@pytest.mark.parametrize("loop,http", [("uvloop", "httptools"), ("asyncio", "h11")])
def test_starlette(tracing, stack, loop, http):
    app = stack.python_app("routes_starlette", loop=loop, http=http)
    spans, records = run_cases(tracing, app, STARLETTE)
    check_records(spans, records, STARLETTE)


def test_uvloop_that_writes_later(tracing, stack):
    python = venvs.with_package(venvs.Interpreter(services.PYTHON, "3.11"), "uvloop", "0.22.1")
    app = stack.python_app("routes_app", env=python.env)
    run_cases(tracing, app, FASTAPI)


def test_root_path(tracing, stack):
    """Behind a proxy that takes /api away from the path: the application says that it is there."""
    app = stack.python_app("routes_app", args=["--root-path", "/api"])
    run_cases(tracing, app, [c for c in FASTAPI if c[2] != 307], "/api")


def test_root_path_that_a_client_names(tracing, stack):
    """It gets into no name."""
    app = stack.python_app("routes_app")
    t = tracing("http/protobuf")
    t.start(pids=[app.pid])
    for n in range(20):
        assert request(app.port, "GET", f"/items/{n}", {"X-Forwarded-Prefix": f"/of-user-{n}"})[0] == 200
    spans = servers(t.finish())
    assert len(spans) == 20 and {(s.name, s.attrs["http.route"]) for s in spans} == {("GET /items/{item_id}", "/items/{item_id}")}


def test_routes_that_are_made_while_it_runs(tracing, stack):
    """FastAPI makes what it knows of an included router when a request first gets there."""
    app = stack.python_app("routes_app")
    run_cases(tracing, app, [case for case in FASTAPI if "/users/" in case[1]], pause=0.3)


@pytest.mark.parametrize("server", ["hypercorn", "gunicorn"])
def test_other_servers(tracing, stack, server):
    app = stack.python_app("routes_app", server)
    run_cases(tracing, app, FASTAPI)


def test_off(tracing, stack):
    app = stack.python_app("routes_app")
    t = tracing("http/protobuf")
    t.start("--route=false", pids=[app.pid])
    for n in range(5):
        request(app.port, "GET", f"/items/{n}")
    spans = servers(t.finish())
    assert len(spans) == 5 and {s.name for s in spans} == {"GET"}
    assert not any("http.route" in s.attrs for s in spans)


def test_endpoint_is_the_code_of_a_server_span(tracing, stack):
    app = stack.python_app("routes_app")
    spans, records = run_cases(tracing, app, FASTAPI)
    notes = {(r["method"], r["path"]): r for r in records}
    checked = 0
    for span in spans:
        note = notes[(span.attrs["http.request.method"], span.path)]
        if note["line"] and span.attrs.get("http.route") and span.attrs["http.response.status_code"] not in (404, 405):
            assert span.attrs["code.function.name"] == f"routes_app.{note['endpoint']}", span
            assert span.attrs["code.line.number"] == note["line"]
            assert span.attrs["code.file.path"].endswith("/tests/apps/routes_app.py")
            checked += 1
    assert checked > 10
