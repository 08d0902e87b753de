/*
 * Keeps the custom spans that are open: which functions are on which stack, and when one is over.
 * Invariant: an inner span ends before its outer one.
 */
#include "trace/custom_span_internal.h"

#define TICK_NS 100000000ull

static struct custom_span *span_at(struct list *node)
{
	return list_entry(node, struct custom_span, node);
}

static struct custom_span *last_of(const struct custom_process *p)
{
	return list_empty(&p->spans) ? NULL : span_at(p->spans.prev);
}

/* What was asked for last is most likely still running. */
static void make_room(struct tracer *t, struct custom_process *p)
{
	if (p->count < CUSTOM_SPANS_MAX)
		return;
	stats_drop(t->stats, DROP_SPAN_LIMIT, 1);
	custom_span_finish(t, p, span_at(p->spans.next), true);
}

/* --- a runtime's functions --- */

static struct custom_span *see_frame(struct tracer *t, struct custom_process *p,
				     const struct custom_point *at, const struct runtime_span *f,
				     const struct runtime_site *site, struct call *outer)
{
	struct custom_span *c = hash_get(&p->by_frame, f->frame);

	if (c && (c->rule != f->rule || c->args != f->args ||
		  c->strand != link_strand(t->linker, at->pid, at->tid, at->context, site) ||
		  link_strand_over(c->call, at->context))) {
		custom_span_finish(t, p, c, false);
		c = NULL;
	}
	if (!c) {
		make_room(t, p);
		c = custom_span_begin(t, p, at, f, site, outer);
		if (c && !hash_put(&p->by_frame, f->frame, c)) {
			custom_span_finish(t, p, c, true);
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
	strand = link_strand(t->linker, at->pid, at->tid, at->context, site);
	/* Those that were seen last stand last, so an inner one ends before its outer one. */
	for (it = p->spans.prev, tmp = it->prev; it != &p->spans; it = tmp, tmp = it->prev) {
		struct custom_span *c = span_at(it);

		if (!c->native && c->strand == strand && !on_stack(c, site) &&
		    !link_call_open_within(c->call))
			custom_span_finish(t, p, c, false);
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
	p = custom_process_get(t, at->pid, site->span_count > 0);
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

/*
 * Stacks grow towards lower addresses, so what is entered or left at `ev->stack` is outside of all
 * that was entered below: that was left without our seeing it, by an exception or a longjmp.
 * (Only within the strand: a greenlet's stack may lie where another one's lay.)
 */
static void drop_jumped(struct tracer *t, struct custom_process *p,
			const struct native_span_event *ev, uint64_t strand)
{
	struct list *it, *tmp;

	for (it = p->spans.prev, tmp = it->prev; it != &p->spans; it = tmp, tmp = it->prev) {
		struct custom_span *c = list_entry(it, struct custom_span, node);

		if (!c->native || c->tid != ev->tid || c->strand != strand ||
		    c->frame > ev->stack || (c->frame == ev->stack && ev->left))
			continue;
		stats_drop(t->stats, DROP_SPAN_UNFINISHED, 1);
		custom_span_finish(t, p, c, true);
	}
}

void custom_span_native(struct tracer *t, const struct native_span_event *ev)
{
	const struct custom_point at = { ev->pid, ev->tid, ev->turn, ev->ts_ns, ev->context };
	const struct runtime_span f = { .frame = ev->stack, .rule = ev->rule };
	struct custom_process *p;
	struct custom_span *c, *outer;
	uint64_t strand;

	if (ev->rule >= t->options.span_rule_count)
		return;
	p = custom_process_get(t, ev->pid, !ev->left);
	if (!p)
		return;
	strand = link_strand(t->linker, ev->pid, ev->tid, ev->context, NULL);
	drop_jumped(t, p, ev, strand);
	c = find_entry(p, ev);
	if (ev->left) {
		if (!c)
			return;
		c->last_ns = ev->ts_ns;
		custom_span_finish(t, p, c, false);
		return;
	}
	if (c) { /* the same, and it was another context's */
		stats_drop(t->stats, DROP_SPAN_UNFINISHED, 1);
		custom_span_finish(t, p, c, true);
	}
	outer = find_native(p, ev->tid, strand);
	make_room(t, p);
	custom_span_begin(t, p, &at, &f, NULL, outer ? outer->call : NULL);
}

struct call *custom_span_current(struct tracer *t, uint32_t pid, uint32_t tid, uint64_t context,
				 const struct runtime_site *site)
{
	struct custom_process *p = custom_process_get(t, pid, false);
	struct custom_span *c;

	if (!p)
		return NULL;
	c = find_native(p, tid, link_strand(t->linker, pid, tid, context, NULL));
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
				custom_span_finish(t, p, span_at(it), false);
		}
	}
}

static void end_native(struct tracer *t, struct custom_process *p, struct custom_span *c)
{
	stats_drop(t->stats, DROP_SPAN_UNFINISHED, 1);
	custom_span_finish(t, p, c, true);
}

void custom_span_thread_exit(struct tracer *t, uint32_t pid, uint32_t tid)
{
	struct custom_process *p = custom_process_get(t, pid, false);
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
	struct custom_span *c;

	/* The inner ones first. */
	while ((c = last_of(p))) {
		if (c->native)
			end_native(t, p, c);
		else
			custom_span_finish(t, p, c, false);
	}
}

void custom_span_process_exit(struct tracer *t, uint32_t pid)
{
	struct custom_process *p = hash_remove(&t->custom, pid);

	if (!p)
		return;
	end_spans(t, p);
	custom_process_free(p);
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
		struct custom_span *c;

		while ((c = last_of(p)))
			custom_span_finish(t, p, c, true);
		custom_process_free(p);
	}
	hash_free(&t->custom);
}
