/*
 * Writes that an event loop puts off to the end of its turn (uvloop before 0.23): the context they
 * were made in waits with the connection. It may end meanwhile, and its address be given to
 * another. Invariant: a context that waits is the one in which the bytes were written, or none.
 */
#ifndef SPANLOOM_LATE_BPF_H
#define SPANLOOM_LATE_BPF_H

#include "owner.bpf.h"

enum { LATE_CONTEXTS_MAX = 4096 };

/* Contexts that such writes were made in, and how often their address was given away since the
 * first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LATE_CONTEXTS_MAX);
	__type(key, struct owner_key);
	__type(value, u32);
} late_contexts SEC(".maps") __weak;

extern u8 late_used; /* there has been one */

/* `context` (0: none) waits with the connection until its bytes are sent. */
static __always_inline void late_waits(struct conn_state *c, u32 pid, u64 context)
{
	struct owner_key key = owner_key_of(pid, context);
	const u32 *given;
	u32 none = 0;

	c->late_context = context;
	c->late_given = 0;
	if (!context)
		return;
	late_used = 1;
	given = bpf_map_lookup_elem(&late_contexts, &key);
	if (given)
		c->late_given = *given;
	else if (bpf_map_update_elem(&late_contexts, &key, &none, BPF_ANY))
		c->late_context = 0;
}

/* The context that waits with the connection; 0: none, or it isn't certain which. */
static __noinline u64 late_waiting(const struct conn_state *c, u32 pid)
{
	struct owner_key key = owner_key_of(pid, c->late_context);
	const u32 *given;

	if (!c->late_context)
		return 0;
	given = bpf_map_lookup_elem(&late_contexts, &key);
	return given && *given == c->late_given ? c->late_context : 0;
}

/* A new context is at this address. */
static __always_inline void late_given_away(u32 pid, u64 context)
{
	struct owner_key key;
	u32 *given;

	if (!late_used)
		return;
	key = owner_key_of(pid, context);
	given = bpf_map_lookup_elem(&late_contexts, &key);
	if (given)
		__sync_fetch_and_add(given, 1);
}

#endif
