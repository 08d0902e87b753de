/*
 * Keeps the custom spans that are open. Invariant: each is in its process's list, in the order of
 * the last event, and a runtime's in the table by its frame; the linker has a call for each, which
 * ends with it.
 */
#include "trace/custom_span.h"

#include <stdlib.h>

#include "trace/tracer_internal.h"

#define TICK_NS 100000000ull

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

static struct custom_process *process_get(struct tracer *t, uint32_t pid, bool make)
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

static struct custom_span *span_at(struct list *node)
{
	return list_entry(node, struct custom_span, node);
}

/* --- one span's life --- */

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

static void finish(struct tracer *t, struct custom_process *p, struct custom_span *c, bool drop)
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
	if (drop) {
		span_free(s);
		s = NULL;
	}
	link_call_end(t->linker, c->call, s, &at);
	free(c);
}

/* What was asked for last is most likely still running. */
static void make_room(struct tracer *t, struct custom_process *p)
{
	if (p->count < CUSTOM_SPANS_MAX)
		return;
	stats_drop(t->stats, DROP_SPAN_LIMIT, 1);
	finish(t, p, span_at(p->spans.next), true);
}

static struct custom_span *begin(struct tracer *t, struct custom_process *p,
				 const struct custom_point *at, const struct runtime_span *f,
				 const struct runtime_site *site, struct call *outer)
{
	struct link_origin o = {
		.pid = at->pid,
		.at = { at->ts_ns, at->tid, at->turn },
		.context = at->context,
		.site = site,
		.within = outer,
		.exact = !site,
	};
	struct custom_span *c;

	make_room(t, p);
	c = calloc(1, sizeof(*c));
	if (c)
		o.custom = c->span = make_span(t, at->pid, f->rule, at->ts_ns);
	if (o.custom)
		c->call = link_call_begin(t->linker, &o);
	if (!c || !c->call) {
		if (c)
			span_free(c->span);
		free(c);
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	c->native = !site;
	c->rule = f->rule;
	c->tid = at->tid;
	c->frame = f->frame;
	c->args = f->args;
	c->strand = link_strand(t->linker, at->pid, at->tid, at->context);
	c->last_ns = at->ts_ns;
	list_push(&p->spans, &c->node);
	p->count++;
	return c;
}

/* --- a runtime's functions --- */

static struct custom_span *see_frame(struct tracer *t, struct custom_process *p,
				     const struct custom_point *at, const struct runtime_span *f,
				     const struct runtime_site *site, struct call *outer)
{
	struct custom_span *c = hash_get(&p->by_frame, f->frame);

	if (c && (c->rule != f->rule || c->args != f->args ||
		  c->strand != link_strand(t->linker, at->pid, at->tid, at->context))) {
		finish(t, p, c, false);
		c = NULL;
	}
	if (!c) {
		c = begin(t, p, at, f, site, outer);
		if (c && !hash_put(&p->by_frame, f->frame, c)) {
			finish(t, p, c, true);
			c = NULL;
		}
		return c;
	}
	if (at->ts_ns > c->last_ns)
		c->last_ns = at->ts_ns;
	list_remove(&c->node);
	list_push(&p->spans, &c->node);
	return c;
}

static bool on_stack(const struct custom_span *c, const struct runtime_site *site)
{
	uint32_t i;

	for (i = 0; i < site->span_count; i++) {
		if (site->spans[i].frame == c->frame)
			return true;
	}
	return false;
}

/* A context goes on with one function at a time: what isn't on its stack any more has returned. */
static void end_returned(struct tracer *t, struct custom_process *p, const struct custom_point *at,
			 const struct runtime_site *site)
{
	uint64_t strand;
	struct list *it, *tmp;

	if (!at->context || site->cut || site->span_count >= RUNTIME_SPANS_MAX)
		return;
	strand = link_strand(t->linker, at->pid, at->tid, at->context);
	/* Those that were seen last stand last, so an inner one ends before its outer one. */
	for (it = p->spans.prev, tmp = it->prev; it != &p->spans; it = tmp, tmp = it->prev) {
		struct custom_span *c = span_at(it);

		if (!c->native && c->strand == strand && !on_stack(c, site) &&
		    !link_call_open_within(c->call))
			finish(t, p, c, false);
	}
}

void custom_span_see(struct tracer *t, const struct custom_point *at,
		     const struct runtime_site *site)
{
	struct custom_process *p;
	struct call *outer = NULL;
	uint32_t i;

	if (!site || !t->options.span_rule_count || !link_has_runtime(t->linker, at->pid))
		return;
	p = process_get(t, at->pid, site->span_count > 0);
	if (!p)
		return;
	end_returned(t, p, at, site);
	for (i = site->span_count; i-- > 0;) {
		const struct runtime_span *f = &site->spans[i];
		struct custom_span *c;

		if (f->rule >= t->options.span_rule_count)
			continue;
		c = see_frame(t, p, at, f, site, outer);
		if (c)
			outer = c->call;
	}
}

/* --- native functions --- */

static struct custom_span *find_native(struct custom_process *p, uint32_t tid, uint64_t strand)
{
	struct list *it;

	for (it = p->spans.prev; it != &p->spans; it = it->prev) {
		struct custom_span *c = span_at(it);

		if (c->native && c->tid == tid && c->strand == strand)
			return c;
	}
	return NULL;
}

static struct custom_span *find_entry(struct custom_process *p, const struct native_span_event *ev)
{
	struct list *it;

	for (it = p->spans.prev; it != &p->spans; it = it->prev) {
		struct custom_span *c = span_at(it);

		if (c->native && c->tid == ev->tid && c->rule == ev->rule && c->frame == ev->stack)
			return c;
	}
	return NULL;
}

void custom_span_native(struct tracer *t, const struct native_span_event *ev)
{
	const struct custom_point at = { ev->pid, ev->tid, ev->turn, ev->ts_ns, ev->context };
	const struct runtime_span f = { .frame = ev->stack, .rule = ev->rule };
	struct custom_process *p;
	struct custom_span *c, *outer;

	if (ev->rule >= t->options.span_rule_count)
		return;
	p = process_get(t, ev->pid, !ev->left);
	c = p ? find_entry(p, ev) : NULL;
	if (ev->left) {
		if (!c)
			return;
		c->last_ns = ev->ts_ns;
		finish(t, p, c, false);
		return;
	}
	if (!p)
		return;
	if (c) { /* it was left without our seeing it: an exception, a longjmp */
		stats_drop(t->stats, DROP_SPAN_UNFINISHED, 1);
		finish(t, p, c, true);
	}
	outer = find_native(p, ev->tid, link_strand(t->linker, ev->pid, ev->tid, ev->context));
	begin(t, p, &at, &f, NULL, outer ? outer->call : NULL);
}

struct call *custom_span_current(struct tracer *t, uint32_t pid, uint32_t tid, uint64_t context,
				 const struct runtime_site *site)
{
	struct custom_process *p = process_get(t, pid, false);
	struct custom_span *c;

	if (!p)
		return NULL;
	c = find_native(p, tid, link_strand(t->linker, pid, tid, context));
	if (!c && site && site->span_count)
		c = hash_get(&p->by_frame, site->spans[0].frame);
	return c ? c->call : NULL;
}

/* --- ends --- */

static bool is_over(const struct custom_span *c, uint64_t now_ns)
{
	uint64_t within_ns = link_call_last_within(c->call), last = c->last_ns;
	bool known, ended, open = link_call_request(c->call, &known, &ended);

	if (c->native || open || link_call_open_within(c->call))
		return false;
	if (within_ns > last)
		last = within_ns;
	return now_ns >= last + (!known  ? CUSTOM_WAIT_NS
				 : ended ? CUSTOM_AFTER_NS
					 : CUSTOM_QUIET_NS);
}

void custom_span_tick(struct tracer *t, uint64_t now_ns)
{
	struct list *it, *tmp;
	size_t pos = 0;
	void *value;

	if (now_ns < t->next_custom_ns)
		return;
	t->next_custom_ns = now_ns + TICK_NS;
	while (hash_next(&t->custom, &pos, NULL, &value)) {
		struct custom_process *p = value;

		/* An outer one is over only when its inner ones are: they are found the next time.
		 */
		list_each_safe(it, tmp, &p->spans) {
			if (is_over(span_at(it), now_ns))
				finish(t, p, span_at(it), false);
		}
	}
}

static void end_native(struct tracer *t, struct custom_process *p, struct custom_span *c)
{
	stats_drop(t->stats, DROP_SPAN_UNFINISHED, 1);
	finish(t, p, c, true);
}

void custom_span_thread_exit(struct tracer *t, uint32_t pid, uint32_t tid)
{
	struct custom_process *p = process_get(t, pid, false);
	struct list *it, *tmp;

	if (!p)
		return;
	list_each_safe(it, tmp, &p->spans) {
		struct custom_span *c = span_at(it);

		if (c->native && c->tid == tid)
			end_native(t, p, c);
	}
}

static void end_spans(struct tracer *t, struct custom_process *p)
{
	/* The inner ones first. */
	while (!list_empty(&p->spans)) {
		struct custom_span *c = span_at(p->spans.prev);

		if (c->native)
			end_native(t, p, c);
		else
			finish(t, p, c, false);
	}
}

static void process_free(struct custom_process *p)
{
	hash_free(&p->by_frame);
	free(p);
}

void custom_span_process_exit(struct tracer *t, uint32_t pid)
{
	struct custom_process *p = hash_remove(&t->custom, pid);

	if (!p)
		return;
	end_spans(t, p);
	process_free(p);
}

void custom_span_end_all(struct tracer *t)
{
	size_t pos = 0;
	void *value;

	while (hash_next(&t->custom, &pos, NULL, &value))
		end_spans(t, value);
}

void custom_span_free(struct tracer *t)
{
	size_t pos = 0;
	void *value;

	while (hash_next(&t->custom, &pos, NULL, &value)) {
		struct custom_process *p = value;

		while (!list_empty(&p->spans))
			finish(t, p, span_at(p->spans.prev), true);
		process_free(p);
	}
	hash_free(&t->custom);
}
