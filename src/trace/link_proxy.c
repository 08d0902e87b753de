/*
 * Follows the calls of proxies (link_proxy.h). It knows methods, targets and status codes only as
 * numbers. Invariant: a call is in its process's list as long as a request may have it, and is
 * given to one request at most; where two show up for it, to none.
 */
#include "trace/link_proxy.h"

#include <stdlib.h>
#include <string.h>

#include "trace/link_context.h"
#include "trace/link_settle.h"

enum { ENDS_MAX = 2048 /* of a process */ };

/* A request with a header that has ended. */
struct remote_end {
	uint64_t ended_ns;
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES];
};

/* --- the header --- */

static bool same_ids(const struct call *c, const uint8_t *trace_id, const uint8_t *span_id)
{
	return memcmp(c->own_trace_id, trace_id, TRACE_ID_BYTES) == 0 &&
	       memcmp(c->own_span_id, span_id, SPAN_ID_BYTES) == 0;
}

/* Has one ended lately that came with the header of the call? */
static bool ended_lately(const struct process *p, const struct call *c, uint64_t now_ns)
{
	uint32_t i;

	for (i = 1; i <= ENDS_MAX; i++) {
		const struct remote_end *e = &p->ends[(p->ends_at - i) % ENDS_MAX];

		if (!e->ended_ns || e->ended_ns + REMOTE_HOLD_NS < now_ns)
			return false;
		if (same_ids(c, e->trace_id, e->span_id))
			return true;
	}
	return false;
}

/* From the first call of the process on that has a header. */
static void watch_ends(struct linker *l, struct process *p)
{
	if (p->ends)
		return;
	p->ends = calloc(ENDS_MAX, sizeof(*p->ends));
	if (!p->ends)
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
}

static void note_end(struct process *p, const struct request *r)
{
	struct remote_end *e;

	if (!p->ends || !r->remote)
		return;
	e = &p->ends[p->ends_at++ % ENDS_MAX];
	e->ended_ns = r->ended_ns;
	memcpy(e->trace_id, r->remote_trace_id, TRACE_ID_BYTES);
	memcpy(e->span_id, r->remote_span_id, SPAN_ID_BYTES);
}

void link_call_header(struct linker *l, struct call *c, const struct trace_context *tc,
		      uint64_t now_ns)
{
	struct process *p = c->process;
	struct request *only = NULL;
	struct list *it, *tmp;

	c->own_header = true;
	memcpy(c->own_trace_id, tc->trace_id, TRACE_ID_BYTES);
	memcpy(c->own_span_id, tc->span_id, SPAN_ID_BYTES);
	if (c->decided || now_ns < l->doubt_until_ns)
		return;
	watch_ends(l, p);
	if (!p->ends)
		return;
	list_each_safe(it, tmp, &p->requests) {
		struct request *r = list_entry(it, struct request, node);

		if (!r->remote || !same_ids(c, r->remote_trace_id, r->remote_span_id))
			continue;
		if (only || !r->head_read || r->lost)
			return;
		only = r;
	}
	if (!only || ended_lately(p, c, now_ns))
		return;
	c->forwarded = link_request_get(only);
	if (!c->seq)
		link_call_made_for(l, c, only);
}

/* --- transfers --- */

static void hear(struct call **slot, struct call *c)
{
	link_call_get(c);
	link_call_put(*slot);
	*slot = c;
}

void link_transfer(struct linker *l, const struct io_event *ev)
{
	struct thread *t = hash_get(&l->threads, ev->tid);

	if (!t || t->pid != ev->pid || (!t->heard && !t->before))
		return;
	if (ev->flags & IO_LOST) {
		hear(&t->heard, NULL);
		hear(&t->before, NULL);
		return;
	}
	if (ev->dir == IO_RECV && ev->conn_id == t->heard_conn) {
		hear(&t->before, NULL);
		return; /* more of the same answer */
	}
	if (ev->dir == IO_SEND && t->before && !t->heard && ev->conn_id == t->before_conn)
		return; /* more of the same, too */
	if (ev->flags & IO_SAME_CALL)
		return;
	hear(&t->before, ev->dir == IO_SEND ? t->heard : NULL);
	t->before_conn = ev->conn_id;
	t->before_first = t->heard_first;
	t->before_last = t->heard_last;
	hear(&t->heard, NULL);
	t->heard_conn = 0;
}

/* The event that is being fed is one of the answer to `c`. */
static struct thread *heard_by(struct linker *l, struct call *c, const struct io_event *ev)
{
	struct thread *t = link_thread_get(l, c->process->pid, ev->tid);

	if (!t || t->heard == c)
		return t;
	hear(&t->heard, c);
	t->heard_conn = c->conn_id;
	t->heard_first = t->heard_last = false;
	return t;
}

/* --- calls and requests --- */

static bool fits(const struct request *r, const struct call *c)
{
	return r->hop_key && r->hop_key == c->hop_key && r->hop_order < c->hop_order && !r->lost;
}

static void tear(struct call *c, struct request *r)
{
	c->hop_torn = r->hop_torn = true;
	if (c->passed)
		c->passed->hop_torn = true;
	if (r->hop)
		r->hop->hop_torn = true;
}

/* Is each other call that may be the one of `r` known to be another request's? */
static bool others_taken(const struct process *p, const struct request *r, const struct call *c,
			 bool complete)
{
	struct list *it;

	for (it = p->hops.next; it != &p->hops; it = it->next) {
		const struct call *other = list_entry(it, struct call, hop);

		if (other == c || !fits(r, other) || !other->status ||
		    (complete && !other->complete))
			continue;
		if (!other->passed || other->hop_torn)
			return false;
	}
	return true;
}

