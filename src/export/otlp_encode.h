/*
 * Spans to the bytes of an OTLP ExportTraceServiceRequest (opentelemetry-proto 1.x, protobuf), and
 * the collector's answer back. Pure: no clock, no I/O, no log. An encoder owns the scratch arrays
 * that it uses again for every batch; spans are borrowed for the call. Whatever the spans hold, the
 * text that comes out is valid UTF-8.
 */
#ifndef EXPORT_OTLP_ENCODE_H
#define EXPORT_OTLP_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/version.h"
#include "export/exporter.h"

/* The instrumentation scope of every span; the version is given by the build. */
#define OTLP_SCOPE_NAME "spanloom"
/* Span.flags above the eight W3C bits: whether the parent came over the wire is known, and it did.
 */
#define OTLP_FLAG_HAS_IS_REMOTE 0x100U
#define OTLP_FLAG_IS_REMOTE 0x200U

struct otlp_encoder;

/* NULL when out of memory. */
struct otlp_encoder *otlp_encoder_new(void);
/* Takes NULL. */
void otlp_encoder_free(struct otlp_encoder *e);
/*
 * Appends the request to *out: spans grouped by resource, in the order of the batch within each.
 * False when out of memory, *out unchanged but perhaps failed.
 */
bool otlp_encode(struct otlp_encoder *e, const struct span_batch *batch, struct buf *out);

/* Span.flags of OTLP: W3C flags and the parent's remoteness. */
uint32_t otlp_span_flags(const struct span *s);

struct otlp_response {
	uint64_t rejected_spans;
	char message[256]; /* the collector's words, cut, printable ASCII only */
};

/* The bytes of an ExportTraceServiceResponse (none are a full success). False, *ret untouched, when
 * they are not one. */
bool otlp_decode_response(const uint8_t *data, size_t len, struct otlp_response *ret);

#endif
