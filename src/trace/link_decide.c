/*
 * Calls in processes with contexts: when and for whom each is decided (link_context.h). Invariant:
 * a call is in contexts.calls until it is decided, and is handed on once it is decided and over; a
 * call made in a custom span is decided behind it.
 */
#include <stdlib.h>
#include <string.h>

#include "trace/link_context.h"
#include "trace/link_proxy.h"
#include "trace/link_settle.h"
#include "trace/link_trust.h"

/* --- calls --- */

void link_call_origin(struct linker *l, struct call *c, const struct link_origin *o)
{
	struct contexts *x = c->process->contexts;
	struct request *r;
	struct node *own;

	c->seq = ++l->seq;
	c->pooled = o->site && (o->site->pooled || o->site->cut);
	if (x->runtime)
		c->origin = link_origin_of(l, c->process, o->at.tid, o->context, o->site);
	c->item_maker = link_item_maker(x, o->context, o->site, c->origin);
	c->within = o->within;
	if (!c->within && c->origin) {
		c->within = link_within_by_lineage(c->origin);
		c->by_lineage = true;
	}
	link_call_get(c->within);
	if (c->within)
		c->within->open_within++;
	link_claim_called(x, c);
	r = c->origin ? link_task_request(c->origin) : NULL;
	own = r && r->root == ROOT_KNOWN ? link_node_new(l, x, 0, c->origin) : NULL;
	if (own) {
		link_node_claim(own, CLAIM_WEAK, r);
		link_node_put(x, c->origin);
		c->origin = own;
	}
	list_push(&x->calls, &c->node);
	if (++x->call_count <= CALLS_MAX)
		return;
	c = list_entry(x->calls.next, struct call, node);
	c->why_none = DROP_PARENT_LIMIT;
	c->torn = true;
	link_decide_by_context(l, c, o->at.ns, true);
}

void link_contexts_lost(struct linker *l, struct process *p)
{
	struct contexts *x = p->contexts;
	struct list *it, *tmp;

	list_each_safe(it, tmp, &x->calls) {
		struct call *c = list_entry(it, struct call, node);

		if (!x->runtime)
			break;
		if (!c->torn)
			c->why_none = DROP_PARENT_EVENTS_LOST;
		c->torn = true;
	}
	link_claims_lost(l, p);
	link_handlers_forget(l, p);
	link_contexts_clear(x);
}

bool link_call_request(const struct call *c, bool *ret_known, bool *ret_ended)
{
	*ret_known = c->decided;
	*ret_ended = c->of && c->of->ended;
	return c->of && !c->of->ended;
}

uint64_t link_call_last_within(const struct call *c)
{
	return c->last_within_ns;
}

uint32_t link_call_open_within(const struct call *c)
{
	return c->open_within;
}

bool link_call_sampled(const struct call *c)
{
	const struct node *n = link_node_owned(c->origin);

	if (c->trace.settled)
		return c->trace.flags & 1;
	if (n && n->request)
		return link_request_sampled(n->request);
	return !c->request || link_request_sampled(c->request);
}

uint64_t link_call_maker(struct call *c)
{
	c->maker = c->origin ? link_maker(c->item_maker, c->origin) : 0;
	return c->maker;
}

/* --- the decision --- */

/* Was a request pending then which still is? */
static bool pending_since(const struct contexts *x, uint64_t seq)
{
	return !list_empty(&x->pending) &&
	       list_entry(x->pending.next, struct request, pending)->head_seq < seq;
}

static enum verdict wait_or(enum patience patience, enum drop_reason *why)
{
	*why = DROP_PARENT_UNPROVEN;
	return patience == LAST ? VERDICT_NO : VERDICT_WAIT;
}

/* The threads that it came through: gone soon, or perhaps a pool's. */
static enum verdict judge_births(const struct call *c, const struct node *claimed, uint64_t now_ns,
				 enum patience patience, enum drop_reason *why)
{
	const struct node *n;

