/*
 * The threads that the linker knows: which request each handles and in which it was made. Child
 * threads inherit at birth; whether that was certain shows when they end. Invariant: a thread's
 * `handling` is one of the `open` requests it has read, or NULL.
 */
#include <stdlib.h>

#include "trace/link_context.h"

static void release(struct thread *t)
{
	link_request_put(t->born_in);
	link_call_put(t->heard);
	link_call_put(t->before);
}

struct thread *link_thread_get(struct linker *l, uint32_t pid, uint32_t tid)
{
	struct thread *t = hash_get(&l->threads, tid);

	if (t && t->pid == pid)
		return t;
	if (t) { /* the number went to another process and its end was not seen */
		release(t);
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

static void thread_end(struct linker *l, uint32_t tid, uint64_t now_ns);

void link_thread_start(struct linker *l, uint32_t pid, uint32_t tid, uint32_t parent_tid,
		       uint64_t now_ns)
{
	struct thread *parent = hash_get(&l->threads, parent_tid), *t;
	struct request *r = NULL;

	if (parent && parent->pid == pid && parent->open == 1)
		r = parent->handling;
	else if (parent && parent->pid == pid && !parent->open && parent->born_in &&
		 !parent->born_in->ended)
		r = parent->born_in;
	if (!r) {
		thread_end(l, tid, now_ns); /* whoever had the number before */
		return;
	}
	t = link_thread_get(l, pid, tid);
	if (!t)
		return;
	release(t);
	r->refs++;
	*t = (struct thread){ .tid = tid, .pid = pid, .born_in = r };
}

/* The calls of a thread that wait for its end: `gone_ns`, 0 when it says nothing. */
static void thread_gone(const struct thread *t, uint64_t gone_ns)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &t->born_in->calls) {
		struct call *c = list_entry(it, struct call, by_request);

		if (c->tid == t->tid && c->rule == RULE_CHILD_THREAD)
			c->gone_ns = gone_ns;
	}
}

static void thread_free(struct thread *t)
{
	release(t);
	free(t);
}

static void thread_end(struct linker *l, uint32_t tid, uint64_t now_ns)
{
	struct thread *t = hash_remove(&l->threads, tid);

	if (!t)
		return;
	/* A thread that is gone in time did all it did for the request it was born in. */
	if (t->born_in && (!t->born_in->ended || now_ns <= t->born_in->ended_ns + LINK_GRACE_NS))
		thread_gone(t, now_ns);
	thread_free(t);
}

void link_thread_exit(struct linker *l, uint32_t pid, uint32_t tid, uint64_t now_ns)
{
	struct process *p = link_process(l, pid);

	thread_end(l, tid, now_ns);
	if (p && p->contexts)
		link_birth_gone(p->contexts, tid, now_ns);
}

/* The calls that wait for the end of a thread which has just come. */
static void forget_join(struct list *calls, uint32_t pid, uint64_t now_ns)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, calls) {
		struct call *c = list_entry(it, struct call, node);

		if (c->process->pid == pid && c->gone_ns && now_ns < c->gone_ns + LINK_GRACE_NS)
			c->gone_ns = 0;
	}
}

/* The threads of a process that ends go before it does, one after the other. */
static void forget_joins(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	struct process *p = link_process(l, pid);

	forget_join(&l->waiting, pid, now_ns);
	if (p && p->contexts) {
		forget_join(&p->contexts->calls, pid, now_ns);
		link_births_end(p->contexts, now_ns);
	}
}

void link_threads_end(struct linker *l, uint32_t pid, uint64_t now_ns)
{
	void *value;
	size_t pos = 0;

	forget_joins(l, pid, now_ns);
	while (hash_next(&l->threads, &pos, NULL, &value)) {
		if (((struct thread *)value)->pid != pid)
			continue;
		hash_remove_at(&l->threads, &pos);
		thread_free(value);
	}
}

void link_threads_free(struct linker *l)
{
	void *value;
	size_t pos = 0;

	while (hash_next(&l->threads, &pos, NULL, &value))
		thread_free(value);
	hash_free(&l->threads);
}
