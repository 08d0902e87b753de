/*
 * The bookkeeping behind link.h: processes, the requests they handle and what is known of their
 * runtimes. Invariant: process->open is the number of requests of the process that have not ended,
 * and a finished call is in the linker's list, or its process's, until it is decided.
 */
#include "trace/link.h"

#include <stdlib.h>
#include <string.h>

#include "trace/link_context.h"
#include "trace/link_proxy.h"
#include "trace/link_settle.h"
#include "trace/link_trust.h"

struct linker *linker_new(const struct linker_ops *ops, struct stats *stats)
{
	struct linker *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->ops = *ops;
	l->stats = stats;
	list_init(&l->waiting);
	list_init(&l->settling);
	list_init(&l->decided);
	list_init(&l->settled);
	return l;
}

static void process_put(struct process *p)
{
	if (!p || --p->refs)
		return;
	link_contexts_free(p->contexts);
	free(p->ends);
	free(p);
}

struct request *link_request_get(struct request *r)
{
	if (r)
		r->refs++;
	return r;
}

void link_request_put(struct request *r)
{
	if (!r || --r->refs)
		return;
	link_conn_put(r->conn);
	process_put(r->process);
	span_free(r->span);
	free(r);
}

struct call *link_call_get(struct call *c)
{
	if (c)
		c->refs++;
	return c;
}

void link_call_put(struct call *c)
{
	while (c && --c->refs == 0) {
		struct call *within = c->within;

		link_request_put(c->forwarded);
		link_hop_free(c);
		link_request_put(c->of);
		process_put(c->process);
		free(c);
		c = within;
	}
}

void link_call_free(struct call *c)
{
	link_call_leaves(c);
	list_remove(&c->node);
	list_remove(&c->by_request);
	list_remove(&c->trace.heir);
	link_request_put(c->request);
	c->request = NULL;
	span_free(c->span);
	c->span = NULL;
	link_call_put(c);
}

/* What is known of its contexts names requests and calls, which name the process. */
static void forget_contexts(struct linker *l, struct process *p, uint64_t now_ns)
{
	if (!p->contexts)
		return;
	link_look(l, p, now_ns, true);
	link_contexts_clear(p->contexts);
}

/* Spans that wait go with what they wait for. */
static void forget_calls(struct process *p)
{
	struct list *it, *tmp;

	if (!p->contexts)
		return;
	list_each_safe(it, tmp, &p->contexts->calls)
		link_call_free(list_entry(it, struct call, node));
	link_contexts_clear(p->contexts);
}

void linker_free(struct linker *l)
{
	struct list *it, *tmp;
	void *value;
	size_t pos = 0;

	if (!l)
		return;
	link_settle_free(l);
	list_each_safe(it, tmp, &l->waiting)
		link_call_free(list_entry(it, struct call, node));
	link_threads_free(l);
	while (hash_next(&l->processes, &pos, NULL, &value)) {
		forget_calls(value);
		link_hops_forget(value);
		process_put(value);
	}
	hash_free(&l->processes);
	pos = 0;
	while (hash_next(&l->conns, &pos, NULL, &value)) {
		link_peer_close(l, value);
		link_conn_put(value);
	}
	hash_free(&l->conns);
	hash_free(&l->peers);
	free(l);
}

struct process *link_process(struct linker *l, uint32_t pid)
{
	return hash_get(&l->processes, pid);
}

struct process *link_process_get(struct linker *l, uint32_t pid)
{
	struct process *p = hash_get(&l->processes, pid);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p || !hash_put(&l->processes, pid, p)) {
		free(p);
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	p->pid = pid;
	p->refs = 1;
	list_init(&p->requests);
	list_init(&p->hops);
	return p;
}

/* --- requests --- */

/* Two requests at once: neither is the process's only one, nor, on one thread, the thread's. */
static void note_overlap(struct linker *l, struct process *p, struct thread *t, struct request *r)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &p->requests) {
		struct request *other = list_entry(it, struct request, node);

		if (other == r)
			continue;
		other->overlapped = r->overlapped = true;
		if (!other->blocking || !r->blocking)
			p->multiplexed = true;
		if (other->tid == t->tid) {
			other->shared = r->shared = true;
			link_distrust(l, p, TRACER_TRUST_THREADS);
		}
	}
}

struct request *link_request_begin(struct linker *l, struct exchange *ex)
{
	uint64_t now_ns = ex->span->start_ns;
	struct process *p = link_process_get(l, ex->pid);
	struct thread *t = link_thread_get(l, ex->pid, ex->tid);
	struct request *r = p && t ? calloc(1, sizeof(*r)) : NULL;

	if (!r)
		return NULL;
	r->refs = 1;
	r->process = p;
	p->refs++;
	list_init(&r->calls);
	list_init(&r->by_conn);
	list_init(&r->pending);
	list_init(&r->settling);
	r->number = ++l->seq;
	r->tid = ex->tid;
	r->blocking = !ex->nonblocking;
	r->began_ns = now_ns;
	r->active = (struct link_point){ now_ns, ex->tid, ex->turn };
	list_push(&p->requests, &r->node);
	p->open++;
	if (r->blocking) {
		t->open++;
		t->handling = r;
	} else {
		p->served = true;
		/* A call that outlives its request, or was never in one: something runs beside the
		 * requests. */
		if (p->calls_open && p->open == 1)
			p->background = true;
	}
	t->independent = false;
	note_overlap(l, p, t, r);
	link_claim_begin(l, r, ex);
	r->joins = ex->conn->protocol->joins;
	link_settle_begin(l, r, ex);
	return r;
}

bool link_request_sampled(const struct request *r)
{
	return !r->trace.settled || r->trace.flags & 1;
}

