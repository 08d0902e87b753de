/*
 * Calls that are under way between processes of this host: where one begins it is entered by the
 * two sequence numbers that both ends of a connection know, and the request at the other end finds
 * it. Nothing of it is on the wire.
 */
#ifndef SPANLOOM_JOINED_BPF_H
#define SPANLOOM_JOINED_BPF_H

#include "maps.bpf.h"

/* An entry is looked for when the request is read at the other end; until then it may wait in
 * queues. Its key is 64 bits of two counters that begin at random: only age makes it stale. */
enum { CALLS_MAX = 8192 };
#define CALL_AGE_NS 60000000000ull

/* The first byte's sequence number, and the other direction's counter: the same at both ends. */
struct call_key {
	u32 seq;
	u32 peer_seq;
};

struct call_sent {
	struct trace_ids ids; /* span_id: the call's */
	u64 ts_ns;
};

/* What the request at the other end is joined to; the oldest go when there are too many. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CALLS_MAX);
	__type(key, struct call_key);
	__type(value, struct call_sent);
} calls SEC(".maps") __weak;

/*
 * The call at the other end of a request whose first byte has sequence number `seq` while
 * `peer_seq` of the answers were sent: true when a traced process of this host has made it.
 */
static __always_inline bool call_joined(u32 seq, u32 peer_seq, struct trace_ids *ret)
{
	struct call_key key = { seq, peer_seq };
	const struct call_sent *sent;

	if (!seq && !peer_seq)
		return false;
	sent = bpf_map_lookup_elem(&calls, &key);
	if (!sent || bpf_ktime_get_ns() - sent->ts_ns > CALL_AGE_NS)
		return false;
	*ret = sent->ids;
	return true;
}

/* Alone, so that its stack is free again for whatever the caller calls next. */
static __noinline int call_tell_other_end(const struct call_state *call)
{
	struct call_key key = { call->seq, call->peer_seq };
	struct call_sent sent = { .ids = call->ids, .ts_ns = call->start_ns };

	if ((key.seq || key.peer_seq) && bpf_map_update_elem(&calls, &key, &sent, BPF_ANY))
		count_drop(DROP_REQUEST_TABLE_FULL);
	return 0;
}

/* copied_seq counts the FIN once it was read together with the last bytes; it is no byte. */
static __always_inline u32 stream_read(u32 copied_seq, u32 rcv_nxt, u64 sk_flags)
{
	return (sk_flags & (1 << SOCK_DONE)) && copied_seq == rcv_nxt ? copied_seq - 1 : copied_seq;
}

#endif
