/* The route lookups of connect() in traced processes, IPv4 and IPv6. */
#include "route.bpf.h"

enum { RTN_BLACKHOLE = 6, RTN_UNREACHABLE = 7, RTN_PROHIBIT = 8, RTN_THROW = 9 };
enum { EAGAIN = 11, EACCES = 13, EINVAL = 22, ENETUNREACH = 101, EHOSTUNREACH = 113 };

static __always_inline void looked_up(const struct route_key *key, s32 error)
{
	struct route_failure f = {};

	if (!error) {
		bpf_map_delete_elem(&unroutable, key);
		return;
	}
	f.ts_ns = bpf_ktime_get_ns();
	f.error = error;
	if (traced_flags(key->pid) & TRACED_PYTHON)
		f.context = python_context(key->pid);
	bpf_map_update_elem(&unroutable, key, &f, BPF_ANY);
}

static __always_inline bool wanted(const struct flowi_common *flow, struct route_key *key)
{
	u64 pid_tid = bpf_get_current_pid_tgid();

	key->pid = pid_tid >> 32;
	key->tid = (u32)pid_tid;
	return is_traced(key->pid) && flow->flowic_proto == IPPROTO_TCP && in_connect();
}

SEC("tp_btf/fib_table_lookup")
int BPF_PROG(route_ipv4, u32 table, const struct flowi4 *flow, const void *hop, int error)
{
	struct route_key key = { .family = AF_INET };

	if (!wanted(&flow->__fl_common, &key))
		return 0;
	key.port = bpf_ntohs(flow->uli.ports.dport);
	*(u32 *)key.address = flow->daddr;
	/* A table without an answer: if no other has one either, there is no route. */
	looked_up(&key, error == -EAGAIN ? -ENETUNREACH : error);
	return 0;
}

SEC("tp_btf/fib6_table_lookup")
int BPF_PROG(route_ipv6, const struct net *net, const struct fib6_result *result, const void *table,
	     const struct flowi6 *flow)
{
	struct route_key key = { .family = AF_INET6 };
	s32 error = 0;

	if (!wanted(&flow->__fl_common, &key))
		return 0;
	key.port = bpf_ntohs(flow->uli.ports.dport);
	BPF_CORE_READ_INTO(&key.address, flow, daddr);
	if (result->f6i == net->ipv6.fib6_null_entry)
		error = -ENETUNREACH;
	else if (result->fib6_type == RTN_UNREACHABLE || result->fib6_type == RTN_THROW)
		error = -EHOSTUNREACH;
	else if (result->fib6_type == RTN_PROHIBIT)
		error = -EACCES;
	else if (result->fib6_type == RTN_BLACKHOLE)
		error = -EINVAL;
	looked_up(&key, error);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
