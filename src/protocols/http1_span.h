/*
 * What an HTTP span says (OpenTelemetry semantic conventions 1.44, "http", stable part): names,
 * attributes and status from heads that http1_parse.h has read. It follows no framing and keeps
 * nothing.
 */
#ifndef PROTOCOLS_HTTP1_SPAN_H
#define PROTOCOLS_HTTP1_SPAN_H

#include "protocols/http1_parse.h"
#include "trace/net_attrs.h"
#include "trace/connection.h"

/* The longest values that are kept, in bytes; what is longer is cut. */
enum {
	HTTP1_PATH_MAX_BYTES = 2048,
	HTTP1_QUERY_MAX_BYTES = 2048,
	HTTP1_URL_MAX_BYTES = 4096,
	HTTP1_HOST_MAX_BYTES = 255,
	HTTP1_USER_AGENT_MAX_BYTES = 512,
	HTTP1_TRACESTATE_MAX_BYTES = 1024,
};

/* `work` is scratch memory, overwritten. */
void http1_span_request(struct exchange *ex, const struct http1_request_line *line,
			const struct http1_fields *fields, const struct net_text *net,
			struct buf *work);
/* The answer came before the request's head was whole: only the connection is known. */
void http1_span_unread_request(struct exchange *ex, const struct net_text *net);
/* The template that the request matched, ex->route. */
void http1_span_route(struct exchange *ex);
/* The final status of the answer. */
void http1_span_status(struct span *s, int status);

#endif
