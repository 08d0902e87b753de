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

/* Is the current thread inside connect()? */
static __always_inline bool in_connect(void)
{
	enum { NR_CONNECT = 42 };

	return BPF_CORE_READ(syscall_regs(), orig_ax) == NR_CONNECT;
}

#endif
