/*
 * The table of contexts and whose work they are. Invariant: what is read is what was written whole
 * for that very key. An entry has a version, odd while it is being written; a reader who finds it
 * so, or another one behind the copy, has found nothing. Nobody waits: where two would write the
 * same place one of them leaves it.
 */
#include "owner_table.bpf.h"

#ifndef OWNER_SET_BITS
#define OWNER_SET_BITS 12
#endif
enum { OWNER_SETS = 1 << OWNER_SET_BITS, OWNER_WAYS = 8 };

struct owner_entry {
	u64 memory;
	u32 version;
	u32 used; /* jiffies, the lower half */
	struct owner owner;
};

struct owner_set {
	u64 context[OWNER_WAYS]; /* 0: free */
	struct owner_entry entry[OWNER_WAYS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OWNER_SETS);
	__type(key, u32);
	__type(value, struct owner_set);
} owners SEC(".maps");

/* The loads and stores of x86-64 keep their order among themselves; so must the compiler. */
static __always_inline u32 version_of(const struct owner_entry *e)
{
	u32 version = *(const volatile u32 *)&e->version;

	barrier();
	return version;
}

static __always_inline struct owner_set *owner_set_of(u64 memory, u64 context)
{
	u64 mixed = (context ^ memory << 16 ^ memory >> 24) * 0x9e3779b97f4a7c15ull;
	u32 set = mixed >> (64 - OWNER_SET_BITS);

	return bpf_map_lookup_elem(&owners, &set);
}

/* The context's place in its set; OWNER_WAYS: it has none. */
static __always_inline u32 owner_way(const struct owner_set *set, u64 memory, u64 context)
{
	u32 way;

	for (way = 0; way < OWNER_WAYS; way++) {
		if (*(const volatile u64 *)&set->context[way] == context &&
		    set->entry[way].memory == memory)
			break;
	}
	return way;
}

static __always_inline u32 owner_victim(const struct owner_set *set, u32 now)
{
	u32 way, age, oldest = 0, ret = 0;

	for (way = 0; way < OWNER_WAYS; way++) {
		if (!set->context[way])
			return way;
		age = now - set->entry[way].used;
		if (age > oldest && !(set->entry[way].version & 1)) {
			oldest = age;
			ret = way;
		}
	}
	return ret;
}

/* False: another one is writing it. */
static __always_inline bool owner_lock(struct owner_entry *e, u32 *ret_version)
{
	u32 version = version_of(e);

	*ret_version = version;
	return !(version & 1) &&
	       __sync_val_compare_and_swap(&e->version, version, version + 1) == version;
}

static __always_inline void owner_unlock(struct owner_entry *e, u32 version)
{
	barrier();
	*(volatile u32 *)&e->version = version + 2;
}

static __always_inline bool owner_same(const struct owner *a, const struct owner *b)
{
	enum { WORDS = sizeof(struct owner) / sizeof(u64) };
	const u64 *x = (const void *)a, *y = (const void *)b;
	u64 differs = 0;
	u32 i;

#pragma unroll
	for (i = 0; i < WORDS; i++)
		differs |= x[i] ^ y[i];
	return !differs;
}

__noinline int owner_read(u64 memory, u64 context, struct owner *ret)
{
	struct owner_set *set;
	struct owner_entry *e;
	u32 way, version, now;

	if (!ret)
		return 0;
	set = owner_set_of(memory, context);
	if (!set)
		return 0;
	way = owner_way(set, memory, context);
	if (way >= OWNER_WAYS)
		return 0;
	e = &set->entry[way];
	version = version_of(e);
	if ((version & 1) || set->context[way] != context || e->memory != memory)
		return 0;
	*ret = e->owner;
	barrier();
	if (version_of(e) != version)
		return 0;
	now = (u32)bpf_jiffies64();
	if (e->used != now)
		e->used = now;
	return 1;
}

__noinline int owner_write(u64 memory, u64 context, const struct owner *o)
{
	struct owner_set *set;
	struct owner_entry *e;
	u32 way, version, now;

	if (!o)
		return -1;
	set = owner_set_of(memory, context);
	if (!set)
		return -1;
	now = (u32)bpf_jiffies64();
	way = owner_way(set, memory, context);
	if (way < OWNER_WAYS) {
		e = &set->entry[way];
		version = version_of(e);
		if (!(version & 1) && owner_same(&e->owner, o) && version_of(e) == version) {
			e->used = now;
			return 1;
		}
	} else {
		way = owner_victim(set, now);
	}
	if (way >= OWNER_WAYS)
		return -1;
	e = &set->entry[way];
	/* Whoever writes here now puts another key in this place: what it had is gone. */
	if (!owner_lock(e, &version)) {
		count_drop(DROP_REQUEST_TABLE_FULL);
		return -1;
	}
	*(volatile u64 *)&set->context[way] = context;
	e->memory = memory;
	e->used = now;
	e->owner = *o;
	owner_unlock(e, version);
	return 0;
}

__noinline int owner_forget(u64 memory, u64 context)
{
	struct owner_set *set;
	struct owner_entry *e;
	u32 way, version;

	set = owner_set_of(memory, context);
	if (!set)
		return 0;
	way = owner_way(set, memory, context);
	if (way >= OWNER_WAYS)
		return 0;
	e = &set->entry[way];
	if (!owner_lock(e, &version))
		return 0;
	*(volatile u64 *)&set->context[way] = 0;
	owner_unlock(e, version);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
