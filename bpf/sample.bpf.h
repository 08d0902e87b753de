/*
 * Ids and the decision whether a trace is kept, made where it begins: by its id, so that every
 * agent and every SDK keeps the same ones (src/trace/sample.c decides alike, bit for bit). A limit
 * of new traces per second and service stands behind that.
 */
#ifndef SPANLOOM_SAMPLE_BPF_H
#define SPANLOOM_SAMPLE_BPF_H

#include "maps.bpf.h"

enum { TRACE_FLAG_SAMPLED = 1, SERVICE_SLOTS = 4096 };

/* New traces of a service: in the upper half the second, in the lower how many began in it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVICE_SLOTS);
	__type(key, u32);
	__type(value, u64);
} roots SEC(".maps") __weak;

/*
 * Eight random bytes, never all zero. The generator behind bpf_get_prandom_u32() has 113 bits of
 * state for each CPU, seeded by the kernel's own random numbers, so ids don't repeat; but it is
 * linear, and who sees some of its numbers could go on by himself. Hence the time in nanoseconds is
 * mixed in, by steps that are not linear and lose nothing (the finalizer of SplitMix64).
 */
static __always_inline u64 random_word(u64 now_ns)
{
	u64 x = (u64)bpf_get_prandom_u32() << 32 | bpf_get_prandom_u32();

	x ^= now_ns * 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return x ? x : 1;
}

/* `len`: a constant, 8 or 16; `to` lies at a multiple of 8. */
static __always_inline void ids_random(u8 *to, u32 len)
{
	u64 *words = (u64 *)to, now_ns = bpf_ktime_get_ns();
	u32 i;

#pragma unroll
	for (i = 0; i < len / sizeof(u64); i++)
		words[i] = random_word(now_ns);
}

/* What the sampler says of a trace that begins, or of any where parents don't count. */
static __always_inline bool trace_sampled(const u8 *trace_id)
{
	u64 value;

	if (constants.sample != SAMPLE_RATIO)
		return constants.sample == SAMPLE_ALL;
	__builtin_memcpy(&value, trace_id + TRACE_CONTEXT_ID_BYTES - sizeof(value), sizeof(value));
	return __builtin_bswap64(value) < constants.sample_below;
}

/* Whether one more trace of the service may begin in this second. */
static __always_inline bool root_allowed(u32 process)
{
	u32 slot = (process >> TRACED_SERVICE_SHIFT) % SERVICE_SLOTS;
	u64 *count, now, old;

	if (!constants.root_limit)
		return true;
	count = bpf_map_lookup_elem(&roots, &slot);
	if (!count)
		return true;
	now = bpf_ktime_get_ns() / 1000000000ull;
	old = *(volatile u64 *)count;
	if (old >> 32 < now && __sync_val_compare_and_swap(count, old, now << 32 | 1) == old)
		return true;
	return (u32)__sync_fetch_and_add(count, 1) < constants.root_limit;
}

/* The decision for a new trace. `process`: its flags, where the trace begins. */
static __always_inline bool root_sampled(u32 process, const u8 *trace_id)
{
	if (!trace_sampled(trace_id))
		return false;
	if (root_allowed(process))
		return true;
	count_drop(DROP_ROOT_LIMIT);
	return false;
}

/* The decision where a parent is known: it decided for the trace, or the trace's id does. */
static __always_inline bool parent_sampled(u8 parent_flags, const u8 *trace_id)
{
	return constants.parent_based ? parent_flags & TRACE_FLAG_SAMPLED : trace_sampled(trace_id);
}

#endif
