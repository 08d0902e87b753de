/*
 * What OTLP over HTTP and OTLP over gRPC do not share: their headers, their framing, and what an
 * answer means. Each is one const table; otlp.c picks one and the transport under it knows neither.
 * Tables hold no state and log nothing.
 */
#ifndef EXPORT_OTLP_ANSWER_H
#define EXPORT_OTLP_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include <curl/curl.h>

#include "base/buf.h"
#include "base/slice.h"

struct options;

/* What came back of one request; everything is borrowed for the call. */
struct otlp_answer {
	const char *error;        /* the transfer failed: why. NULL: a whole answer came */
	bool too_large;           /* it failed because the answer was larger than any honest one */
	long http_status;         /* 0: none was read */
	int64_t retry_after_s;    /* Retry-After as seconds from now; 0: none */
	const char *content_type; /* "" when absent */
	int grpc_status;          /* -1: none */
	const char *grpc_message; /* percent-encoded, as sent; "" when absent */
	const char *grpc_details; /* grpc-status-details-bin, base64; "" when absent */
	struct slice body;
};

enum otlp_outcome {
	OTLP_ACCEPTED,
	OTLP_UNREACHABLE, /* try again */
	OTLP_BUSY,        /* the collector is there and says: later */
	OTLP_REFUSED      /* the same request would fail again: drop it */
};

enum { OTLP_TEXT_BYTES = 256 };

struct otlp_verdict {
	enum otlp_outcome outcome;
	uint64_t rejected_spans;    /* OTLP_ACCEPTED with partial_success */
	uint64_t retry_after_ms;    /* when to try again, as the collector asks; 0: it does not */
	char text[OTLP_TEXT_BYTES]; /* why, printable ASCII; may be set for OTLP_ACCEPTED: the
				       collector's words */
};

struct otlp_variant {
	const char *path;   /* behind the endpoint, "" when the endpoint is whole */
	const char *speaks; /* for messages: "OTLP/gRPC" */
	const char *port;   /* the usual one */
	bool http2;         /* HTTP/2 only, with prior knowledge where there is no TLS */
	/* Adds the variant's own headers to *list; false when out of memory. */
	bool (*headers)(const struct options *options, struct curl_slist **list);
	/* Appends to *out the body that carries `message`, which is compressed when `gzip`. */
	void (*frame)(struct slice message, bool gzip, struct buf *out);
	/* Fills all of *ret. */
	void (*judge)(const struct otlp_answer *answer, struct otlp_verdict *ret);
};

extern const struct otlp_variant otlp_http_variant, otlp_grpc_variant;

/* Appends one header line; false when out of memory, *list unchanged. */
bool otlp_header_add(struct curl_slist **list, const char *line);
void otlp_verdict_set(struct otlp_verdict *v, enum otlp_outcome outcome, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* `text` cut to `size` - 1 bytes, everything but printable ASCII as '?'. */
void otlp_printable(struct slice text, char *ret, size_t size);
/* What both say of a failed transfer. True when *answer is one, *ret is filled then. */
bool otlp_judge_transfer(const struct otlp_answer *answer, struct otlp_verdict *ret);
/* What both say of an ExportTraceServiceResponse. `json`: the body is not protobuf by its own
 * account and not read. */
void otlp_judge_response(struct slice message, bool json, struct otlp_verdict *ret);
/*
 * The message of a google.rpc.Status into `ret` (`size` bytes, "" when none) and the delay of a
 * RetryInfo among its details. False when the bytes are no Status. *ret_delay_ms is UINT64_MAX
 * without a RetryInfo.
 */
bool otlp_rpc_status(struct slice data, char *ret, size_t size, uint64_t *ret_delay_ms);

#endif
