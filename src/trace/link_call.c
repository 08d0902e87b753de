/*
 * The calls behind link.h, from their begin to their end, and what two of them say of each other.
 * Invariant: process->calls_open is the number of calls on connections that have not ended.
 */
#include <stdlib.h>

#include "trace/link_context.h"
#include "trace/link_proxy.h"
#include "trace/link_settle.h"

/* Two calls in flight at once know of each other. */
static void meet_others(struct process *p, struct call *c)
{
	const struct request *r = c->request;

	if (p->calls_open++ && p->lone && c->conn_id == p->lone->conn_id && r &&
	    c->conn_id == r->opened_conn) {
		p->lone = c; /* a client that sets up its connection */
	} else if (p->calls_open > 1) {
		c->overlapped = true;
		if (p->lone)
			p->lone->overlapped = true;
		p->lone = NULL;
	} else {
		p->lone = c;
	}
}

/* A thread sleeps until its connection is there, so the first call on it follows from what came
 * before it was asked for. */
void link_connected(struct linker *l, const struct conn_info *info)
{
	struct process *p = hash_get(&l->processes, info->pid);
	struct request *only;

	if (!p || p->open != 1 || p->calls_open || !info->connect_turn)
		return;
	only = list_entry(p->requests.next, struct request, node);
	if (only->active.tid != info->tid || info->connect_turn != only->active.turn)
		return;
	only->opened_conn = info->conn_id;
	only->active = (struct link_point){ info->ts_ns, info->tid, info->turn };
}

struct call *link_call_begin(struct linker *l, const struct link_origin *o)
{
	struct process *p = link_process_get(l, o->pid);
	struct thread *t = link_thread_get(l, o->pid, o->at.tid);
	struct call *c = p && t ? calloc(1, sizeof(*c)) : NULL;

	if (!c)
		return NULL;
	list_init(&c->node);
	list_init(&c->by_request);
	list_init(&c->hop);
	link_trace_init(&c->trace, o->span, false);
	c->refs = 1;
	c->process = p;
	p->refs++;
	c->tid = o->at.tid;
	c->conn_id = o->conn_id;
	c->began_ns = o->at.ns;
	c->why_none = DROP_PARENT_NO_REQUEST;
	c->is_custom = o->custom;
	c->exact = o->custom && o->exact;
	c->in_context = o->context;
	if (!link_choose_thread(t, c) && !c->is_custom)
		link_choose_process(l, t, c, &o->at);
	if (!c->is_custom)
		meet_others(p, c);
	if (c->rule == RULE_PROCESS && !c->loose)
		c->request->active = o->at;
	if (p->contexts)
		link_call_origin(l, c, o);
	return c;
}

void link_call_crowded(struct call *c)
{
	c->crowded = true;
}

/* Books of the calls on connections. */
static void part(struct process *p, struct call *c, const struct link_point *at)
{
	p->calls_open--;
	if (p->lone == c)
		p->lone = NULL;
	if (c->rule != RULE_PROCESS)
		return;
	/* The answer left before the call came back: the call is not what the request waited
	 * for. */
	if (c->request->ended)
		p->background = true;
	if (!c->loose && !c->overlapped)
		c->request->active = *at;
}

/* What was made in a custom span may be decided now. */
static void leave(struct linker *l, struct call *c, uint64_t now_ns)
{
	c->over = true;
	if (c->process->contexts)
		link_look(l, c->process, now_ns, false);
}

void link_call_end(struct linker *l, struct call *c, struct span *s, const struct link_point *at)
{
	struct call *own = c->is_custom ? link_call_get(c) : NULL;

	if (!own)
		part(c->process, c, at);
	if (c->within) {
		c->within->open_within--;
		if (s && at->ns > c->within->last_within_ns)
			c->within->last_within_ns = at->ns;
	}
	c->span = s;
	c->ended_ns = at->ns;
	if (!s) {
		link_call_void(l, c);
		link_call_free(c);
	} else if (c->decided) {
		link_call_hand_on(l, c);
	} else if (!link_decide(l, c, at->ns, false)) {
		if (!c->seq)
			list_push(&l->waiting, &c->node);
		if (c->request)
			list_push(&c->request->calls, &c->by_request);
	}
	if (own)
		leave(l, own, at->ns);
	link_call_put(own);
}
