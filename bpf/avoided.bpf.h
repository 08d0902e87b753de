/*
 * Peers that a process was seen to talk to over sockets that connect without blocking and block
 * later, or that carry no HTTP/1: its later connections there don't enter the table of sockets that
 * headers are put into, where a receive that blocks is told of a signal as if nothing had come.
 */
#ifndef SPANLOOM_AVOIDED_BPF_H
#define SPANLOOM_AVOIDED_BPF_H

#include "maps.bpf.h"
#include "injection.h"

enum { AVOIDED_MAX = 4096 };

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct injection);
} injections SEC(".maps") __weak;

struct avoided_peer {
	u8 address[16];
	u32 pid;
	u16 port; /* network order */
	u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, AVOIDED_MAX);
	__type(key, struct avoided_peer);
	__type(value, u8);
} avoided SEC(".maps") __weak;

static __always_inline struct avoided_peer avoided_peer_of(const struct sock *sk, u32 pid)
{
	struct avoided_peer peer = { .pid = pid };

	peer.port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET)
		*(u32 *)peer.address = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	else
		BPF_CORE_READ_INTO(&peer.address, sk, __sk_common.skc_v6_daddr);
	return peer;
}

static __always_inline void peer_avoid(const struct sock *sk, u32 pid)
{
	struct avoided_peer peer = avoided_peer_of(sk, pid);
	u8 one = 1;

	bpf_map_update_elem(&avoided, &peer, &one, BPF_ANY);
}

static __always_inline bool peer_avoided(const struct sock *sk, u32 pid)
{
	struct avoided_peer peer = avoided_peer_of(sk, pid);

	return bpf_map_lookup_elem(&avoided, &peer);
}

#endif
