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
#if !defined(__TARGET_ARCH_x86)
#error "readers rely on the order in which x86-64 loads and stores"
#endif

enum { OWNER_SETS = 1 << OWNER_SET_BITS, OWNER_WAYS = 8, OWNER_FREE = 0x7fffffff };

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

/* Jiffies since the entry was used; the most there can be: it is free; 0: it is being written. */
static __always_inline u32 owner_age(const struct owner_set *set, u32 way, u32 now)
{
	u32 age = now - *(const volatile u32 *)&set->entry[way].used;

	if (*(const volatile u32 *)&set->entry[way].version & 1)
		return 0;
	if (!*(const volatile u64 *)&set->context[way])
		return OWNER_FREE;
	return (s32)age < 0 ? 0 : age; /* used since `now` was asked for */
}

/*
 * The place that is free, or was longest not used; *ret_version: its version, odd where it can't be
 * had. The best so far is one number, age and place: the verifier would follow each place apart.
 */
static __always_inline u32 owner_victim(const struct owner_set *set, u32 now, u32 *ret_version)
{
	enum { BITS = 3 };
	u64 best = 0, rank, age;
	u32 way;

	_Static_assert(OWNER_WAYS == 1 << BITS, "a place is so many bits");
	for (way = 0; way < OWNER_WAYS; way++) {
		age = owner_age(set, way, now);
		rank = age << BITS | way;
		if (rank > best)
			best = rank;
	}
	way = best & (OWNER_WAYS - 1);
	*ret_version = version_of(&set->entry[way]);
	if (owner_age(set, way, now) != best >> BITS) /* another one has it by now */
		*ret_version = 1;
	return way;
}

/*
 * False: another one writes it, or has since it had this version. Whoever does ends what was there,
 * for he puts another key in its place or frees it, whatever it held when he came: so the one that
 * is too late to write or to forget has nothing to forget any more.
 */
static __always_inline bool owner_lock(struct owner_entry *e, u32 version)
{
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
		if (!(version & 1) && set->context[way] == context && e->memory == memory &&
		    owner_same(&e->owner, o) && version_of(e) == version) {
			e->used = now;
			return 1;
		}
	} else {
		way = owner_victim(set, now, &version);
	}
	e = &set->entry[way & (OWNER_WAYS - 1)];
	if (!owner_lock(e, version)) {
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
	version = version_of(e);
	if (!owner_lock(e, version))
		return 0;
	*(volatile u64 *)&set->context[way] = 0;
	owner_unlock(e, version);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
