/*
 * The table of owner.bpf.h: for each context of an interpreter the request that it works for. A
 * context is copied for each callback and timer, so this is written more often than anything else
 * here, at addresses that come again and again: an entry is written where it lies. A hash map of
 * the kernel's would give each write other memory. Sets of eight; where one is full the entry that
 * was longest not used goes, since contexts end without a word.
 */
#ifndef SPANLOOM_OWNER_TABLE_BPF_H
#define SPANLOOM_OWNER_TABLE_BPF_H

#include "maps.bpf.h"

struct owner_key {
	u64 memory; /* memory_of() */
	u64 context;
};

/* Of the running process, which has number `pid`: numbers and addresses are used again by others.
 */
static __always_inline u64 memory_of(u32 pid)
{
	return (u64)pid << 32 | current_memory();
}

static __always_inline struct owner_key owner_key_of(u32 pid, u64 context)
{
	struct owner_key key = { .memory = memory_of(pid), .context = context };

	return key;
}

/*
 * Global functions, so that the verifier looks at them once for each program; they take plain
 * numbers because that leaves more of the stack. owner_read: 1 when there is an owner, copied to
 * *ret. owner_write: 1 when the very same was there before, -1 when there is none now (counted).
 * owner_forget: there is none now; always 0.
 */
extern int owner_read(u64 memory, u64 context, struct owner *ret);
extern int owner_write(u64 memory, u64 context, const struct owner *o);
extern int owner_forget(u64 memory, u64 context);

#endif