void link_request_active(struct request *r, const struct link_point *at)
{
	bool follows = link_follows(r, at);
	struct list *it, *tmp;

	/* The chain of calls since the last such event is whole, or something else led here. */
	list_each_safe(it, tmp, &r->calls) {
		struct call *c = list_entry(it, struct call, by_request);

		c->proven = c->proven || follows;
		c->loose = c->loose || !c->proven;
	}
	r->active = *at;
}

void link_request_answered(struct linker *l, struct request *r, uint32_t tid)
{
	r->answered = true;
	/* A pipelined request is read with the one before, by whoever handles that. */
	if (!r->blocking || r->shared)
		return;
	if (tid == r->tid) {
		r->process->direct = true;
		link_trust(l, r->process, TRACER_TRUST_THREADS);
	} else {
		r->process->handoff = true;
		link_distrust(l, r->process, TRACER_TRUST_THREADS);
	}
}

void link_request_end(struct linker *l, struct request *r, struct span *s, uint64_t now_ns)
{
	struct thread *t = hash_get(&l->threads, r->tid);
	struct list *it, *tmp;

	r->ended = true;
	r->ended_ns = now_ns;
	list_remove(&r->node);
	r->process->open--;
	if (r->blocking && t && t->pid == r->process->pid && t->open) {
		t->open--;
		if (t->handling == r)
			t->handling = NULL;
	}
	list_each_safe(it, tmp, &r->calls)
		link_decide(l, list_entry(it, struct call, by_request), now_ns, false);
	if (r->process->contexts) {
		link_claim_end(l, r);
		link_look(l, r->process, now_ns, false);
	}
	link_hop_over(l, r, s != NULL);
	link_request_leave(l, r, s);
	link_request_put(r);
}

/* --- what makes the books doubtful, and time --- */

void link_unseen(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	struct process *p = link_process_get(l, pid);

	if (!p)
		return;
	p->clear_ns = now_ns;
	if (p->served)
		p->multiplexed = true;
}

void link_opaque(struct linker *l, uint32_t pid)
{
	struct process *p = link_process_get(l, pid);

	if (p)
		p->multiplexed = true;
}

void link_process_exit(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	struct process *p = link_process(l, pid);

	link_threads_end(l, pid, now_ns);
	if (p) {
		forget_contexts(l, p, now_ns);
		link_hops_forget(p);
	}
	process_put(hash_remove(&l->processes, pid));
}

/* --- runtimes --- */

static struct contexts *contexts_get(struct linker *l, uint32_t pid)
{
	struct process *p = link_process_get(l, pid);

	if (p && !p->contexts)
		p->contexts = link_contexts_new();
	if (p && !p->contexts)
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
	return p ? p->contexts : NULL;
}

void link_runtime(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	struct contexts *x = contexts_get(l, pid);

	if (!x)
		return;
	/* Told again: something may have been missed. */
	link_contexts_lost(l, link_process(l, pid));
	x->runtime = true;
	x->began_ns = now_ns;
}

bool link_has_runtime(struct linker *l, uint32_t pid)
{
	const struct process *p = link_process(l, pid);

	return p && p->contexts && p->contexts->runtime;
}

bool link_custom(struct linker *l, uint32_t pid)
{
	return contexts_get(l, pid);
}

void link_process_changed(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	struct process *p = link_process(l, pid);

	if (p)
		link_trust_reset(l, p);
	if (!p || !p->contexts)
		return;
	link_contexts_lost(l, p);
	link_look(l, p, now_ns, false);
	p->contexts->runtime = false;
	p->contexts->claims_ever = p->contexts->answers_bare = false;
	p->contexts->early_proven = p->contexts->early_wrong = false;
	p->contexts->workers = p->contexts->weak_ever = p->contexts->crossed = false;
	p->contexts->rests = p->contexts->tails = false;
}

void link_lost(struct linker *l, uint64_t now_ns)
{
	struct list *it, *tmp;
	size_t pos = 0;
	void *value;

	l->doubt_until_ns = now_ns + LINK_DOUBT_NS;
	while (hash_next(&l->processes, &pos, NULL, &value)) {
		struct process *p = value;

		list_each_safe(it, tmp, &p->requests)
			list_entry(it, struct request, node)->lost = true;
		link_hops_lost(p);
		if (!p->contexts)
			continue;
		link_contexts_lost(l, p);
		link_look(l, p, now_ns, false);
	}
}

static void decide_waiting(struct linker *l, uint64_t now_ns, bool last)
{
	struct list *it, *tmp;

	/* Oldest first; those behind one that may wait on are looked at again soon. */
	list_each_safe(it, tmp, &l->waiting) {
		if (!link_decide(l, list_entry(it, struct call, node), now_ns, last))
			return;
	}
}

static void look_everywhere(struct linker *l, uint64_t now_ns, bool last)
{
	size_t pos = 0;
	void *value;

	while (hash_next(&l->processes, &pos, NULL, &value)) {
		struct process *p = value;

		if (p->contexts && !list_empty(&p->contexts->calls))
			link_look(l, p, now_ns, last);
	}
}

void link_tick(struct linker *l, uint64_t now_ns)
{
	decide_waiting(l, now_ns, false);
	if (now_ns < l->next_look_ns)
		return;
	l->next_look_ns = now_ns + LINK_LOOK_NS;
	look_everywhere(l, now_ns, false);
	link_settle_tick(l, now_ns);
}

void link_flush(struct linker *l, uint64_t now_ns)
{
	decide_waiting(l, now_ns, true);
	look_everywhere(l, now_ns, true);
	link_settle_flush(l);
}
