/*
 * Connection attempts that find no route never reach the network nor any socket state. What the
 * route lookup said is kept by thread and destination until the attempt goes on after all or the
 * agent, some milliseconds later, takes it for failed. For the sock collector only: the other sees
 * what connect() returned.
 */
#ifndef SPANLOOM_ROUTE_BPF_H
#define SPANLOOM_ROUTE_BPF_H

#include "connection.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, UNROUTABLE_MAX);
	__type(key, struct route_key);
	__type(value, struct route_failure);
} unroutable SEC(".maps") __weak;

static __always_inline void route_key_of(struct route_key *k, u64 pid_tid, const struct sock *sk)
{
	k->pid = pid_tid >> 32;
	k->tid = (u32)pid_tid;
	k->family = sk->__sk_common.skc_family;
	k->port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (k->family == AF_INET)
		*(u32 *)k->address = sk->__sk_common.skc_daddr;
	else
		BPF_CORE_READ_INTO(&k->address, sk, __sk_common.skc_v6_daddr);
}

/* Is the current thread inside connect()? */
static __always_inline bool in_connect(void)
{
	enum { NR_CONNECT = 42 };

	return BPF_CORE_READ(syscall_regs(), orig_ax) == NR_CONNECT;
}

#endif
