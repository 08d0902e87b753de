/*
 * A span as OpenTelemetry defines it, while it is built and until it is exported. One owner at a
 * time. Text (name, string values) lives in the span's own arena; attribute keys are borrowed and
 * must outlive the span (string literals, or configuration). Times are CLOCK_MONOTONIC ns;
 * exporters add the batch's clock offset.
 */
#ifndef TRACE_SPAN_H
#define TRACE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/slice.h"

enum { TRACE_ID_BYTES = 16, SPAN_ID_BYTES = 8, SPAN_MAX_ATTRS = 32 };

/* The numbers are OTLP's. */
enum span_kind { SPAN_INTERNAL = 1, SPAN_SERVER = 2, SPAN_CLIENT = 3 };
enum span_status { SPAN_STATUS_UNSET = 0, SPAN_STATUS_OK = 1, SPAN_STATUS_ERROR = 2 };

enum attr_type { ATTR_STRING, ATTR_INT, ATTR_BOOL };

struct attr {
	const char *key;
	enum attr_type type;
	uint32_t len; /* ATTR_STRING: bytes */
	union {
		uint32_t offset; /* ATTR_STRING: into span.text */
		int64_t integer; /* ATTR_INT, ATTR_BOOL */
	};
};

struct resource;

struct span {
	struct list node;          /* for whoever holds the span: a queue, a batch */
	struct resource *resource; /* counted reference, may be NULL */
	uint8_t trace_id[TRACE_ID_BYTES];
	uint8_t span_id[SPAN_ID_BYTES];
	uint8_t parent_span_id[SPAN_ID_BYTES]; /* valid when has_parent */
	bool has_parent;
	bool remote_parent;  /* the parent came in over the wire */
	uint8_t trace_flags; /* W3C: bit 0 sampled */
	enum span_kind kind;
	enum span_status status;
	uint64_t start_ns, end_ns;
	uint32_t name_offset, name_len;               /* into text */
	uint32_t trace_state_offset, trace_state_len; /* into text; len 0: none */
	uint32_t attr_count;
	uint32_t dropped_attr_count;
	struct attr attrs[SPAN_MAX_ATTRS];
	struct buf text;
};

/* NULL when out of memory. The caller owns it. */
struct span *span_new(enum span_kind kind);
/* Takes NULL. */
void span_free(struct span *s);

void span_set_name(struct span *s, struct slice name);
void span_set_trace_state(struct span *s, struct slice state);
/* Each key at most once; a full span counts the attribute in dropped_attr_count. */
void span_add_str(struct span *s, const char *key, struct slice value);
void span_add_int(struct span *s, const char *key, int64_t value);
void span_add_bool(struct span *s, const char *key, bool value);
/* Status Error with error.type; the first error stays. */
void span_set_error(struct span *s, struct slice type);

struct slice span_name(const struct span *s);
struct slice span_trace_state(const struct span *s);
/* The bytes of an ATTR_STRING. */
struct slice span_attr_str(const struct span *s, const struct attr *a);
/* Nothing when absent. */
void span_remove_attr(struct span *s, const char *key);
/* NULL when absent. */
const struct attr *span_find_attr(const struct span *s, const char *key);

#endif
