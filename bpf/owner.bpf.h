/*
 * Whose work is it? For each context of an interpreter, and for each thread that reads requests
 * from blocking sockets, the request that it works for. Recorded for every process, relied upon
 * only where user space has found that what is recorded is right. Invariant: what is not certain is
 * no owner at all, or one that is not relied upon.
 */
#ifndef SPANLOOM_OWNER_BPF_H
#define SPANLOOM_OWNER_BPF_H

#include "owner_table.bpf.h"
#include "python_layout.h"
#include "transfer.bpf.h"

enum { WORKERS_MAX = 2048, WINDOW_SLOTS = 2048, DOUBTED_MAX = 1024 };

/* A thread and the request that it read from a blocking socket and has not begun to answer. */
struct worker {
	struct owner owner;
	u32 pid;
	u32 unanswered; /* such requests; with several, none is its owner */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, WORKERS_MAX);
	__type(key, u32); /* thread */
	__type(value, struct worker);
} workers SEC(".maps") __weak;

/*
 * The read that completes a request's head opens a window on its thread, and the first context that
 * the thread makes then, out of one that nobody owns, is the root of the request's work: where the
 * callback that reads also begins that work. So it counts only if it comes out of the context that
 * read, or, where a loop reads in none, out of one that it handles what it reads in, which user
 * space finds out. A server that begins the work later reads the next head with the window open:
 * what was found out doesn't count any more then. Threads share slots: who comes later takes it,
 * the other one's request has no root then.
 */
struct window {
	u32 tid;     /* 0: closed; WINDOW_BUSY: it is being filled */
	u32 turn;    /* it closes when the thread has slept; see window_is_old() */
	u64 context; /* current at the read: only a copy of this counts; 0: of the handlers */
	u64 ts_ns;   /* of the read */
	struct owner owner;
};

/* The interpreter's lock changes hands every 5 ms: this is twenty threads that want it. */
#define WINDOW_NS 100000000ull

enum { WINDOW_BUSY = 0xffffffff };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WINDOW_SLOTS);
	__type(key, u32);
	__type(value, struct window);
} windows SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PYTHONS_MAX);
	__type(key, u32); /* thread group id */
	__type(value, struct context_handlers);
} handlers SEC(".maps") __weak;

/* Connections (by number) of whose requests it is no longer clear which is which. */
struct doubt {
	u32 until;   /* of those that began up to then; owner_clock() */
	u32 for_all; /* of all that come as well */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DOUBTED_MAX);
	__type(key, u64);
	__type(value, struct doubt);
} doubted SEC(".maps") __weak;

extern u32 doubts; /* how many there have been */

/* A unit is about a millisecond; goes round in 52 days. */
static __always_inline u32 owner_clock(void)
{
	return bpf_ktime_get_ns() >> 20;
}

static __always_inline void owner_doubt(u64 conn_id, u32 until, bool for_all)
{
	struct doubt fresh = { .until = until, .for_all = for_all };
	const struct doubt *d = bpf_map_lookup_elem(&doubted, &conn_id);

	if (d && d->for_all)
		return;
	__sync_fetch_and_add(&doubts, 1);
	bpf_map_update_elem(&doubted, &conn_id, &fresh, BPF_ANY);
}

/* Of the request that began then on the connection. 1: it isn't clear any more what is done for it;
 * 2: nor for any other. Alone for the sake of the stack. */
static __noinline int owner_doubted(u64 conn_id, u32 began)
{
	const struct doubt *d = doubts ? bpf_map_lookup_elem(&doubted, &conn_id) : 0;

	if (!d)
		return 0;
	if (d->for_all)
		return 2;
	return (s32)(began - d->until) <= 0;
}

/* Is what was found about this one relied upon in the process? */
static __always_inline bool owner_trusted(u32 process, const struct owner *o)
{
	return process & (o->ids.flags & IDS_THREAD ? TRACED_THREADS : TRACED_CONTEXTS);
}

/* As owner_of() says of an owner that was found. */
static __always_inline int owner_relied(u32 process, const struct owner *o)
{
	return (o->ids.flags & IDS_FIXED) && owner_trusted(process, o) ? 2 : 1;
}

/* As owner_of(), for those who know the process's memory_of(); -1: it may as well be the work of a
 * later request of *ret's connection. */
static __always_inline int owner_find(u64 memory, u32 tid, u32 process, u64 context,
				      struct owner *ret)
{
	const struct worker *w;
	int doubt;

