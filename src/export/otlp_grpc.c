/*
 * OTLP/gRPC as one unary call over libcurl's HTTP/2: the five-byte message prefix, the status in
 * the trailers (or in headers that come alone), google.rpc.RetryInfo. gRPC over HTTP/2:
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md; what is retried:
 * https://opentelemetry.io/docs/specs/otlp/#failures. The message is one frame, never a stream.
 */
#include "export/otlp_answer.h"

#include <inttypes.h>
#include <stdio.h>

#include "config/options.h"

enum { GRPC_PREFIX_BYTES = 5, GRPC_COMPRESSED = 1 };

/* The codes that are named here: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
enum {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15
};

static const char *code_name(int code)
{
	static const char *const names[] = {
		"OK",
		"CANCELLED",
		"UNKNOWN",
		"INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED",
		"NOT_FOUND",
		"ALREADY_EXISTS",
		"PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION",
		"ABORTED",
		"OUT_OF_RANGE",
		"UNIMPLEMENTED",
		"INTERNAL",
		"UNAVAILABLE",
		"DATA_LOSS",
		"UNAUTHENTICATED",
	};

	return (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "of no known code";
}

static bool grpc_headers(const struct options *options, struct curl_slist **list)
{
	char timeout[48];

	/* At most eight digits: milliseconds are good for a day, and a longer timeout is none. */
	snprintf(timeout, sizeof(timeout), "grpc-timeout: %" PRIu64 "m",
		 options->otlp_timeout_ms < 99999999 ? options->otlp_timeout_ms
						     : (uint64_t)99999999);
	return otlp_header_add(list, "Content-Type: application/grpc") &&
	       otlp_header_add(list, "TE: trailers") && otlp_header_add(list, timeout) &&
	       (!options->otlp_gzip || otlp_header_add(list, "grpc-encoding: gzip"));
}

static void grpc_frame(struct slice message, bool gzip, struct buf *out)
{
	uint8_t prefix[GRPC_PREFIX_BYTES] = {
		gzip ? GRPC_COMPRESSED : 0,   (uint8_t)(message.len >> 24),
		(uint8_t)(message.len >> 16), (uint8_t)(message.len >> 8),
		(uint8_t)message.len,
	};

	buf_append(out, prefix, sizeof(prefix));
	buf_append(out, message.data, message.len);
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

/* Padded or not; ends at the first character that is no digit. */
static void base64_decode(const char *text, struct buf *out)
{
	uint32_t bits = 0;
	unsigned int count = 0;

	for (; base64_digit(*text) >= 0; text++) {
		bits = bits << 6 | (uint32_t)base64_digit(*text);
		count += 6;
		if (count >= 8) {
			count -= 8;
			buf_append_char(out, (char)(bits >> count & 0xff));
		}
	}
}

/* The status that an answer without grpc-status stands for (gRPC's http-grpc-status-mapping.md). */
static int status_of_http(long status)
{
	return status == 429 || status == 502 || status == 503 || status == 504 ? GRPC_UNAVAILABLE
										: GRPC_UNKNOWN;
}

static void judge_ok(struct slice body, struct otlp_verdict *ret)
{
	uint32_t len;

	if (!body.len) {
		otlp_judge_response(body, false, ret);
		return;
	}
	if (body.len < GRPC_PREFIX_BYTES || body.data[0] != 0) {
		otlp_verdict_set(ret, OTLP_REFUSED, "its answer is not gRPC");
		return;
	}
	len = (uint32_t)body.data[1] << 24 | (uint32_t)body.data[2] << 16 |
	      (uint32_t)body.data[3] << 8 | body.data[4];
	if (len != body.len - GRPC_PREFIX_BYTES) {
		otlp_verdict_set(ret, OTLP_REFUSED, "its answer is not gRPC");
		return;
	}
	otlp_judge_response(slice_of(body.data + GRPC_PREFIX_BYTES, len), false, ret);
}

/* RetryInfo among the details, else UINT64_MAX. */
static uint64_t retry_delay(const char *details)
{
	char unused[8];
	uint64_t delay = UINT64_MAX;
	struct buf raw = { 0 };

	base64_decode(details, &raw);
	if (raw.len && !raw.failed &&
	    !otlp_rpc_status(slice_of(raw.data, raw.len), unused, sizeof(unused), &delay))
		delay = UINT64_MAX;
	buf_free(&raw);
	return delay;
}

static bool code_retryable(int code, bool has_retry_info)
{
	switch (code) {
	case GRPC_CANCELLED:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_ABORTED:
	case GRPC_OUT_OF_RANGE:
	case GRPC_UNAVAILABLE:
	case GRPC_DATA_LOSS:
		return true;
	default:
		return code == GRPC_RESOURCE_EXHAUSTED && has_retry_info;
	}
}

static void grpc_judge(const struct otlp_answer *answer, struct otlp_verdict *ret)
{
	int code = answer->grpc_status;
	char message[OTLP_TEXT_BYTES / 2] = "";
	uint64_t delay;
	char *plain;

	if (otlp_judge_transfer(answer, ret))
		return;
	if (code == GRPC_OK) {
		judge_ok(answer->body, ret);
		return;
	}
	if (code < 0) {
		code = status_of_http(answer->http_status);
		otlp_verdict_set(ret, code_retryable(code, false) ? OTLP_BUSY : OTLP_REFUSED,
				 "it answers HTTP %ld without a gRPC status", answer->http_status);
		return;
	}
	plain = curl_easy_unescape(NULL, answer->grpc_message, 0, NULL);
	if (plain)
		otlp_printable(slice_str(plain), message, sizeof(message));
	curl_free(plain);
	delay = retry_delay(answer->grpc_details);
	otlp_verdict_set(ret, code_retryable(code, delay != UINT64_MAX) ? OTLP_BUSY : OTLP_REFUSED,
			 "it answers %s (%d)%s%s", code_name(code), code, message[0] ? ": " : "",
			 message);
	if (delay != UINT64_MAX)
		ret->retry_after_ms = delay;
}

const struct otlp_variant otlp_grpc_variant = {
	.path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	.speaks = "OTLP/gRPC",
	.port = "4317",
	.http2 = true,
	.headers = grpc_headers,
	.frame = grpc_frame,
	.judge = grpc_judge,
};
