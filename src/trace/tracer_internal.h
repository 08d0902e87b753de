/* What the files behind tracer.h share. */
#ifndef TRACE_TRACER_INTERNAL_H
#define TRACE_TRACER_INTERNAL_H

#include "base/hash.h"
#include "base/list.h"
#include "trace/connection.h"
#include "trace/custom_span.h"
#include "trace/join.h"
#include "trace/link.h"
#include "trace/resource.h"
#include "trace/tracer.h"

struct tracer {
	struct tracer_options options;
	struct tracer_ops ops;
	struct stats *stats;
	struct linker *linker;
	struct hash connections; /* conn_id → struct connection */
	struct list by_use;      /* the connections, longest unused first */
	struct hash resources;   /* pid → struct resource, one reference each */
	struct hash custom;      /* pid → its open custom spans, custom_span.c */
	struct join join;
	uint64_t next_custom_ns;
	uint64_t next_settle_ns;
	uint64_t now_ns; /* of the last event */
};

/* tracer.c */
void tracer_see_time(struct tracer *t, uint64_t ts_ns);

/* connection.c */
struct connection *connection_new(struct tracer *t, const struct conn_info *info);
/* Ends what is in flight and frees it. */
void connection_close(struct connection *c, uint64_t ts_ns);
/* Frees it; exchanges in flight are dropped. */
void connection_free(struct connection *c);
void connection_feed(struct connection *c, const struct io_event *ev);

/* match.c */
/* What answers the exchange, as the runtime knows it. */
void exchange_set_route(struct exchange *ex, const struct runtime_route *route);
/* code.* of a span. */
void tracer_add_code(struct span *s, const struct code_info *code);
void tracer_remove_code(struct span *s);
/* Gives a span its resource and its own ids; a trace of its own until a parent is found. */
void tracer_span_begin(struct tracer *t, struct span *s, uint32_t pid);
/* Hands on a span whose parent is decided, or drops it; `flags` are W3C's, with the sampler's
 * decision. */
void tracer_span_end(struct tracer *t, struct span *s, uint8_t flags);
/* Whether spans of the process are left out; counted. */
bool tracer_leaves_out(struct tracer *t, uint32_t pid);

/* request_ids.c */
/* The exchange has begun in the event being fed: gives it the ids that came for it. Call behind the
 * linker's begin. */
void exchange_take_ids(struct exchange *ex);
/* Whether a request begins with the event's first byte, whatever is known of the bytes before: the
 * kernel side put a header into it. */
bool connection_begins_surely(const struct connection *c, const struct io_event *ev);
/* An event was fed: ids that were for a request in it are for none that comes. */
void connection_forget_ids(struct connection *c, const struct io_event *ev);

#endif
