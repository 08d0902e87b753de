/*
 * Traces that were named to others before it was known whose they are (link_promise.h). Invariant:
 * what others were told stays; what nobody was told of gives way.
 */
#include "trace/link_promise.h"

#include <string.h>

#include "trace/link_settle.h"

/* A root that nobody was told of may take the trace of what was called for it. */
static bool may_be_renamed(const struct request *r)
{
	return !r->gone && !r->remote && !r->has_parent && !r->trace.given &&
	       !r->process->trusted_ever;
}

bool link_may_be_renamed_yet(struct request *r)
{
	struct list *it, *tmp;

	if (!may_be_renamed(r))
		return false;
	list_each_safe(it, tmp, &r->calls) {
		const struct call *c = list_entry(it, struct call, by_request);

		if (c->fixed && !c->is_bound)
			return true;
	}
	return false;
}

bool link_trace_agrees(const struct call *c, struct link_trace *from)
{
	if (!c->fixed || memcmp(c->trace.trace_id, from->trace_id, TRACE_ID_BYTES) == 0)
		return true;
	if (c->is_bound || !from->is_request || !may_be_renamed(link_request_of(from)))
		return false;
	memcpy(from->trace_id, c->trace.trace_id, sizeof(from->trace_id));
	from->flags = c->trace.flags;
	return true;
}

void link_promise_keep(struct linker *l, struct request *r)
{
	struct call *c = r->caller;

	if (!c || r->trace.settled ||
	    memcmp(c->trace.trace_id, r->trace.trace_id, TRACE_ID_BYTES) != 0)
		return;
	c->fixed = true;
	link_trace_settle(l, &c->trace, r->promised_flags);
}

void link_promise(struct linker *l, const struct call *c)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &c->process->requests) {
		struct request *r = list_entry(it, struct request, node);

		if (r->trace.settled || memcmp(r->trace.span_id, c->bound_to, SPAN_ID_BYTES) != 0 ||
		    memcmp(r->trace.trace_id, c->trace.trace_id, TRACE_ID_BYTES) != 0)
			continue;
		r->promised = true;
		r->promised_flags = c->trace.flags;
		link_promise_keep(l, r);
		return;
	}
}
