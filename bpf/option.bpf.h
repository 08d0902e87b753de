/*
 * The TCP option that carries a call's ids where no header can: what is kept with the sockets that
 * send it, and what has been received. bpf/tcp_option.bpf.c moves it between here and the segments.
 * Invariant: it goes out with the segment that begins with the call's first byte, or not at all,
 * and is believed only for a request that begins with the very byte it came with.
 */
#ifndef SPANLOOM_OPTION_BPF_H
#define SPANLOOM_OPTION_BPF_H

#include "maps.bpf.h"
#include "tcp_option.h"

struct tcp_sock___segment {
	u32 mss_cache;
} KERNEL_TYPE;

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct option_state);
} options_sent SEC(".maps") __weak;

/* The oldest go when there are too many: nobody says that those who send them are friends. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OPTIONS_RECEIVED_MAX);
	__type(key, struct option_key);
	__type(value, struct option_ids);
} options_received SEC(".maps") __weak;

/* The connection carries no calls, or their headers do: it sends no options any more. */
static __always_inline void option_never(struct tcp_sock *tp)
{
	struct option_state *o =
		constants.tcp_option ? bpf_sk_storage_get(&options_sent, tp, 0, 0) : 0;

	if (o)
		o->stage = OPTION_NEVER;
}

/*
 * A call begins at call->seq that has got no header, before any of its bytes is queued; the whole
 * send has `bytes`. `process`: TRACED_*. Sets REQUEST_INJECTED where the option goes out with it.
 */
static __always_inline void option_begins(struct tcp_sock *tp, struct call_state *call, u32 process,
					  u64 bytes)
{
	const struct tcp_sock___segment *segment = (const void *)tp;
	struct option_state *o;

	if (!constants.tcp_option)
		return;
	o = bpf_sk_storage_get(&options_sent, tp, 0, 0);
	if (!o || o->stage == OPTION_NEVER)
		return;
	if (o->stage == OPTION_SENT) {
		o->lost = 0;
		o->good = 1;
	}
	o->stage = OPTION_IDLE;
	if ((process & (TRACED_SILENT | TRACED_APART)) ||
	    (call->flags & (REQUEST_INJECTED | REQUEST_OWN)))
		return;
	if (!(call->ids.flags & IDS_FIXED)) {
		if (!constants.inject) /* else it is counted where headers are */
			count_drop(DROP_HEADER_UNBOUND);
		return;
	}
	if (bytes + OPTION_BYTES > segment->mss_cache) {
		count_drop(DROP_OPTION_SIZE);
		return;
	}
	o->option[0] = OPTION_KIND;
	o->option[1] = OPTION_BYTES;
	o->option[2] = OPTION_EXPERIMENT;
	o->option[3] = call->ids.flags & IDS_SAMPLED ? OPTION_SAMPLED : OPTION_NOT_SAMPLED;
	__builtin_memcpy(o->option + OPTION_HEAD_BYTES, call->ids.trace_id, TRACE_CONTEXT_ID_BYTES);
	__builtin_memcpy(o->option + OPTION_HEAD_BYTES + TRACE_CONTEXT_ID_BYTES, call->ids.span_id,
			 TRACE_CONTEXT_SPAN_BYTES);
	o->seq = call->seq;
	o->stage = OPTION_DUE;
	call->flags |= REQUEST_INJECTED;
}

/*
 * The ids that came with the segment whose first byte is number `seq`, which must be the request's:
 * true when there are any, and then they are forgotten. `sk`: the address of the socket.
 */
static __always_inline bool option_received(u64 sk, u32 seq, struct trace_ids *ret)
{
	struct option_key key = { .sk = sk, .seq = seq };
	const struct option_ids *ids;

	if (!constants.tcp_option)
		return false;
	ids = bpf_map_lookup_elem(&options_received, &key);
	if (!ids)
		return false;
	__builtin_memcpy(ret->trace_id, ids->trace_id, sizeof(ret->trace_id));
	__builtin_memcpy(ret->span_id, ids->span_id, sizeof(ret->span_id));
	ret->trace_flags = ids->trace_flags;
	ret->flags = IDS_KNOWN;
	bpf_map_delete_elem(&options_received, &key);
	return true;
}

#endif
