/*
 * Spans as JSON text (RFC 8259): OTLP/JSON requests for files, and one flat object a span for
 * people and pipes. Text is made valid UTF-8 and escaped; 64-bit integers are strings, as OTLP/JSON
 * has them. It does no I/O.
 */
#ifndef EXPORT_JSON_H
#define EXPORT_JSON_H

#include "base/buf.h"
#include "export/exporter.h"

/* Appends `text` in quotes. */
void json_append_string(struct buf *out, struct slice text);
/*
 * Appends one ExportTraceServiceRequest in OTLP/JSON without a line end; the batch's spans in
 * order, a new entry of resourceSpans wherever the resource changes.
 * https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
 */
void json_append_request(struct buf *out, const struct span_batch *batch);
/*
 * Appends one object: traceId, spanId, parentSpanId, name, kind, startTimeUnixNano,
 * endTimeUnixNano, attributes (an object), status, resource (an object), named as in OTLP/JSON.
 * kind and status.code are words: SERVER, ERROR.
 */
void json_append_span(struct buf *out, const struct span *s, int64_t unix_offset_ns);

#endif
