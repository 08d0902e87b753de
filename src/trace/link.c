/*
 * The bookkeeping behind link.h and the decision itself. Processes and requests are counted: a
 * request lives until it has ended and nothing names it, a process until it is gone and has neither
 * requests nor calls. A finished call owns its span while it waits. Invariant: process->open is the
 * number of requests of the process that have not ended.
 */
#include "trace/link.h"

#include <stdlib.h>
#include <string.h>

enum rule { RULE_NONE, RULE_THREAD, RULE_CHILD_THREAD, RULE_PROCESS };

struct process {
	uint32_t pid;
	uint32_t refs;        /* the table, requests, calls */
	struct list requests; /* open ones */
	uint32_t open;
	uint32_t calls_open;
	bool served;      /* has had a request on a socket that does not block */
	bool multiplexed; /* has had two of them at once */
	bool background;  /* has made calls between requests */
	bool handoff;     /* a request was read by one thread and answered by another */
};

struct thread {
	uint32_t tid, pid;
	uint32_t open; /* requests it read from blocking sockets and that have not ended */
	struct request *handling; /* one of them */
	struct request
		*born_in; /* the request in which it was made; counted reference, NULL: none */
	bool independent; /* makes calls while no request is open, and reads none */
};

struct request {
	struct list node;        /* of its process, while open */
	struct list calls;       /* finished ones that wait for it */
	struct process *process; /* counted reference */
	uint32_t tid;
	uint32_t refs; /* the exchange, calls that name it, threads born in it */
	bool blocking, ended;
	uint64_t ended_ns;
	bool overlapped; /* another request of the process was open meanwhile */
	bool shared;     /* another request of its own thread was */
	bool lost;       /* events went missing while it was open */
	bool known;      /* ids are set */
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES], flags;
};

struct call {
	struct list node; /* of the linker, once it waits: by the time it ended */
	struct list by_request;
	struct process *process; /* counted reference */
	struct request *request; /* candidate, counted reference; NULL: none */
	enum rule rule;
	enum drop_reason why_none;
	uint32_t tid;
	struct span *span;
	uint64_t ended_ns;
	bool thread_gone; /* RULE_CHILD_THREAD: the thread ended in time */
};

struct linker {
	struct linker_ops ops;
	struct stats *stats;
	struct hash processes, threads;
	struct list waiting; /* finished calls, in the order they ended */
};

struct linker *linker_new(const struct linker_ops *ops, struct stats *stats)
{
	struct linker *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->ops = *ops;
	l->stats = stats;
	list_init(&l->waiting);
	return l;
}

static void process_put(struct process *p)
{
	if (p && --p->refs == 0)
		free(p);
}

static void request_put(struct request *r)
{
	if (!r || --r->refs)
		return;
	process_put(r->process);
	free(r);
}

static void call_free(struct call *c)
{
	list_remove(&c->node);
	list_remove(&c->by_request);
	request_put(c->request);
	process_put(c->process);
	span_free(c->span);
	free(c);
}

void linker_free(struct linker *l)
{
	struct list *it, *tmp;
	void *value;
	size_t pos = 0;

	if (!l)
		return;
	list_each_safe(it, tmp, &l->waiting)
		call_free(list_entry(it, struct call, node));
	while (hash_next(&l->threads, &pos, NULL, &value)) {
		request_put(((struct thread *)value)->born_in);
		free(value);
	}
	pos = 0;
	while (hash_next(&l->processes, &pos, NULL, &value))
		process_put(value);
	hash_free(&l->threads);
	hash_free(&l->processes);
	free(l);
}

static struct process *process_get(struct linker *l, uint32_t pid)
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
	return p;
}

static struct thread *thread_get(struct linker *l, uint32_t pid, uint32_t tid)
{
	struct thread *t = hash_get(&l->threads, tid);

	if (t && t->pid == pid)
		return t;
	if (t) { /* the number went to another process and its end was not seen */
		request_put(t->born_in);
		*t = (struct thread){ .tid = tid, .pid = pid };
		return t;
	}
	t = calloc(1, sizeof(*t));
	if (!t || !hash_put(&l->threads, tid, t)) {
		free(t);
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	t->tid = tid;
	t->pid = pid;
	return t;
}

/* --- requests --- */

/* Two requests at once: neither is the process's only one, nor, on one thread, the thread's. */
static void note_overlap(struct process *p, struct thread *t, struct request *r)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &p->requests) {
		struct request *other = list_entry(it, struct request, node);

		if (other == r)
			continue;
		other->overlapped = r->overlapped = true;
		if (!other->blocking || !r->blocking)
			p->multiplexed = true;
		if (other->tid == t->tid)
			other->shared = r->shared = true;
	}
}

