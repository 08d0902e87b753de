"""One of the other applications under the OpenTelemetry SDK, instrumented as its documentation says: what spanloom is
compared with. Needs tests/requirements-bench.txt.

env: SDK_APP (a module that has an `app`), SDK_QUIET (1: without the spans of every ASGI message), and what the SDK's
     exporter reads: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME
run: python -m uvicorn sdk:app
"""
import functools
import importlib
import os
import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

MODULE = os.environ.get("SDK_APP", "app.main")

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
HTTPXClientInstrumentor().instrument()
RedisInstrumentor().instrument()
tracer = trace.get_tracer("story")


def traced(name, attributes):
    """The decorator that an application has to have in its code for this."""

    def decorate(function):
        @functools.wraps(function)
        async def call(*args, **kw):
            with tracer.start_as_current_span(name, attributes=attributes):
                return await function(*args, **kw)

        return call

    return decorate


module = importlib.import_module(MODULE)
if MODULE == "app.main":
    a2a_client = sys.modules["app.services.a2a_client"]
    a2a_client.call_agent = traced("a2a.call", {"agent.type": "gateway"})(a2a_client.call_agent)
quiet = {"exclude_spans": ["receive", "send"]} if os.environ.get("SDK_QUIET") else {}
FastAPIInstrumentor.instrument_app(module.app, **quiet)
app = module.app
