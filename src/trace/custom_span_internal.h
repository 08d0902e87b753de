/*
 * What the files behind custom_span.h share: custom_span_life.c begins and ends spans,
 * custom_span.c says when.
 */
#ifndef TRACE_CUSTOM_SPAN_INTERNAL_H
#define TRACE_CUSTOM_SPAN_INTERNAL_H

#include "trace/custom_span.h"
#include "trace/tracer_internal.h"

struct custom_span {
	struct list node;
	struct call *call;
	struct span *span;
	bool native;
	uint32_t rule, tid;
	uint64_t frame; /* native: the stack pointer */
	uint64_t args, strand;
	uint64_t last_ns;
};

struct custom_process {
	uint32_t pid;
	struct list spans;    /* longest unseen first */
	struct hash by_frame; /* frame → struct custom_span */
	uint32_t count;
};

/* NULL: not known, or (`make`) no memory. */
struct custom_process *custom_process_get(struct tracer *t, uint32_t pid, bool make);
/* It has no spans any more. */
void custom_process_free(struct custom_process *p);
/* Begins one: of function `f` within `outer` (NULL: see its lineage); a native one has no site.
 * NULL: no memory. The process owns it. */
struct custom_span *custom_span_begin(struct tracer *t, struct custom_process *p,
				      const struct custom_point *at, const struct runtime_span *f,
				      const struct runtime_site *site, struct call *outer);
/* Ends it, with the last that was seen of it; `drop`: no span comes of it. Frees it. */
void custom_span_finish(struct tracer *t, struct custom_process *p, struct custom_span *c,
			bool drop);

#endif