struct request *link_request_begin(struct linker *l, struct exchange *ex)
{
	struct process *p = process_get(l, ex->pid);
	struct thread *t = thread_get(l, ex->pid, ex->tid);
	struct request *r = p && t ? calloc(1, sizeof(*r)) : NULL;

	if (!r)
		return NULL;
	r->refs = 1;
	r->process = p;
	p->refs++;
	list_init(&r->calls);
	r->tid = ex->tid;
	r->blocking = !ex->nonblocking;
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
	note_overlap(p, t, r);
	return r;
}

void link_request_ids(struct request *r, const struct span *s, bool sampled)
{
	memcpy(r->trace_id, s->trace_id, sizeof(r->trace_id));
	memcpy(r->span_id, s->span_id, sizeof(r->span_id));
	r->flags = (uint8_t)((s->trace_flags & ~1u) | (sampled ? 1u : 0u));
	r->known = true;
}

void link_request_answered(struct linker *l, struct request *r, uint32_t tid)
{
	(void)l;
	if (r->blocking && tid != r->tid)
		r->process->handoff = true;
}

static bool decide(struct linker *l, struct call *c, uint64_t now_ns, bool last);

void link_request_end(struct linker *l, struct request *r, uint64_t now_ns)
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
		decide(l, list_entry(it, struct call, by_request), now_ns, false);
	request_put(r);
}

bool link_is_handling(struct linker *l, uint32_t pid)
{
	struct process *p = hash_get(&l->processes, pid);

	return p && p->open;
}

/* --- calls --- */

static void candidate(struct call *c, struct request *r, enum rule rule)
{
	r->refs++;
	c->request = r;
	c->rule = rule;
}

static void choose_in_process(struct process *p, struct thread *t, struct call *c)
{
	struct request *only = list_entry(p->requests.next, struct request, node);

	if (!p->open) {
		c->why_none = DROP_PARENT_NO_REQUEST;
		/* Before the first request it is starting up; later it is work beside the requests.
		 */
		if (p->served)
			p->background = true;
		t->independent = true;
		return;
	}
	c->why_none = DROP_PARENT_MULTIPLEXED;
	if (p->multiplexed || p->open > 1)
		return;
	if (only->blocking) { /* handled by a thread of its own, which is not this one */
		c->why_none = DROP_PARENT_NO_REQUEST;
		return;
	}
	c->why_none = DROP_PARENT_BACKGROUND;
	if (p->background || (t->independent && t->tid != only->tid))
		return;
	candidate(c, only, RULE_PROCESS);
}

static void choose(struct process *p, struct thread *t, struct call *c)
{
	if (t->open == 1 && t->handling) {
		candidate(c, t->handling, RULE_THREAD);
		return;
	}
	if (t->open) {
		c->why_none = DROP_PARENT_MULTIPLEXED;
		return;
	}
	if (t->born_in) {
		c->why_none = DROP_PARENT_THREAD_OUTLIVED;
		if (!t->born_in->ended)
			candidate(c, t->born_in, RULE_CHILD_THREAD);
		return;
	}
	choose_in_process(p, t, c);
}

struct call *link_call_begin(struct linker *l, uint32_t pid, uint32_t tid, uint64_t now_ns)
{
	struct process *p = process_get(l, pid);
	struct thread *t = thread_get(l, pid, tid);
	struct call *c = p && t ? calloc(1, sizeof(*c)) : NULL;

	(void)now_ns;
	if (!c)
		return NULL;
	list_init(&c->node);
	list_init(&c->by_request);
	c->process = p;
	p->refs++;
	c->tid = tid;
	c->why_none = DROP_PARENT_NO_REQUEST;
	choose(p, t, c);
	p->calls_open++;
	return c;
}

enum verdict { VERDICT_WAIT, VERDICT_YES, VERDICT_NO };

/* Is the candidate the parent? `*why` says why not. `last`: no more waiting. */
static enum verdict judge(const struct call *c, bool last, enum drop_reason *why)
{
	const struct request *r = c->request;
	const struct process *p = c->process;

	*why = c->why_none;
	if (!r)
		return VERDICT_NO;
	*why = DROP_PARENT_EVENTS_LOST;
	if (r->lost || !r->known)
		return VERDICT_NO;
	*why = DROP_PARENT_MULTIPLEXED;
	if (r->shared || (c->rule == RULE_PROCESS && (r->overlapped || p->multiplexed)))
		return VERDICT_NO;
	*why = DROP_PARENT_HANDOFF;
	if (c->rule != RULE_PROCESS && p->handoff)
		return VERDICT_NO;
	*why = DROP_PARENT_BACKGROUND;
	if (c->rule == RULE_PROCESS && p->background)
		return VERDICT_NO;
	if (c->rule != RULE_CHILD_THREAD)
		return r->ended || last ? VERDICT_YES : VERDICT_WAIT;
	*why = DROP_PARENT_THREAD_OUTLIVED;
	if (c->thread_gone)
		return VERDICT_YES;
	return last ? VERDICT_NO : VERDICT_WAIT;
}

