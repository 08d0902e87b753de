/*
 * Calls on sockets that are not in the table of inject.bpf.c, where the kernel tells of a send
 * before its bytes are queued (6.15): their ids and the entry for the other end are there before
 * the request can be. Older kernels find them behind the fact.
 */
#include "connection.bpf.h"
#include "option.bpf.h"

enum { ITER_UBUF = 0, ITER_IOVEC = 1 };

struct iov_iter {
	u8 iter_type;
	unsigned long iov_offset;
	union {
		const struct iovec *__iov;
		void *ubuf;
	};
	unsigned long count;
	unsigned long nr_segs;
} KERNEL_TYPE;

struct msghdr {
	struct iov_iter msg_iter;
} KERNEL_TYPE;

/* The first eight bytes that a send was given; 0: they aren't the process's own, or not in one of
 * its first two buffers. */
static __always_inline u64 send_word(const struct msghdr *msg)
{
	u8 type = msg->msg_iter.iter_type;
	const struct iovec *vector;
	struct iovec iov = {};
	u64 word = 0;
	int i;

	if (msg->msg_iter.iov_offset)
		return 0; /* not its beginning */
	if (type == ITER_UBUF) {
		iov.iov_base = (u64)msg->msg_iter.ubuf;
		iov.iov_len = msg->msg_iter.count;
	} else if (type == ITER_IOVEC) {
		vector = msg->msg_iter.__iov;
		for (i = 0; i < 2 && !iov.iov_len && i < (int)msg->msg_iter.nr_segs; i++)
			bpf_probe_read_kernel(&iov, sizeof(iov), vector + i);
	}
	if (iov.iov_len < sizeof(word) ||
	    bpf_probe_read_user(&word, sizeof(word), (const void *)iov.iov_base))
		return 0;
	return word;
}

/* What is known of a connection that `sk` may have made; NULL: none, or not to be looked at. */
static __always_inline struct conn_state *sending_conn(const struct sock *sk)
{
	u64 key = (u64)sk;
	struct conn_state *c = bpf_map_lookup_elem(&conns, &key);

	if (!(c && (c->flags & CONN_ANNOUNCED)) && sk->sk_max_ack_backlog)
		return 0; /* accepted */
	if (!c)
		c = conn_create(key, sk->__sk_common.skc_family, 0);
	if (!c || (c->flags & CONN_PASSIVE) || c->dir == IO_RECORD_SEND || c->call.begun ||
	    conn_ignored(c))
		return 0;
	return c;
}

static __always_inline int call_sends(const struct sock *sk, const struct msghdr *msg)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	u64 pid_tid = bpf_get_current_pid_tgid();
	struct call_moment m = { .pid = pid_tid >> 32, .tid = (u32)pid_tid };
	struct conn_state *c;

	m.process = traced_flags(m.pid);
	if (!m.process || (m.process & TRACED_SILENT) || !tp)
		return 0;
	c = sending_conn(sk);
	if (!c || !call_begins_with(send_word(msg)))
		return 0;
	m.turn = current_turn();
	m.seq = tp->write_seq;
	m.peer_seq = stream_read(tp->copied_seq, tp->rcv_nxt, sk->__sk_common.skc_flags);
	m.http = true;
	call_begin(c, &m);
	option_begins(tp, &c->call, m.process, msg->msg_iter.count);
	call_without_header(c, m.process, sk);
	return 0;
}

SEC("tp_btf/tcp_sendmsg_locked")
int BPF_PROG(call_sending, const struct sock *sk, const struct msghdr *msg)
{
	return call_sends(sk, msg);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