	if (context) {
		if (!owner_read(memory, context, ret) || !(ret->ids.flags & IDS_KNOWN))
			return 0;
	} else {
		w = bpf_map_lookup_elem(&workers, &tid);
		if (!w || w->pid != memory >> 32 || w->unanswered != 1)
			return 0;
		*ret = w->owner;
	}
	doubt = owner_doubted(ret->conn_id, ret->ids.began);
	if (doubt)
		return doubt == 1 ? -1 : 0;
	return owner_relied(process, ret);
}

/*
 * The request that the running thread works for, in `context` (0: none). 0: not known, *ret means
 * nothing; 1: known, but not relied upon; 2: relied upon, and the trace is fixed.
 */
static __always_inline int owner_of(u32 pid, u32 tid, u32 process, u64 context, u32 turn,
				    struct owner *ret)
{
	u64 memory = (u64)pid << 32; /* all that is asked of a thread's */
	int known;

	if (!constants.requests)
		return 0;
	if (context)
		memory = memory_of(pid);
	known = owner_find(memory, tid, process, context, ret);
	return known < 0 ? 0 : known;
}

static __always_inline struct window *window_of(u32 tid)
{
	u32 slot = tid % WINDOW_SLOTS;

	return bpf_map_lookup_elem(&windows, &slot);
}

/* The running thread has read a request's head to its end. */
static __always_inline void window_open(u32 tid, u32 turn, u64 context, const struct owner *o)
{
	struct window *w = window_of(tid);
	u32 before;

	if (!w)
		return;
	before = *(volatile u32 *)&w->tid;
	if (before == WINDOW_BUSY ||
	    __sync_val_compare_and_swap(&w->tid, before, WINDOW_BUSY) != before)
		return;
	w->turn = turn;
	w->context = context;
	w->ts_ns = bpf_ktime_get_ns();
	w->owner = *o;
	barrier();
	*(volatile u32 *)&w->tid = tid;
}

/* The thread's window; NULL: none is open. */
static __always_inline struct window *window_here(u32 tid)
{
	struct window *w = window_of(tid);

	return w && *(volatile u32 *)&w->tid == tid ? w : 0;
}

/* False: another thread has it by now. */
static __always_inline bool window_shut(struct window *w, u32 tid)
{
	return __sync_val_compare_and_swap(&w->tid, tid, 0) == tid;
}

/* Its root was not made, or nobody knows which it is: it may be made out of the work for the
 * request before it on its connection. False: another thread has the window by now. */
static __always_inline bool window_spoil(struct window *w, u32 tid)
{
	u64 conn_id = w->owner.conn_id;
	u32 began = w->owner.ids.began;

	if (!window_shut(w, tid))
		return false;
	owner_doubt(conn_id, began, false);
	return true;
}

/* The running thread made a context of which nothing is known: it may have been the root. */
static __always_inline void window_missed(u32 tid)
{
	struct window *w = window_here(tid);

	if (w)
		window_spoil(w, tid);
}

/* A context is made at this address: what was there before has made no root. */
static __always_inline void window_reused(u32 tid, u64 context)
{
	struct window *w = window_here(tid);

	if (w && w->context == context)
		window_spoil(w, tid);
}

/* The thread's window, where it is for a request of connection `conn_id`. */
static __always_inline struct window *window_for(u32 tid, u64 conn_id)
{
	struct window *w = window_here(tid);

	return w && w->owner.conn_id == conn_id ? w : 0;
}

/* The running thread begins to answer on connection `conn_id`: no root was made for that request.
 */
static __always_inline void window_close(u32 tid, u64 conn_id)
{
	struct window *w = window_for(tid, conn_id);

	if (w)
		window_shut(w, tid);
}

/* The same where it may as well be the end of the answer before. */
static __always_inline void window_spoilt(u32 tid, u64 conn_id)
{
	struct window *w = window_for(tid, conn_id);

	if (w)
		window_spoil(w, tid);
}

/*
 * A thread that has slept may have been called to other work. But it sleeps as well when it waits
 * for the interpreter's lock. In a process whose roots have proven right each request makes its own
 * at once, so there time decides.
 */
static __always_inline bool window_is_old(const struct window *w, u32 turn, u32 process)
{
	if (w->turn == turn)
		return false;
	return !(process & TRACED_CONTEXTS) || bpf_ktime_get_ns() - w->ts_ns > WINDOW_NS;
}

/*
 * The running thread has read something of connection `conn_id`, and has not made the root of the
 * request that it had read before. If both were read in one context, what is made next in there may
 * be for either.
 */