/* Hands the span on when it is decided; true when the call is done with. */
static bool decide(struct linker *l, struct call *c, uint64_t now_ns, bool last)
{
	const struct request *r = c->request;
	enum drop_reason why;
	enum verdict v = judge(c, last || now_ns >= c->ended_ns + LINK_WAIT_NS, &why);
	struct span *s = c->span;

	if (v == VERDICT_WAIT)
		return false;
	c->span = NULL;
	if (v == VERDICT_YES) {
		memcpy(s->trace_id, r->trace_id, sizeof(s->trace_id));
		memcpy(s->parent_span_id, r->span_id, sizeof(s->parent_span_id));
		s->has_parent = true;
		stats_add(l->stats, STATS_LINKED, 1);
	} else {
		stats_drop(l->stats, why, 1);
	}
	l->ops.linked(l->ops.ctx, s, v == VERDICT_YES ? &r->flags : NULL);
	call_free(c);
	return true;
}

void link_call_end(struct linker *l, struct call *c, struct span *s, uint64_t now_ns)
{
	c->process->calls_open--;
	c->span = s;
	if (!s) {
		call_free(c);
		return;
	}
	c->ended_ns = now_ns;
	/* The answer left before the call came back: the call is not what the request waited for.
	 */
	if (c->rule == RULE_PROCESS && c->request->ended)
		c->process->background = true;
	if (decide(l, c, now_ns, false))
		return;
	list_push(&l->waiting, &c->node);
	list_push(&c->request->calls, &c->by_request);
}

/* --- threads and processes --- */

void link_thread_start(struct linker *l, uint32_t pid, uint32_t tid, uint32_t parent_tid,
		       uint64_t now_ns)
{
	struct thread *parent = hash_get(&l->threads, parent_tid), *t;
	struct request *r = NULL;

	(void)now_ns;
	if (parent && parent->pid == pid && parent->open == 1)
		r = parent->handling;
	else if (parent && parent->pid == pid && !parent->open && parent->born_in &&
		 !parent->born_in->ended)
		r = parent->born_in;
	if (!r) {
		link_thread_exit(l, tid, now_ns); /* whoever had the number before */
		return;
	}
	t = thread_get(l, pid, tid);
	if (!t)
		return;
	request_put(t->born_in);
	r->refs++;
	*t = (struct thread){ .tid = tid, .pid = pid, .born_in = r };
}

/* A thread that is gone in time did all it did for the request it was born in. */
static void thread_gone(struct linker *l, const struct thread *t, uint64_t now_ns)
{
	const struct request *r = t->born_in;
	struct list *it, *tmp;

	if (r->ended && now_ns > r->ended_ns + LINK_GRACE_NS)
		return;
	list_each_safe(it, tmp, &r->calls) {
		struct call *c = list_entry(it, struct call, by_request);

		if (c->tid != t->tid || c->rule != RULE_CHILD_THREAD)
			continue;
		c->thread_gone = true;
		decide(l, c, now_ns, false);
	}
}

static void thread_free(struct linker *l, struct thread *t, uint64_t now_ns)
{
	if (t->born_in)
		thread_gone(l, t, now_ns);
	request_put(t->born_in);
	free(t);
}

void link_thread_exit(struct linker *l, uint32_t tid, uint64_t now_ns)
{
	struct thread *t = hash_remove(&l->threads, tid);

	if (t)
		thread_free(l, t, now_ns);
}

void link_process_exit(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	uint64_t tid;
	void *value;
	size_t pos = 0;

	while (hash_next(&l->threads, &pos, &tid, &value)) {
		if (((struct thread *)value)->pid != pid)
			continue;
		hash_remove_at(&l->threads, &pos);
		thread_free(l, value, now_ns);
	}
	process_put(hash_remove(&l->processes, pid));
}

void link_lost(struct linker *l)
{
	struct list *it, *tmp;
	size_t pos = 0;
	void *value;

	while (hash_next(&l->processes, &pos, NULL, &value)) {
		struct process *p = value;

		list_each_safe(it, tmp, &p->requests)
			list_entry(it, struct request, node)->lost = true;
	}
}

static void decide_waiting(struct linker *l, uint64_t now_ns, bool last)
{
	struct list *it, *tmp;

	/* Oldest first: behind the first that may wait on, all may. */
	list_each_safe(it, tmp, &l->waiting) {
		if (!decide(l, list_entry(it, struct call, node), now_ns, last))
			return;
	}
}

void link_tick(struct linker *l, uint64_t now_ns)
{
	decide_waiting(l, now_ns, false);
}

void link_flush(struct linker *l, uint64_t now_ns)
{
	decide_waiting(l, now_ns, true);
}
