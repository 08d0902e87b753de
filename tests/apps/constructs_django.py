"""Django in one file: the blocking ones of truth_work.py as views, under gunicorn as `wsgi`; under uvicorn as `asgi` the
asynchronous ones, too.

run: python -m gunicorn -k gthread --threads 8 constructs_django:wsgi, or python -m uvicorn constructs_django:asgi
env: see truth_work.py
"""
import inspect

import django
import truth_work as work
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from truth_work import construct

settings.configure(DEBUG=False, SECRET_KEY="not one", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[
    "django.middleware.common.CommonMiddleware", "django.middleware.http.ConditionalGetMiddleware"])
django.setup()
work.start_blocking()
asynchronous = False  # the loop runs that the asynchronous clients need


@construct(3)
def streaming(request_id: str):
    def body():
        for _ in range(2):
            work.block_redis(request_id)
            yield request_id

    work.block_redis(request_id)
    return StreamingHttpResponse(body())


@construct(1, status=500)
def exception(request_id: str):
    work.block_redis(request_id)
    raise RuntimeError(f"on purpose: {request_id}")


def answer(result):
    return JsonResponse(result) if isinstance(result, dict) else result


def view(run):
    if inspect.iscoroutinefunction(run):
        async def handle(request, request_id):
            return answer(await run(request_id))
    else:
        def handle(request, request_id):
            return answer(run(request_id))
    return handle


def health(request):
    return JsonResponse({"status": "ok"})


def constructs(request):
    return JsonResponse(work.described(lambda c: asynchronous or not inspect.iscoroutinefunction(c["run"])))


urlpatterns = [path("health", health), path("constructs", constructs)] + [
    path(f"truth-{name}/<str:request_id>", view(c["run"])) for name, c in work.CONSTRUCTS.items()]

wsgi = get_wsgi_application()
django_asgi = get_asgi_application()


async def asgi(scope, receive, send):
    """Django knows no lifespan."""
    global asynchronous
    if scope["type"] != "lifespan":
        return await django_asgi(scope, receive, send)
    await receive()
    await work.start()
    asynchronous = True
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await work.stop()
    await send({"type": "lifespan.shutdown.complete"})
