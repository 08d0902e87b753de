/*
 * What the programs on sockets touch: the contexts that the kernel hands them (ABI of linux/bpf.h,
 * cut behind the last member we use) and members of kernel types that nothing else here needs.
 */
#ifndef SPANLOOM_INJECT_BPF_H
#define SPANLOOM_INJECT_BPF_H

#include "connection.bpf.h"
#include "injection.h"

enum { BPF_MAP_TYPE_SOCKHASH = 18, BPF_SK_STORAGE_GET_F_CREATE = 1 };
enum { SK_DROP = 0, SK_PASS = 1 };

/* The verifier makes 64 bit loads of these. */
#define CONTEXT_POINTER(type, name) \
	union {                     \
		type *name;         \
		u64 : 64;           \
	} __attribute__((aligned(8)))

struct bpf_sock;

struct sk_msg_md {
	CONTEXT_POINTER(void, data);
	CONTEXT_POINTER(void, data_end);
	u32 family;
	u32 remote_ip4, local_ip4;
	u32 remote_ip6[4], local_ip6[4];
	u32 remote_port, local_port;
	u32 size;
	CONTEXT_POINTER(struct bpf_sock, sk);
};

struct bpf_sock_ops {
	u32 op;
	u32 args[4];
	u32 family;
	u32 remote_ip4, local_ip4;
	u32 remote_ip6[4], local_ip6[4];
	u32 remote_port, local_port;
	u32 is_fullsock;
	u32 snd_cwnd, srtt_us;
	u32 bpf_sock_ops_cb_flags;
	u32 state, rtt_min, snd_ssthresh, rcv_nxt, snd_nxt, snd_una, mss_cache, ecn_flags;
	u32 rate_delivered, rate_interval_us, packets_out, retrans_out, total_retrans;
	u32 segs_in, data_segs_in, segs_out, data_segs_out;
	u32 lost_out, sacked_out, sk_txhash;
	u64 bytes_received, bytes_acked;
	CONTEXT_POINTER(struct bpf_sock, sk);
	CONTEXT_POINTER(void, skb_data);
	CONTEXT_POINTER(void, skb_data_end);
	u32 skb_len;
	u32 skb_tcp_flags;
};

enum {
	BPF_SOCK_OPS_TCP_CONNECT_CB = 3,
	BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4,
};

struct tcp_ulp_ops;

struct inet_connection_sock___send {
	const struct tcp_ulp_ops *icsk_ulp_ops;
} KERNEL_TYPE;

struct sock___send {
	int sk_wmem_queued;
	int sk_sndbuf;
} KERNEL_TYPE;

struct tcp_sock___send {
	u32 snd_una;
	u32 mss_cache;
	bool is_mptcp;
	u8 repair : 1;
	u8 nonagle : 4;
} KERNEL_TYPE;

struct io_uring_task;

struct task_struct___rings {
	struct io_uring_task *io_uring;
	struct task_struct___rings *group_leader;
} KERNEL_TYPE;

/*
 * Does the current task, or the first of its process, use an io_uring? Sends without a copy
 * (IORING_OP_SEND_ZC) are refused for every socket that has ever been in a table, and what is sent
 * is not seen behind the fact, so a header would name a span that nobody reports. `process`:
 * TRACED_*.
 */
static __always_inline bool sends_by_ring(u32 process)
{
	const struct task_struct___rings *task = (const void *)bpf_get_current_task();

	if (process & TRACED_RINGS || !bpf_core_field_exists(task->io_uring))
		return false;
	return BPF_CORE_READ(task, io_uring) || BPF_CORE_READ(task, group_leader, io_uring);
}

enum sock_flags___send { SOCK_ZEROCOPY___send = 0 };

#endif
