/*
 * sendmmsg and recvmmsg for the sock collector, which sees the messages one by one and is not told
 * which each is.
 */
#ifndef SPANLOOM_MANY_BPF_H
#define SPANLOOM_MANY_BPF_H

#include "transfer.bpf.h"

/*
 * sendmmsg and recvmmsg move one message after the other, each a transfer of its own, and nothing
 * says which it is: they are counted. A call that stops early does so with an error, seen as well
 * (it would block), or behind a message that went only in part.
 */
static __always_inline u32 many_index(struct conn_state *c, u32 tid, u64 vector, u32 count)
{
	u32 index = c->many_tid == tid && c->many_vector == vector ? c->many_next : 0;

	many_used = 1;
	c->many_tid = tid;
	c->many_vector = vector;
	c->many_next = index + 1 < count ? index + 1 : 0;
	if (!index)
		c->many_moved = 0;
	return index;
}

/* Bytes that a message asks for, in the buffers that are followed. */
static __noinline u64 message_length(const struct user_msghdr *msg)
{
	u64 bytes = 0;
	u32 i;

	for (i = 0; i < PIECES_MAX && i < msg->msg_iovlen; i++) {
		struct iovec iov;

		if (bpf_probe_read_user(&iov, sizeof(iov),
					(const void *)(msg->msg_iov + i * sizeof(iov))))
			break;
		bytes += iov.iov_len;
	}
	return bytes;
}

static __always_inline void message_of_many(struct conn_state *c, struct transfer *t)
{
	u32 index = many_index(c, t->tid, t->base, t->len);
	u64 at = t->base + (u64)index * sizeof(struct mmsghdr);
	struct user_msghdr msg = {};

	if (c->many_moved)
		t->flags |= IO_RECORD_SAME_CALL;
	c->many_moved = 1;
	if (t->dir && !bpf_probe_read_user(&msg, sizeof(msg), (const void *)at) &&
	    message_length(&msg) > (u64)t->result)
		c->many_next = 0;
	t->base = at;
	t->buffers = BUFFERS_MESSAGE;
}

/* A message that is not reported: it is passed, or (an error) the call stopped with it. */
static __always_inline void many_unreported(u64 sk, u64 vector, u32 count, u32 tid, s32 result)
{
	struct conn_state *c = bpf_map_lookup_elem(&conns, &sk);

	if (!c)
		return;
	if (result < 0)
		c->many_next = 0;
	else
		many_index(c, tid, vector, count);
}

#endif
