/*
 * How traces are handed on: from a request to the calls that were made for it, from a call to the
 * request at its other end. It owns the waiting for that; who belongs to whom others decide.
 * Invariant: a trace that is settled never changes, and no span leaves before its trace is settled
 * and its parent final.
 */
#include <string.h>

#include "trace/link_promise.h"
#include "trace/link_settle.h"
#include "trace/link_trust.h"

enum { SETTLING_MAX = 16384, DECIDED_MAX = 16384 };

static struct call *call_of(struct link_trace *t)
{
	return list_entry(t, struct call, trace);
}

void link_trace_init(struct link_trace *t, const struct span *s, bool is_request)
{
	list_init(&t->heirs);
	list_init(&t->heir);
	list_init(&t->told);
	t->is_request = is_request;
	memcpy(t->trace_id, s->trace_id, sizeof(t->trace_id));
	memcpy(t->span_id, s->span_id, sizeof(t->span_id));
}

static void trace_get(struct link_trace *t)
{
	if (t->is_request)
		link_request_get(link_request_of(t));
	else
		link_call_get(call_of(t));
}

static void trace_put(struct link_trace *t)
{
	if (t->is_request)
		link_request_put(link_request_of(t));
	else
		link_call_put(call_of(t));
}

/* --- spans leave --- */

static void hand_on_request(struct linker *l, struct request *r)
{
	struct span *s = r->span;

	r->span = NULL;
	r->gone = true;
	memcpy(s->trace_id, r->trace.trace_id, sizeof(s->trace_id));
	memcpy(s->span_id, r->trace.span_id, sizeof(s->span_id));
	memcpy(s->parent_span_id, r->parent_span_id, sizeof(s->parent_span_id));
	s->has_parent = r->has_parent;
	s->remote_parent = r->remote_parent;
	l->ops.linked(l->ops.ctx, s, r->trace.flags);
}

static void hand_on_call(struct linker *l, struct call *c)
{
	struct span *s = c->span;

	c->span = NULL;
	memcpy(s->trace_id, c->trace.trace_id, sizeof(s->trace_id));
	memcpy(s->span_id, c->trace.span_id, sizeof(s->span_id));
	if (c->has_parent) {
		memcpy(s->parent_span_id, c->parent_span_id, sizeof(s->parent_span_id));
		s->has_parent = true;
		if (!c->is_custom)
			stats_add(l->stats, STATS_LINKED, 1);
	}
	if (c->latest_start_ns && s->start_ns > c->latest_start_ns)
		s->start_ns = c->latest_start_ns;
	if (c->maker_wrong)
		l->ops.not_made(l->ops.ctx, s);
	l->ops.linked(l->ops.ctx, s, c->trace.flags);
	link_call_free(c);
}

void link_call_hand_on(struct linker *l, struct call *c)
{
	if (c->span && c->decided && list_empty(&c->trace.heir))
		hand_on_call(l, c);
}

/* Nothing more will be known of the request: off the list, its span leaves if it has ended. */
static void finish(struct linker *l, struct request *r)
{
	if (!r->trace.settled || !r->parented || link_may_be_renamed_yet(r))
		return;
	if (r->span)
		hand_on_request(l, r);
	if (list_empty(&r->settling))
		return;
	list_remove(&r->settling);
	l->settling_count--;
	link_request_put(r);
}

/* --- traces are taken over --- */

static void call_takes(struct linker *l, struct call *c, struct link_trace *from)
{
	if (!link_trace_agrees(c, from)) {
		if (!c->is_custom)
			stats_drop(l->stats, DROP_PARENT_OTHER_TRACE, 1);
	} else {
		c->has_parent = from->given = true;
		memcpy(c->parent_span_id, from->span_id, sizeof(c->parent_span_id));
		memcpy(c->trace.trace_id, from->trace_id, sizeof(c->trace.trace_id));
		link_trace_settle(l, &c->trace, from->flags);
	}
	if (!list_empty(&c->node)) {
		list_remove(&c->node);
		l->decided_count--;
	}
	link_call_hand_on(l, c);
}

/* A proxy passed the header on: its own call stands between the two. (Who makes a header of his own
 * names a span of his there, which is the parent.) */