/* The thread has just read of the answer to `c`, and answers `r`. */
static void show(struct request *r, struct call *c, bool proves, bool complete)
{
	if (r->hop || !fits(r, c))
		return;
	if (c->passed) {
		tear(c, r);
		return;
	}
	if (!proves || r->hop_torn || c->hop_torn || list_empty(&c->hop) ||
	    !others_taken(r->process, r, c, complete))
		return;
	c->passed = link_request_get(r);
	r->hop = c;
}

void link_request_passes(struct linker *l, struct request *r, const struct io_event *ev, int status)
{
	struct thread *t = hash_get(&l->threads, ev->tid);

	if (!r->hop_key || !t || t->pid != r->process->pid)
		return;
	if (status) {
		r->status = status;
		if (t->before)
			show(r, t->before, t->before_first, false);
	} else if (t->before) {
		show(r, t->before, t->before_last, true);
	}
}

void link_call_hears(struct linker *l, struct call *c, const struct io_event *ev, int status)
{
	struct thread *t;

	if (status)
		c->status = status;
	else
		c->complete = true;
	t = list_empty(&c->hop) ? NULL : heard_by(l, c, ev);
	if (!t)
		return;
	t->heard_first = t->heard_first || status;
	t->heard_last = t->heard_last || !status;
}

void link_request_target(struct linker *l, struct request *r, uint64_t key)
{
	r->hop_key = key;
	r->hop_order = ++l->hop_order;
}

void link_call_target(struct linker *l, struct call *c, uint64_t key)
{
	struct process *p = c->process;
	const struct contexts *x = p->contexts;

	if (c->hop_key)
		return;
	c->head_read = true;
	link_call_learn(l, c);
	c->hop_order = ++l->hop_order;
	c->hop_key = key;
	if ((x && x->runtime) || !p->open)
		return;
	if (p->hop_count >= HOPS_MAX) { /* it can't be looked for */
		link_hops_lost(p);
		return;
	}
	link_call_get(c);
	list_push(&p->hops, &c->hop);
	p->hop_count++;
}

bool link_call_passes_on(const struct call *c)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &c->process->requests) {
		if (list_entry(it, struct request, node)->hop_key == c->hop_key)
			return c->hop_key != 0;
	}
	return false;
}

/* --- ends --- */

static void leave(struct process *p, struct call *c)
{
	list_remove(&c->hop);
	p->hop_count--;
	link_call_put(c);
}

/* Drops the calls that are older than every open request. */
static void prune(struct process *p)
{
	uint64_t oldest = UINT64_MAX;
	struct list *it, *tmp;

	if (list_empty(&p->hops))
		return;
	list_each_safe(it, tmp, &p->requests) {
		const struct request *r = list_entry(it, struct request, node);

		if (r->hop_key && r->hop_order < oldest)
			oldest = r->hop_order;
	}
	list_each_safe(it, tmp, &p->hops) {
		struct call *c = list_entry(it, struct call, hop);

		if (c->hop_order > oldest)
			return;
		leave(p, c);
	}
}

void link_hops_lost(struct process *p)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &p->hops) {
		struct call *c = list_entry(it, struct call, hop);

		c->hop_torn = true;
		if (c->passed)
			c->passed->hop_torn = true;
	}
	list_each_safe(it, tmp, &p->requests)
		list_entry(it, struct request, node)->hop_torn = true;
}

void link_hops_forget(struct process *p)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &p->hops)
		leave(p, list_entry(it, struct call, hop));
}

void link_hop_over(struct linker *l, struct request *r, bool answered)
{
	struct process *p = r->process;
	struct call *c = r->hop;
	struct list *it, *tmp;

	note_end(p, r);
	if (!r->hop_key)
		return;
	if (c && !c->complete)
		c->hop_torn = true;
	if (!r->status || !answered) {
		/* One of these was its own, and who gets the answer now can't be told. */
		list_each_safe(it, tmp, &p->hops) {
			struct call *other = list_entry(it, struct call, hop);

			if (fits(r, other))
				other->hop_torn = true;
		}
	}
	if (c && c->span && !c->decided)
		link_decide(l, c, r->ended_ns, false);
	prune(p);
}

void link_hop_free(struct call *c)
{
	if (!c->passed)
		return;
	if (c->passed->hop == c)
		c->passed->hop = NULL;
	link_request_put(c->passed);
	c->passed = NULL;
}

/* --- the decision --- */

static bool may_be_passed(const struct call *c)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &c->process->requests) {
		const struct request *r = list_entry(it, struct request, node);

		if (fits(r, c) && !r->hop && !r->hop_torn)
			return true;
	}
	return false;
}

enum verdict link_judge_hop(const struct call *c, enum patience patience, struct request **ret)
{
	struct request *r = c->passed;

	if (c->forwarded) {
		*ret = c->forwarded;
		return VERDICT_YES;
	}
	if (c->hop_torn)
		return VERDICT_NO;
	if (!r)
		return patience == PATIENT && !list_empty(&c->hop) && may_be_passed(c)
			       ? VERDICT_WAIT
			       : VERDICT_NO;
	if (r->lost || r->hop_torn || r->status != c->status)
		return VERDICT_NO;
	if (!r->ended && patience == PATIENT)
		return VERDICT_WAIT;
	*ret = r;
	return VERDICT_YES;
}
