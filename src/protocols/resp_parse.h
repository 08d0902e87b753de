/*
 * The syntax of RESP2 and RESP3: element headers, and a walk that knows when a nested value is
 * whole. Pure: borrowed bytes in, no memory, no state but what the caller passes. Bulk data is the
 * caller's to pass over.
 */
#ifndef PROTOCOLS_RESP_PARSE_H
#define PROTOCOLS_RESP_PARSE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"

enum {
	RESP_MORE = 0,
	RESP_BAD = -1,
	RESP_NULL = -1,     /* resp_header.value: "$-1", "*-1" */
	RESP_STREAMED = -2, /* resp_header.value: "$?", "*?" …: the parts come until an end mark */
	RESP_MAX_DEPTH = 32,
};

struct resp_header {
	uint8_t type;      /* the first byte: one of + - : $ * _ , # ! = ( % ~ | > ; . */
	int64_t value;     /* of $ ! = ; : bytes of data; of * % ~ | > : elements or pairs */
	struct slice text; /* of + - : _ , # ( : the rest of the line */
};

/* The length of the header line at `data`, RESP_MORE or RESP_BAD. */
ssize_t resp_header_read(const uint8_t *data, size_t len, struct resp_header *ret);
/* Are value + 2 bytes of data (with CR LF) behind this header? */
static inline bool resp_has_data(const struct resp_header *h)
{
	return (h->type == '$' || h->type == '=' || h->type == '!' || h->type == ';') &&
	       h->value >= 0;
}

struct resp_frame {
	uint64_t left; /* elements to come; UINT64_MAX: until the end mark */
	uint8_t type;
};

/* Zeroed: before a value. */
struct resp_walk {
	uint32_t depth;
	struct resp_frame frames[RESP_MAX_DEPTH];
};

enum resp_step { RESP_STEP_BAD, RESP_STEP_GOES_ON, RESP_STEP_DONE };

/* One element was read (with its data, if it has any). DONE: that was the last of the value; the
 * walk is zero again. */
enum resp_step resp_walk_element(struct resp_walk *w, const struct resp_header *h);

#endif