static bool is_hop(const struct request *r, const struct call *c)
{
	return c->has_parent && c->forwarded && c->of == c->forwarded &&
	       memcmp(c->trace.trace_id, r->trace.trace_id, TRACE_ID_BYTES) == 0;
}

static void request_takes(struct linker *l, struct request *r, struct link_trace *from)
{
	struct call *c = call_of(from);
	bool silent = l->ops.silent && l->ops.silent(l->ops.ctx, c->process->pid);

	if (!r->trace.settled && !silent) {
		memcpy(r->trace.trace_id, from->trace_id, sizeof(r->trace.trace_id));
		link_trace_settle(l, &r->trace,
				  l->ops.decide(l->ops.ctx, from->trace_id, &from->flags));
	} else if (!r->trace.settled || silent || !is_hop(r, c)) {
		link_settle_alone(l, r);
		return;
	}
	r->has_parent = true;
	r->remote_parent = false;
	memcpy(r->parent_span_id, from->span_id, sizeof(r->parent_span_id));
	stats_add(l->stats, STATS_JOINED, 1);
	r->parented = true;
	r->caller = NULL;
	finish(l, r);
	link_call_put(c);
}

static void tell_heirs(struct linker *l, struct link_trace *t)
{
	while (!list_empty(&t->heirs)) {
		struct link_trace *heir = list_entry(t->heirs.next, struct link_trace, heir);

		list_remove(&heir->heir);
		trace_get(heir);
		if (heir->is_request)
			request_takes(l, link_request_of(heir), t);
		else
			call_takes(l, call_of(heir), t);
		trace_put(heir);
	}
}

/* One after the other, not one within the other: chains of services may be long. */
void link_trace_settle(struct linker *l, struct link_trace *t, uint8_t flags)
{
	if (t->settled)
		return;
	t->settled = true;
	t->flags = flags;
	if (list_empty(&t->heirs))
		return;
	trace_get(t);
	list_push(&l->settled, &t->told);
	if (l->telling)
		return;
	l->telling = true;
	while (!list_empty(&l->settled)) {
		t = list_entry(l->settled.next, struct link_trace, told);
		list_remove(&t->told);
		tell_heirs(l, t);
		trace_put(t);
	}
	l->telling = false;
}

/* --- requests --- */

static void forget_caller(struct request *r)
{
	struct call *c = r->caller;

	list_remove(&r->trace.heir);
	r->caller = NULL;
	link_call_put(c);
}

/* What is known now is all there will be: the header's parent, or none. */
void link_settle_alone(struct linker *l, struct request *r)
{
	link_request_get(r);
	forget_caller(r);
	r->parented = true;
	link_trace_settle(l, &r->trace, l->ops.decide(l->ops.ctx, r->trace.trace_id, NULL));
	finish(l, r);
	link_request_put(r);
}

void link_settle_begin(struct linker *l, struct request *r, const struct exchange *ex)
{
	link_trace_init(&r->trace, ex->span, true);
	list_push(&l->settling, &r->settling);
	link_request_get(r);
	if (++l->settling_count <= SETTLING_MAX)
		return;
	stats_drop(l->stats, DROP_JOIN_LATE, 1);
	link_settle_alone(l, list_entry(l->settling.next, struct request, settling));
}

static void set_remote(struct request *r, const uint8_t *trace_id, const uint8_t *span_id,
		       uint8_t flags)
{
	r->remote = r->has_parent = r->remote_parent = true;
	r->remote_flags = flags;
	memcpy(r->remote_trace_id, trace_id, TRACE_ID_BYTES);
	memcpy(r->remote_span_id, span_id, SPAN_ID_BYTES);
	memcpy(r->trace.trace_id, trace_id, TRACE_ID_BYTES);
	memcpy(r->parent_span_id, span_id, SPAN_ID_BYTES);
}

