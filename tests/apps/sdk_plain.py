"""An application under the OpenTelemetry SDK that is set up in code alone: no OTEL_* variable tells of it. Otherwise as
sdk.py.

env: SDK_APP (a module that has an `app`), SDK_URL (where its spans go, OTLP over HTTP), SDK_NAME (its service.name)
run: python -m uvicorn sdk_plain:app
"""
import importlib
import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

EVERY_MS = 200

provider = TracerProvider(resource=Resource.create({"service.name": os.environ["SDK_NAME"]}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=os.environ["SDK_URL"]),
                                               schedule_delay_millis=EVERY_MS))
trace.set_tracer_provider(provider)
HTTPXClientInstrumentor().instrument()
app = importlib.import_module(os.environ["SDK_APP"]).app
FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
