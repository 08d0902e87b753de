/*
 * The life of one custom span, from the first sight to the receiver. Invariant: an open one is in
 * its process's list, in the order of the last event, and a runtime's in the table by its frame;
 * the linker has a call for each, which ends with it.
 */
#include "trace/custom_span_internal.h"

#include <stdlib.h>

struct custom_process *custom_process_get(struct tracer *t, uint32_t pid, bool make)
{
	struct custom_process *p = hash_get(&t->custom, pid);

	if (p || !make)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p || !link_custom(t->linker, pid) || !hash_put(&t->custom, pid, p)) {
		free(p);
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	p->pid = pid;
	list_init(&p->spans);
	return p;
}

void custom_process_free(struct custom_process *p)
{
	hash_free(&p->by_frame);
	free(p);
}

static struct span *make_span(struct tracer *t, uint32_t pid, uint32_t rule, uint64_t start_ns)
{
	const struct span_rule *r = &t->options.span_rules[rule];
	struct span *s = span_new(SPAN_INTERNAL);
	size_t i;

	if (!s)
		return NULL;
	tracer_span_begin(t, s, pid);
	s->start_ns = start_ns;
	span_set_name(s, slice_str(r->name));
	for (i = 0; i < r->attribute_count; i++)
		span_add_str(s, r->attributes[i].key, slice_str(r->attributes[i].value));
	return s;
}

void custom_span_finish(struct tracer *t, struct custom_process *p, struct custom_span *c,
			bool drop)
{
	uint64_t within_ns = link_call_last_within(c->call);
	struct span *s = c->span;
	struct link_point at = { c->last_ns, c->tid, 0 };

	list_remove(&c->node);
	if (!c->native) {
		hash_remove(&p->by_frame, c->frame);
		at.ns = within_ns > at.ns ? within_ns : at.ns;
	}
	p->count--;
	s->end_ns = at.ns;
	span_add_str(s, "spanloom.bounds", slice_str(c->native ? "exact" : "observed"));
	if (drop || tracer_leaves_out(t, p->pid)) {
		span_free(s);
		s = NULL;
	}
	link_call_end(t->linker, c->call, s, &at);
	free(c);
}

/* The process may be gone when the span ends, so it is asked now. */
static void add_code(struct tracer *t, struct custom_span *c, uint32_t pid, uint64_t code)
{
	struct code_info info = { 0 };

	if (!code || t->options.no_code || !t->ops.code || !link_call_sampled(c->call))
		return;
	if (t->ops.code(t->ops.ctx, pid, code, &info))
		tracer_add_code(c->span, &info);
}

struct custom_span *custom_span_begin(struct tracer *t, struct custom_process *p,
				      const struct custom_point *at, const struct runtime_span *f,
				      const struct runtime_site *site, struct call *outer)
{
	struct link_origin o = {
		.pid = at->pid,
		.custom = true,
		.at = { at->ts_ns, at->tid, at->turn },
		.context = at->context,
		.site = site,
		.within = outer,
		.exact = !site,
	};
	struct custom_span *c;

	c = calloc(1, sizeof(*c));
	if (c)
		o.span = c->span = make_span(t, at->pid, f->rule, at->ts_ns);
	if (o.span)
		c->call = link_call_begin(t->linker, &o);
	if (!c || !c->call) {
		if (c)
			span_free(c->span);
		free(c);
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	add_code(t, c, at->pid, f->code);
	c->native = !site;
	c->rule = f->rule;
	c->tid = at->tid;
	c->frame = f->frame;
	c->args = f->args;
	c->strand = link_strand(t->linker, at->pid, at->tid, at->context, site);
	c->last_ns = at->ts_ns;
	list_push(&p->spans, &c->node);
	p->count++;
	return c;
}