void link_request_ids(struct linker *l, struct request *r, const struct request_event *ev)
{
	if (r->trace.settled || r->head_read)
		return;
	memcpy(r->trace.span_id, ev->span_id, SPAN_ID_BYTES);
	memcpy(r->trace.trace_id, ev->trace_id, TRACE_ID_BYTES);
	if (ev->flags & REQUEST_EVENT_REMOTE) {
		set_remote(r, ev->trace_id, ev->parent_span_id, ev->trace_flags);
	}
	if (!(ev->flags & REQUEST_EVENT_FIXED))
		return;
	if (ev->flags & REQUEST_EVENT_JOINED) {
		r->has_parent = true;
		memcpy(r->parent_span_id, ev->parent_span_id, SPAN_ID_BYTES);
		stats_add(l->stats, STATS_JOINED, 1);
	}
	/* A header's sender may have a hop in between. */
	r->parented = !r->remote || !r->joins;
	if (r->parented)
		forget_caller(r);
	link_trace_settle(
		l, &r->trace,
		(uint8_t)((ev->trace_flags & ~1u) | (ev->flags & REQUEST_EVENT_SAMPLED ? 1u : 0u)));
	finish(l, r);
}

bool link_request_remote(struct request *r, const struct trace_context *tc)
{
	if (!r->remote && !r->trace.settled)
		set_remote(r, tc->trace_id, tc->span_id, tc->flags);
	return r->remote && memcmp(r->remote_trace_id, tc->trace_id, TRACE_ID_BYTES) == 0 &&
	       memcmp(r->remote_span_id, tc->span_id, SPAN_ID_BYTES) == 0;
}

void link_settle_head(struct linker *l, struct request *r)
{
	if (!r->trace.settled && r->remote)
		link_trace_settle(l, &r->trace,
				  l->ops.decide(l->ops.ctx, r->trace.trace_id, &r->remote_flags));
	if (!r->joins && !r->parented)
		link_settle_alone(l, r);
}

bool link_request_waits(const struct request *r)
{
	return !r->parented && !r->caller;
}

void link_request_leave(struct linker *l, struct request *r, struct span *s)
{
	r->span = s;
	if (!r->parented && !r->head_read)
		link_settle_alone(l, r); /* its header was never seen */
	else
		finish(l, r);
}

/* The ids that the call has got in the kernel, when what told them was lost: the request at the
 * other end has them too. */
void link_call_learn(struct linker *l, struct call *c)
{
	const struct link_name *n = &c->name;

	if (!c->is_named || c->identified || c->trace.settled)
		return;
	if (n->by_header && (c->own_header || !c->head_read))
		return;
	c->identified = c->fixed = true;
	memcpy(c->trace.trace_id, n->trace_id, sizeof(c->trace.trace_id));
	memcpy(c->trace.span_id, n->span_id, sizeof(c->trace.span_id));
	link_trace_settle(l, &c->trace, n->flags);
}

static void name_call(struct linker *l, struct call *c, const struct request *r)
{
	if (!r->has_parent || !r->trace.settled)
		return;
	c->is_named = true;
	c->name.by_header = r->remote;
	c->name.flags = r->trace.flags;
	memcpy(c->name.trace_id, r->trace.trace_id, sizeof(c->name.trace_id));
	memcpy(c->name.span_id, r->parent_span_id, sizeof(c->name.span_id));
	link_call_learn(l, c);
}

void link_join(struct linker *l, struct call *c, struct request *r)
{
	name_call(l, c, r);
	if (!c->latest_start_ns || r->began_ns < c->latest_start_ns)
		c->latest_start_ns = r->began_ns;
	if (!link_request_waits(r) || c->dropped)
		return;
	r->caller = link_call_get(c);
	if (c->trace.settled) {
		request_takes(l, r, &c->trace);
		return;
	}
	list_push(&c->trace.heirs, &r->trace.heir);
	if (r->promised)
		link_promise_keep(l, r);
}

void link_join_none(struct linker *l, struct request *r)
{
	if (!link_request_waits(r))
		return;
	stats_drop(l->stats, DROP_JOIN_AMBIGUOUS, 1);
	link_settle_alone(l, r);
}

/* --- calls --- */

void link_call_ids(struct linker *l, struct call *c, const struct request_event *ev)
{
	memcpy(c->trace.span_id, ev->span_id, SPAN_ID_BYTES);
	memcpy(c->trace.trace_id, ev->trace_id, TRACE_ID_BYTES);
	c->identified = true;
	c->is_bound = ev->flags & REQUEST_EVENT_BOUND;
	memcpy(c->bound_to, ev->parent_span_id, SPAN_ID_BYTES);
	if (!(ev->flags & REQUEST_EVENT_FIXED))
		return;
	c->fixed = true;
	link_trace_settle(
		l, &c->trace,
		(uint8_t)((ev->trace_flags & ~1u) | (ev->flags & REQUEST_EVENT_SAMPLED ? 1u : 0u)));
	if (c->is_bound)
		link_promise(l, c);
}

