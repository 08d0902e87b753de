/* W3C Trace Context, level 2: the traceparent header. https://www.w3.org/TR/trace-context-2/ */
#ifndef TRACE_TRACE_CONTEXT_H
#define TRACE_TRACE_CONTEXT_H

#include <stdbool.h>

#include "trace/span.h"

struct trace_context {
	uint8_t trace_id[TRACE_ID_BYTES];
	uint8_t span_id[SPAN_ID_BYTES];
	uint8_t flags;
};

/*
 * False, *ret untouched, for what W3C calls invalid: wrong length or separators, upper-case hex,
 * version ff, all-zero ids, version 00 with anything behind the flags. Later versions may go on
 * after a further '-'.
 */
bool trace_context_parse(struct slice traceparent, struct trace_context *ret);

#endif