	for (n = c->origin; n != claimed; n = n->parent) {
		if (!n->born_tid)
			continue;
		*why = DROP_PARENT_THREAD_OUTLIVED;
		if (!n->gone_ns)
			return patience == PATIENT ? VERDICT_WAIT : VERDICT_NO;
		if (patience != LAST && now_ns < n->gone_ns + LINK_GRACE_NS)
			return VERDICT_WAIT;
	}
	return VERDICT_YES;
}

/* Had the connection's own task nothing else to do when `n` began? (Rule 2.) */
static bool task_was_free(const struct contexts *x, const struct node *n)
{
	const struct request *r = n->request;

	return r->first || (r->answer_seq && n->seq > r->answer_seq) || (x->rests && !x->tails);
}

/* Is the claim on `n` one on the call? */
static enum verdict judge_claim(const struct call *c, const struct node *n, enum patience patience,
				enum drop_reason *why)
{
	const struct contexts *x = c->process->contexts;
	const struct request *r = n->request;

	if (n->claim == CLAIM_THREAD)
		return link_judge_thread(c->process, r, patience, why);
	if (n->claim == CLAIM_WEAK) {
		*why = DROP_PARENT_CONTEXT_AMBIGUOUS;
		if (x->workers || !task_was_free(x, n))
			return VERDICT_NO;
		if (pending_since(x, n->seq))
			return wait_or(patience, why);
	} else if (r->root != ROOT_KNOWN) {
		if (!r->ended && patience != LAST)
			return VERDICT_WAIT;
		*why = DROP_PARENT_UNPROVEN;
		if (!x->early_proven || x->early_wrong)
			return VERDICT_NO;
	} else if (pending_since(x, c->origin->seq)) {
		/* One of those may have made it, and will answer from there too. */
		if (x->crossed)
			return wait_or(patience, why);
		if (patience == PATIENT)
			return VERDICT_WAIT;
	}
	if (!r->end_seq || c->seq < r->end_seq)
		return VERDICT_YES;
	/* Behind the end of its request: what made it may be about to answer another one. */
	if (pending_since(x, c->seq))
		return wait_or(patience, why);
	*why = DROP_PARENT_CONTEXT_AMBIGUOUS;
	if (r->behind_seq && c->origin != n && c->origin->seq > r->behind_seq)
		return VERDICT_NO;
	return VERDICT_YES;
}

static enum verdict judge_lineage(const struct call *c, uint64_t now_ns, enum patience patience,
				  struct request **ret, enum drop_reason *why)
{
	const struct node *n = link_node_owned(c->origin);
	enum verdict v;

	if (!n || n->claim == CLAIM_NONE) {
		if (pending_since(c->process->contexts, c->seq))
			return wait_or(patience, why);
		*why = n && link_next_is(n) ? DROP_PARENT_CONTEXT_AMBIGUOUS : DROP_PARENT_OUTSIDE;
		return VERDICT_NO;
	}
	/* A copy of it may yet turn out to be a request's root. */
	if (n->shared && n->claim == CLAIM_TORN && n != c->origin && !c->crowded &&
	    pending_since(c->process->contexts, c->seq))
		return wait_or(patience, why);
	*why = DROP_PARENT_CONTEXT_AMBIGUOUS;
	if (c->crowded || n->claim == CLAIM_TORN || n->request->root == ROOT_TORN)
		return VERDICT_NO;
	*why = DROP_PARENT_EVENTS_LOST;
	if (n->request->lost)
		return VERDICT_NO;
	*why = DROP_PARENT_OUTSIDE;
	if (c->began_ns < n->request->began_ns) /* a connection attempt is told of late */
		return VERDICT_NO;
	v = judge_claim(c, n, patience, why);
	if (v == VERDICT_YES)
		v = judge_births(c, n, now_ns, patience, why);
	*ret = n->request;
	return v;
}

/* The lineage says that nobody's request led here: what do the rules without a runtime say? They
 * count where contexts say nothing, as in a server that answers from threads of its own. */