static __always_inline void window_other(const struct transfer *t, u64 conn_id)
{
	struct window *w = window_here(t->tid);
	u32 pid = t->pid;
	u64 context;

	if (!w || w->owner.conn_id == conn_id)
		return;
	context = w->context;
	if (!window_spoil(w, t->tid) || !(t->flags & IO_RECORD_RUNTIME) || context != t->context)
		return;
	if (context)
		owner_doubt(conn_id, 0, true);
	else
		bpf_map_delete_elem(&handlers, &pid); /* until user space has seen more */
}

static __always_inline bool is_handler(u32 pid, u64 context)
{
	const struct context_handlers *h = bpf_map_lookup_elem(&handlers, &pid);
	u64 others = 1, differs;
	u32 i;

	if (!h || !context)
		return false;
#pragma unroll
	for (i = 0; i < HANDLERS_MAX; i++) {
		differs = h->context[i] ^ context;
		others &= (differs | -differs) >> 63;
	}
	return !others;
}

/*
 * A copy of `context`, which nobody owns. 1: it is the root of *ret; -1: it may be, only user space
 * can tell; 0: no window is open for it, *ret is nobody's.
 */
static __always_inline int window_take(u32 pid, u32 tid, u32 process, u64 context,
				       struct owner *ret)
{
	struct window *w = window_here(tid);
	int taken = 1;

	if (!w)
		return 0;
	if (window_is_old(w, current_turn(), process)) {
		window_spoil(w, tid);
		return 0;
	}
	if (w->context && w->context != context)
		return 0;
	if (!w->context && !is_handler(pid, context))
		taken = -1;
	*ret = w->owner;
	/* Had another thread begun to fill it, this would not succeed. */
	if (!(taken > 0 ? window_shut(w, tid) : window_spoil(w, tid)))
		return 0;
	return taken;
}

/*
 * `parent` works for *o: what is `known` of that for a copy of it, if its thread has read another
 * request of the same connection? If it was `parent` that read, it only goes on from the one to the
 * other (asyncio's reader, which a request had paused): 0, nothing. Else the copy may be for
 * either, since a server that was not done with the first (uvicorn behind the last byte of a
 * stream) begins the second in there: -1.
 */
static __always_inline int window_follows(u64 memory, u32 tid, u64 parent, const struct owner *o,
					  int known)
{
	struct window *w = parent ? window_for(tid, o->conn_id) : 0;

	if (!w)
		return known;
	if (w->context == parent) {
		owner_forget(memory, parent);
		return 0;
	}
	window_spoil(w, tid);
	return -1;
}

/*
 * The running thread has made context `child` of `parent` (0: it has none): the child is its
 * parent's owner's, or the root of the request whose window is open. *ret_root: the connection of
 * that, also where only user space can tell, 0 in every other case; *ret_again: the child's address
 * was that of a context of the very same request before. As owner_of(), of the child.
 */
static __always_inline int owner_copied(u32 pid, u32 tid, u32 process, u64 parent, u64 child,
					struct owner *ret, u64 *ret_root, bool *ret_again)
{
	int known, taken = 0;
	u64 memory;

	*ret_root = 0;
	*ret_again = false;
	if (!constants.requests)
		return 0;
	memory = memory_of(pid);
	window_reused(tid, child);
	known = owner_find(memory, tid, process, parent, ret);
	if (known)
		known = window_follows(memory, tid, parent, ret, known);
	if (!known)
		taken = window_take(pid, tid, process, parent, ret);
	if (taken || known < 0)
		*ret_root = ret->conn_id;
	if (taken > 0)
		known = owner_relied(process, ret);
	if (known <= 0) {
		owner_forget(memory, child);
		return 0;
	}
	*ret_again = owner_write(memory, child, ret) > 0;
	return known;
}

/* The running thread has read a request from a socket that blocks. */
static __always_inline void worker_begins(u32 pid, u32 tid, const struct owner *o)
{
	struct worker fresh = { .owner = *o, .pid = pid, .unanswered = 1 };
	const struct worker *w = bpf_map_lookup_elem(&workers, &tid);

	if (w && w->pid == pid)
		fresh.unanswered += w->unanswered;
	fresh.owner.ids.flags |= IDS_THREAD;
	if (bpf_map_update_elem(&workers, &tid, &fresh, BPF_ANY))
		count_drop(DROP_REQUEST_TABLE_FULL);
}

/* One of its requests is being answered, by whatever thread, or is over. */
static __always_inline void worker_ends(u32 tid)
{
	struct worker *w = tid ? bpf_map_lookup_elem(&workers, &tid) : 0;

	if (!w)
		return;
	if (w->unanswered > 1)
		__sync_fetch_and_sub(&w->unanswered, 1);
	else
		bpf_map_delete_elem(&workers, &tid);
}

#endif
