/*
 * The front for what a runtime tells that is no transfer: contexts that are handed on, native
 * functions entered and left.
 */
#include "trace/tracer_internal.h"

void tracer_runtime(struct tracer *t, uint32_t pid)
{
	link_runtime(t->linker, pid, t->now_ns);
}

void tracer_context(struct tracer *t, const struct context_event *ev)
{
	const struct custom_point at = { ev->pid, ev->tid, ev->turn, ev->ts_ns, ev->context };

	tracer_see_time(t, ev->ts_ns);
	if (ev->site && ev->site->client.known)
		link_serves(t->linker, ev->pid, ev->context, &ev->site->client, ev->ts_ns);
	custom_span_see(t, &at, ev->site);
	link_context(t->linker, ev,
		     custom_span_current(t, ev->pid, ev->tid, ev->context, ev->site));
}

void tracer_native_span(struct tracer *t, const struct native_span_event *ev)
{
	tracer_see_time(t, ev->ts_ns);
	custom_span_native(t, ev);
}