static enum verdict fall_back(const struct call *c, uint64_t now_ns, enum patience patience,
			      struct request **ret, enum drop_reason *why)
{
	const struct contexts *x = c->process->contexts;
	enum verdict hop = x->runtime ? VERDICT_NO : link_judge_hop(c, patience, ret);

	if (hop != VERDICT_NO)
		return hop;
	if (c->torn || (c->is_custom && x->runtime))
		return VERDICT_NO;
	if (x->runtime && c->rule == RULE_CHILD_THREAD && c->pooled)
		return VERDICT_NO;
	if (x->runtime && c->rule != RULE_CHILD_THREAD) {
		if (x->claims_ever || *why != DROP_PARENT_OUTSIDE)
			return VERDICT_NO;
		if (c->rule == RULE_PROCESS && !x->answers_bare && !c->request->ended &&
		    patience != LAST)
			return VERDICT_WAIT;
		if (!x->answers_bare && c->rule == RULE_PROCESS)
			return VERDICT_NO;
	}
	*ret = c->request;
	return link_judge(c, now_ns, patience, why);
}

static enum verdict judge(const struct call *c, uint64_t now_ns, enum patience patience,
			  struct request **ret, enum drop_reason *why)
{
	enum verdict v = VERDICT_NO;

	*why = c->why_none;
	if (c->torn)
		return VERDICT_NO;
	if (c->forwarded) {
		*ret = c->forwarded;
		return VERDICT_YES;
	}
	if (c->origin) {
		v = judge_lineage(c, now_ns, patience, ret, why);
		if (v != VERDICT_NO || *why != DROP_PARENT_OUTSIDE)
			return v;
	} else {
		*why = DROP_PARENT_OUTSIDE;
	}
	return fall_back(c, now_ns, patience, ret, why);
}

/* The parent: custom span *ret_within, else request *ret, else none. False: not known yet. */
static bool decide_parent(struct linker *l, struct call *c, uint64_t now_ns, enum patience patience,
			  struct call **ret_within, struct request **ret)
{
	struct call *w = c->within;
	struct request *r = NULL;
	enum drop_reason why;
	enum verdict v;

	while (w && w->dropped) {
		c->by_lineage = c->by_lineage || w->by_lineage;
		w = w->within;
	}
	if (w && (!w->decided || (w->exact && !w->over))) {
		if (patience != LAST)
			return false;
		w = w->decided ? w : NULL;
	}
	if (w && !c->by_lineage) {
		*ret_within = w;
		return true;
	}
	v = judge(c, now_ns, patience, &r, &why);
	if (v == VERDICT_WAIT)
		return false;
	if (v == VERDICT_YES && r && (!w || w->of != r))
		*ret = r;
	else if (w && (v == VERDICT_YES || (!w->of && why == DROP_PARENT_OUTSIDE)))
		*ret_within = w;
	else if (!c->is_custom)
		stats_drop(l->stats, why, 1);
	return true;
}

void link_call_leaves(struct call *c)
{
	struct contexts *x = c->process->contexts;

	if (!c->seq || c->left)
		return;
	c->left = true;
	x->call_count--;
	link_node_put(x, c->origin);
	c->origin = NULL;
}

bool link_decide_by_context(struct linker *l, struct call *c, uint64_t now_ns, bool last)
{
	struct call *w = NULL;
	struct request *r = NULL;

	if (c->decided)
		return true;
	if (!decide_parent(l, c, now_ns, link_patience(c, now_ns, last), &w, &r))
		return false;
	/* By now it may show that the server made it. */
	c->maker_wrong = c->maker && link_maker(c->item_maker, c->origin) != c->maker;
	if (w) {
		c->of = link_request_get(w->of);
		link_call_decided(l, c, &w->trace);
	} else {
		link_call_made_for(l, c, r);
	}
	return true;
}

void link_look(struct linker *l, struct process *p, uint64_t now_ns, bool last)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &p->contexts->calls) {
		struct call *c = list_entry(it, struct call, node);

		if (!last || c->span)
			link_decide_by_context(l, c, now_ns, last);
	}
}