/* The oldest of too many: what its request was joined to took too long. */
static void bound_in_number(struct linker *l)
{
	struct call *c = list_entry(l->decided.next, struct call, node);

	if (++l->decided_count <= DECIDED_MAX || !c->of)
		return;
	stats_drop(l->stats, DROP_JOIN_LATE, 1);
	link_settle_alone(l, c->of);
}

void link_call_decided(struct linker *l, struct call *c, struct link_trace *from)
{
	struct request *waits = list_empty(&c->by_request) ? NULL : link_request_get(c->request);

	c->decided = true;
	list_remove(&c->node);
	list_remove(&c->by_request);
	link_call_leaves(c);
	if (!from) {
		link_trace_settle(l, &c->trace, l->ops.decide(l->ops.ctx, c->trace.trace_id, NULL));
		link_call_hand_on(l, c);
	} else if (from->settled) {
		call_takes(l, c, from);
	} else {
		list_push(&from->heirs, &c->trace.heir);
		list_push(&l->decided, &c->node);
		bound_in_number(l);
	}
	if (waits)
		finish(l, waits);
	link_request_put(waits);
}

void link_call_made_for(struct linker *l, struct call *c, struct request *r)
{
	c->of = link_request_get(r);
	if (r && c->is_bound && memcmp(c->bound_to, r->trace.span_id, sizeof(c->bound_to)) != 0)
		link_distrust(l, c->process,
			      c->in_context ? TRACER_TRUST_CONTEXTS : TRACER_TRUST_THREADS);
	link_call_decided(l, c, r ? &r->trace : NULL);
}

/* The call has no span: what was joined to it has no parent. */
void link_call_void(struct linker *l, struct call *c)
{
	struct list alone, *it, *tmp;

	c->dropped = true;
	list_init(&alone);
	list_each_safe(it, tmp, &c->trace.heirs) {
		if (!list_entry(it, struct link_trace, heir)->is_request)
			continue;
		list_remove(it);
		list_push(&alone, it);
	}
	/* What one settles may settle others of these. */
	while (!list_empty(&alone))
		link_settle_alone(l,
				  link_request_of(list_entry(alone.next, struct link_trace, heir)));
}

/* --- time --- */

static bool is_overdue(const struct request *r, uint64_t now_ns)
{
	if (r->caller)
		return r->ended && now_ns >= r->ended_ns + LINK_SETTLE_NS;
	return r->head_read && now_ns >= r->began_ns + LINK_JOIN_NS;
}

static void settle_all(struct linker *l, struct list *overdue)
{
	while (!list_empty(overdue)) {
		struct request *r = list_entry(overdue->next, struct request, settling);

		if (r->caller && !r->trace.settled)
			stats_drop(l->stats, DROP_JOIN_LATE, 1);
		link_settle_alone(l, r);
	}
}

void link_settle_tick(struct linker *l, uint64_t now_ns)
{
	struct list overdue, *it, *tmp;

	list_init(&overdue);
	list_each_safe(it, tmp, &l->settling) {
		struct request *r = list_entry(it, struct request, settling);

		if (now_ns < r->began_ns + LINK_JOIN_NS)
			break;
		if (!is_overdue(r, now_ns))
			continue;
		list_remove(it);
		list_push(&overdue, it);
	}
	settle_all(l, &overdue);
}

void link_settle_flush(struct linker *l)
{
	struct list overdue, *it, *tmp;

	/* First those without a caller: what they settle may settle the others. */
	list_init(&overdue);
	list_each_safe(it, tmp, &l->settling) {
		if (list_entry(it, struct request, settling)->caller)
			continue;
		list_remove(it);
		list_push(&overdue, it);
	}
	settle_all(l, &overdue);
	settle_all(l, &l->settling);
}

void link_settle_free(struct linker *l)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &l->settling) {
		struct request *r = list_entry(it, struct request, settling);

		forget_caller(r);
		span_free(r->span);
		r->span = NULL;
		list_remove(&r->settling);
		link_request_put(r);
	}
	list_each_safe(it, tmp, &l->decided)
		link_call_free(list_entry(it, struct call, node));
}
