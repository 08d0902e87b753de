/*
 * Where the threads that read and answer have no context (granian), the frames of a context name
 * the client that it serves (python_site.bpf.c). Once is enough: what is copied from a context
 * serves the same one, and user space follows that. This remembers for which contexts it was told.
 * Invariant: a context that is made at an address used before counts as its own parent does.
 */
#ifndef SPANLOOM_PYTHON_SERVED_BPF_H
#define SPANLOOM_PYTHON_SERVED_BPF_H

#include "python.bpf.h"

/* Where two contexts meet in a slot, one is told of once more. */
enum { SERVED_SLOTS = 8192 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVED_SLOTS);
	__type(key, u32);
	__type(value, u64); /* served_id() of a context that was told of */
} served SEC(".maps") __weak;

/* Objects are at multiples of 16 and below 2^47. */
static __always_inline u64 served_id(u32 pid, u64 context)
{
	return context >> 4 ^ (u64)pid << 43;
}

static __always_inline u64 *served_slot(u64 id)
{
	u32 slot = (id ^ id >> 13 ^ id >> 43) % SERVED_SLOTS;

	return bpf_map_lookup_elem(&served, &slot);
}

/* WALK_SCOPE where a context has to be told of. */
static __always_inline u32 served_walk(u32 pid, u64 context)
{
	u64 id = served_id(pid, context), *slot = context ? served_slot(id) : 0;

	return slot && *slot != id ? WALK_SCOPE : 0;
}

static __always_inline void served_told(u32 pid, u64 context)
{
	u64 id = served_id(pid, context), *slot = context ? served_slot(id) : 0;

	if (slot)
		*slot = id;
}

static __always_inline void served_copied(u32 pid, u64 from, u64 to)
{
	u64 id = served_id(pid, to), *slot = served_slot(id);

	if (from && !served_walk(pid, from))
		served_told(pid, to);
	else if (slot && *slot == id)
		*slot = 0;
}

#endif
