/*
 * What every program asks of a CPython process: the state of the running thread and its current
 * context (PEP 567). It reads, by the offsets of struct python_layout, and follows no lineage: user
 * space does. Invariant: a context is given only while it is entered, and only of the thread whose
 * state was found.
 */
#ifndef SPANLOOM_PYTHON_BPF_H
#define SPANLOOM_PYTHON_BPF_H

#include "core_compat.bpf.h"
#include "maps.bpf.h"
#include "python_layout.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PYTHONS_MAX);
	__type(key, u32); /* thread group id */
	__type(value, struct python_layout);
} pythons SEC(".maps") __weak;

/* What the running thread's interpreter says; 0: it has none. */
struct python_now {
	u64 state; /* PyThreadState */
	u64 context;
};

/* What a walk is for. */
enum {
	WALK_CALLER = 1, /* the application's innermost frame */
	WALK_WORK = 2,   /* executor items and pools, which are further out */
	WALK_ALL = 4,    /* every custom span */
	WALK_SCOPE = 8,  /* the client that is served, in the frames of who serves it */
};

/*
 * These two write a RECORD_SITE and a RECORD_ROUTE, or nothing when they find nothing, for the
 * thread with PyThreadState `state`; `conn_id` is the record's. They take plain numbers because the
 * verifier then looks at them once for each program, apart from who calls. python_site() gives not
 * 0 when it told a client, python_route() always 0.
 */
extern int python_site(u32 pid, u64 state, u64 conn_id, u32 walk);
extern int python_route(u32 pid, u64 state, u64 conn_id);

static __always_inline const struct python_layout *python_layout_of(u32 pid)
{
	return bpf_map_lookup_elem(&pythons, &pid);
}

/* A pointer of the process; 0 when it can't be read. */
static __always_inline u64 user_word(u64 address)
{
	u64 word = 0;

	return bpf_probe_read_user(&word, sizeof(word), (const void *)address) ? 0 : word;
}

/*
 * words[i] of words[count], which kernels before 5.12 allow on the stack for constants only. The
 * caller has compared i with count. (It begins with a word and not with 0, so that the verifier
 * finds all ways through this alike.)
 */
static __always_inline u64 word_at(const u64 *words, u32 count, u32 i)
{
	u64 word = *(const volatile u64 *)words;
	u32 at;

#pragma unroll
	for (at = 1; at < count; at++) {
		if (at == i)
			word = *(const volatile u64 *)&words[at];
	}
	return word;
}

/*
 * Where the running thread keeps pthread_getspecific(key). glibc (2.1 to 2.4x): 32 pairs of a
 * sequence number and the value lie in struct pthread, with pointers to the further blocks of 32
 * behind them. musl: an array of values.
 */
static __always_inline u64 python_tsd_slot(const struct python_layout *l, u64 thread)
{
	enum { PAIRS = 32, PAIR_BYTES = 16, VALUE = 8 };
	u64 first = thread + l->tsd_offset, key = l->tss_key;

	if (l->tsd == PYTHON_TSD_MUSL) {
		first = user_word(first);
		return first ? first + key * sizeof(u64) : 0;
	}
	if (key >= PAIRS) {
		first = user_word(first + PAIRS * PAIR_BYTES + key / PAIRS * sizeof(u64));
		if (!first)
			return 0;
	}
	return first + key % PAIRS * PAIR_BYTES + VALUE;
}

/* The two words of the thread's state that matter, with one read when they are near each other. */
static __always_inline int python_state_read(const struct python_layout *l, u64 state,
					     u64 *ret_thread, u64 *ret_context)
{
	enum { WORDS = 10 };
	u64 distance = (u64)l->tstate_context - l->tstate_thread_id;
	u64 words[WORDS] = {}, start = state + l->tstate_thread_id;

	barrier_var(distance); /* what is compared is what is used */
	if (distance > (WORDS - 1) * sizeof(u64)) {
		*ret_thread = user_word(start);
		*ret_context = user_word(state + l->tstate_context);
		return 0;
	}
	if (bpf_probe_read_user(words, distance + sizeof(u64), (const void *)start))
		return -1;
	*ret_thread = words[0];
	*ret_context = word_at(words, WORDS, distance / sizeof(u64));
	return 0;
}

/* Not a process's first. */
static __always_inline bool is_other_thread(void)
{
	u64 pid_tid = bpf_get_current_pid_tgid();

	return (u32)pid_tid != pid_tid >> 32;
}

/* -1: it could not be read, *now is not filled. */
static __noinline int python_look(const struct python_layout *l, struct python_now *now)
{
	u64 thread = thread_pointer(), slot = python_tsd_slot(l, thread);
	u64 state = 0, owner = 0, context = 0;
	s32 entered = 0;

	if (slot && bpf_probe_read_user(&state, sizeof(state), (const void *)slot))
		goto fault;
	now->state = now->context = 0;
	if (!state)
		return 0;
	if (python_state_read(l, state, &owner, &context))
		goto fault;
	if (owner != thread)
		return 0;
	now->state = state;
	if (!context)
		return 0;
	/* A context that nobody has entered is a thread's own, whose address may have been
	 * another's. */
	if (bpf_probe_read_user(&entered, sizeof(entered),
				(const void *)(context + l->context_entered)))
		goto fault;
	if (entered && !(l->context_previous && is_other_thread() &&
			 !user_word(context + l->context_previous)))
		now->context = context;
	return 0;
fault:
	count_drop(DROP_PYTHON_READ_FAULT);
	return -1;
}

/* For whoever needs only the context: 0 when there is none. */
static __always_inline u64 python_context(u32 pid)
{
	const struct python_layout *l = python_layout_of(pid);
	struct python_now now = {};

	return l && !python_look(l, &now) ? now.context : 0;
}

#endif
