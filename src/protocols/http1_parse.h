/*
 * The syntax of HTTP/1.x messages (RFC 9110, RFC 9112): finds the end of a head, reads start lines,
 * header fields and chunk sizes. Pure: borrowed bytes in, slices of them out; no memory, no state
 * but what the caller passes. Lenient where peers are: a bare LF ends a line as CR LF does.
 */
#ifndef PROTOCOLS_HTTP1_PARSE_H
#define PROTOCOLS_HTTP1_PARSE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"

enum {
	HTTP1_MORE = 0,
	HTTP1_BAD = -1,
	HTTP1_METHOD_MAX_BYTES = 32,
	HTTP1_CHUNK_LINE_MAX_BYTES = 4096, /* chunk size and extensions */
};

struct http1_request_line {
	struct slice method, target;
	int minor; /* HTTP/1.minor */
};

struct http1_status_line {
	int status; /* 100…999 */
	int minor;
};

enum { HTTP1_TRACESTATE_MAX_FIELDS = 4 };

/* The fields that framing and spans need; an empty slice where there is none, the first where there
 * are several. */
struct http1_fields {
	struct slice host, user_agent, forwarded, forwarded_for, forwarded_host, forwarded_proto;
	struct slice traceparent, tracestate[HTTP1_TRACESTATE_MAX_FIELDS];
	unsigned int traceparent_count, tracestate_count;
	bool has_length, bad_length; /* bad: not a number, or two different ones */
	uint64_t length;
	bool expects;             /* Expect: 100-continue (RFC 9110, 10.1.1) */
	bool has_coding, chunked; /* Transfer-Encoding is there; chunked is its last coding */
};

/*
 * The length of the head at `data`, its blank line included, or HTTP1_MORE. *scanned (0 at first)
 * says how far an earlier call with the same, shorter bytes has looked.
 */
ssize_t http1_head_length(const uint8_t *data, size_t len, size_t *scanned);
/* The length of the line at `data` with its LF, or HTTP1_MORE; *ret is the line without its end. */
ssize_t http1_line(const uint8_t *data, size_t len, struct slice *ret);
/* HTTP1_MORE: so far it looks like one. Otherwise the length of the line, or HTTP1_BAD. */
ssize_t http1_request_line(const uint8_t *data, size_t len, struct http1_request_line *ret);
ssize_t http1_status_line(const uint8_t *data, size_t len, struct http1_status_line *ret);
/*
 * The next header field of *head (the lines behind the start line; *head moves on). False at the
 * end. Lines that are no field, and folded continuations, are passed over. Values come without the
 * white space around them.
 */
bool http1_header_next(struct slice *head, struct slice *ret_name, struct slice *ret_value);
/* A request line that is cut off behind its method: what is there of the target (more than
 * nothing). The version is unknown, minor -1. */
bool http1_request_line_cut(const uint8_t *data, size_t len, struct http1_request_line *ret);
/* Reads all fields of a head (the lines behind the start line). */
void http1_fields_read(struct slice head, struct http1_fields *ret);
/* "5", also "5, 5" (RFC 9112, 6.3). False when it is not one number below 2^63. */
bool http1_content_length(struct slice value, uint64_t *ret);
/* The first, and the next, element of a comma-separated list; empty ones are left out. False at the
 * end. */
bool http1_list_next(struct slice *list, struct slice *ret_item);
/* The length of a chunk-size line, HTTP1_MORE or HTTP1_BAD. */
ssize_t http1_chunk_size(const uint8_t *data, size_t len, uint64_t *ret_size);
/* Without white space at both ends. */
struct slice http1_trim(struct slice s);

#endif
