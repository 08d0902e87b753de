/*
 * The header itself: whether the kernel would queue it whole, making room for it, and its text.
 * Invariant: who calls header_put() has asked header_fits() and socket_busy() before. Included by
 * inject.bpf.c.
 */
#ifndef SPANLOOM_HEADER_BPF_H
#define SPANLOOM_HEADER_BPF_H

#include "message.bpf.h"

enum {
	TRACE_FLAG_RANDOM = 2, /* of the trace id, which stays the same (W3C level 2) */
	HEADER_BYTES = 70,     /* "traceparent: 00-" TRACE "-" SPAN "-01\r\n" */
	PAGE_BYTES = 4096,
	WHOLE_MAX = 65536,    /* of a message that is made one piece */
	LINE_MAX = 2048,      /* of a request line that is followed by a header */
	SEGMENT_OPTIONS = 64, /* what TCP may take of a segment besides */
	SEND_BUFFER_MIN = 4096,
};

static __always_inline bool socket_nonblocking(const struct tcp_sock *tp)
{
	return BPF_CORE_READ((const struct sock *)tp, sk_socket, file, f_flags) & O_NONBLOCK;
}

static __always_inline u8 hex_digit(u8 value)
{
	return value + (value < 10 ? '0' : 'a' - 10);
}

static __always_inline void hex_write(u8 *to, const u8 *from, u32 len)
{
	u32 i;

#pragma unroll
	for (i = 0; i < len; i++) {
		to[2 * i] = hex_digit(from[i] >> 4);
		to[2 * i + 1] = hex_digit(from[i] & 15);
	}
}

static __always_inline void header_write(u8 *to, const struct trace_ids *ids)
{
	__builtin_memcpy(to, "traceparent: 00-", 16);
	hex_write(to + 16, ids->trace_id, TRACE_CONTEXT_ID_BYTES);
	to[48] = '-';
	hex_write(to + 49, ids->span_id, TRACE_CONTEXT_SPAN_BYTES);
	to[65] = '-';
	to[66] = '0';
	to[67] = '0' + (ids->trace_flags & (TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM));
	to[68] = '\r';
	to[69] = '\n';
}

/*
 * Nagle's algorithm is on: of a message in pieces the second would wait until the other end has
 * acknowledged the first, which takes it 40 ms. Without us it is one.
 */
static __always_inline bool socket_collects(const struct tcp_sock *tp)
{
	const struct tcp_sock___send *t = (const void *)tp;

	return !BPF_CORE_READ_BITFIELD_PROBED(t, nonagle);
}

/*
 * Makes room behind the request line and fills it. What lies before the room's end becomes one
 * piece, for the kernel queues pieces one by one: so the line and the header are queued together,
 * and all of a message of up to a page, or that `collects`, goes out as one. -1: the message is as
 * it was. -2: it can't go out as it is.
 */
static __noinline int header_put(struct sk_msg_md *msg, const struct head *h,
				 const struct trace_ids *ids, bool collects)
{
	u32 line = h->line_end, upto = line + HEADER_BYTES;
	u8 *to;

	if (collects || msg->size + HEADER_BYTES <= PAGE_BYTES)
		upto = msg->size + HEADER_BYTES;
	if (bpf_msg_push_data(msg, line, HEADER_BYTES, 0))
		return -1;
	if (!bpf_msg_pull_data(msg, 0, upto, 0)) {
		to = message_at(msg, line, HEADER_BYTES);
		if (to) {
			header_write(to, ids);
			return 0;
		}
	}
	/* The room is a piece of its own, so taking it out needs no memory. */
	return bpf_msg_pop_data(msg, line, HEADER_BYTES, 0) ? -2 : -1;
}

/*
 * Whether the kernel will queue the line and the header together or not at all: nothing is queued
 * before, both fit into the first segment, and its memory is granted whatever the limits say. Then
 * a send that stops early has either sent the header whole or nothing of the message.
 */
static __always_inline bool header_fits(const struct tcp_sock *tp, const struct head *h)
{
	const struct tcp_sock___send *t = (const void *)tp;
	const struct sock___send *sk = (const void *)tp;
	u32 bytes = h->line_end + HEADER_BYTES;

	return h->line_end <= LINE_MAX && bytes + SEGMENT_OPTIONS <= t->mss_cache &&
	       sk->sk_sndbuf >= SEND_BUFFER_MIN;
}

static __always_inline bool socket_busy(const struct tcp_sock *tp)
{
	const struct tcp_sock___send *t = (const void *)tp;
	const struct sock___send *sk = (const void *)tp;

	return tp->write_seq != t->snd_una || sk->sk_wmem_queued;
}

/* Sockets whose sends mean more than their bytes. */
static __always_inline bool socket_special(const struct tcp_sock *tp)
{
	const struct inet_connection_sock___send *icsk = (const void *)tp;
	const struct tcp_sock___send *t = (const void *)tp;
	unsigned long flags = ((const struct sock *)tp)->__sk_common.skc_flags;

	if (icsk->icsk_ulp_ops || BPF_CORE_READ_BITFIELD_PROBED(t, repair))
		return true;
	if (bpf_core_field_exists(t->is_mptcp) && BPF_CORE_READ_BITFIELD_PROBED(t, is_mptcp))
		return true;
	return bpf_core_enum_value_exists(enum sock_flags___send, SOCK_ZEROCOPY___send) &&
	       flags & 1ul << bpf_core_enum_value(enum sock_flags___send, SOCK_ZEROCOPY___send);
}

#endif
