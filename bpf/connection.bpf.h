/*
 * What both collectors share: the state of a connection, and turning one transfer into records. A
 * transfer is a list of user buffers; each piece becomes one record with as much of its bytes as
 * the connection's budget allows, so that user space can follow the stream by length whatever was
 * captured.
 */
#ifndef SPANLOOM_CONNECTION_BPF_H
#define SPANLOOM_CONNECTION_BPF_H

#include "call.bpf.h"
#include "many.bpf.h"
#include "request.bpf.h"
#include "runtime.bpf.h"
#include "transfer.bpf.h"

enum { MISSED_REPORT_MAX = 1 << 30 };
enum { ERRNO_EINTR = 4, ERRNO_EAGAIN = 11, ERRNO_EINPROGRESS = 115, ERRNO_RESTART_FIRST = 512 };

static __always_inline void conn_addresses(struct conn_record *r, const struct sock *sk, u16 family)
{
	r->family = family;
	if (family == AF_UNIX) {
		const struct unix_sock *u = (const void *)sk;

		*(u64 *)r->local = (u64)sk;
		*(u64 *)r->peer = (u64)BPF_CORE_READ(u, peer);
		return;
	}
	if (family == AF_INET) {
		*(u32 *)r->local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		*(u32 *)r->peer = BPF_CORE_READ(sk, __sk_common.skc_daddr);
	} else if (family == AF_INET6) {
		BPF_CORE_READ_INTO(&r->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&r->peer, sk, __sk_common.skc_v6_daddr);
	}
	r->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	r->peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

static __always_inline struct conn_record *conn_record_reserve(u8 type, u64 conn_id, u32 pid,
							       u32 tid)
{
	struct conn_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);

	if (!r) {
		ring_lost();
		return 0;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->type = type;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->conn_id = conn_id;
	r->pid = pid;
	r->tid = tid;
	return r;
}

/* Nothing but whole exchanges are missing: nobody needs to know. */
static __always_inline void conn_in_step(struct conn_state *c)
{
	c->missed[0] = c->missed[1] = 0;
}

/*
 * emit.bpf.c, functions that the verifier looks at once for each program, apart from who calls.
 * conn_look: what the connection's first transfer shows. emit_open: tells the agent of it, once, at
 * the first transfer that is reported; emit_io: of one piece, `result` bytes (or errno) of which
 * the first `want` at `addr` are captured; both -1 when there was no room. emit_buffers: of all
 * bytes of a transfer. emit_missed: of those that could not be told of when the ring was full, so
 * that lengths stay in step.
 */
extern int conn_look(struct conn_state *c, const struct transfer *t);
extern int emit_open(struct conn_state *c, const struct transfer *t);
extern int emit_io(struct conn_state *c, const struct transfer *t, u64 addr, s32 result, u32 want);
extern int emit_buffers(struct conn_state *c, struct transfer *t);
extern int emit_missed(struct conn_state *c, const struct transfer *t);

/* As emit_open(). */
static __noinline int conn_announce(struct conn_state *c, const struct transfer *t)
{
	return emit_open(c, t);
}

/* What a new one is a copy of: the stack has no room for it (512 bytes in all before 6.13). */
static const struct conn_state conn_fresh = { .dir = 0xff };

static __noinline struct conn_state *conn_create(u64 sk, u16 family, u64 inode)
{
	struct conn_state *c;

	if (bpf_map_update_elem(&conns, &sk, (void *)&conn_fresh, BPF_ANY)) {
		count_drop(DROP_CONN_TABLE_FULL);
		return 0;
	}
	c = bpf_map_lookup_elem(&conns, &sk);
	if (!c || c->id) /* another thread's */
		return c;
	c->family = family;
	c->inode = inode;
	barrier(); /* with its number it is complete */
	*(volatile u64 *)&c->id = __sync_fetch_and_add(&last_conn_id, 1) + 1;
	return c;
}

static __always_inline bool conn_ignored(const struct conn_state *c)
{
	u32 slot = c->id % IGNORE_SLOTS;
	u64 *id = bpf_map_lookup_elem(&ignore, &slot);

	return id && *id == c->id;
}

static __always_inline void conn_missed(struct conn_state *c, const struct transfer *t, s32 result)
{
	ring_lost();
	if (result > 0)
		__sync_fetch_and_add(&c->missed[t->dir & 1], result);
}

/* Once a piece is missing the ones behind it are as well, or they would be taken for it. */
static __always_inline void conn_missed_rest(struct conn_state *c, const struct transfer *t)
{
	__sync_fetch_and_add(&c->missed[t->dir & 1], t->left);
}

/* The state of the transfer's connection, made where it is new; NULL: it can't be followed, or
 * nobody wants it. */
static __always_inline struct conn_state *conn_of(const struct transfer *t)
{
	struct conn_state *c = bpf_map_lookup_elem(&conns, &t->sk);

	/* Nothing tells of the end of a unix socket, so its address may be another's by now. */
	if (!c || !c->id ||
	    ((t->family == AF_UNIX || c->family == AF_UNIX) && c->inode != t->inode)) {
		c = conn_create(t->sk, t->family, t->inode);
		if (!c)
			return 0;
	}
	return conn_ignored(c) ? 0 : c;
}

/*
 * What the transfer means for the calls that the process makes on this connection. True: it is of
 * one that is not sampled, and not reported.
 */
static __always_inline bool call_muted(struct conn_state *c, struct transfer *t, u8 dir,
				       bool turned)
{
	bool before = c->call.muted, muted = dir ? call_seen(c, t, turned) : before;

	if (!muted && before)
		conn_in_step(c);
	if (muted && !dir && (c->flags & CONN_LATE))
		c->flags |= CONN_LATE_OLD;
	return muted;
}

/* The bytes of what is not reported are missing until the next request or call begins (what is
 * missing then are whole exchanges) or it can't be told where that is. */
static __always_inline void conn_muted(struct conn_state *c, const struct transfer *t)
{
	u32 *missed = &c->missed[t->dir & 1];

	if (t->result > 0 && *missed < MISSED_REPORT_MAX)
		__sync_fetch_and_add(missed, t->result);
}

/* Fills in what the process's runtime says. True: nothing of the transfer is reported. */
static __always_inline bool transfer_meaning(struct conn_state *c, struct transfer *t, u8 dir,
					     bool turned)
{
	bool serves = c->flags & CONN_PASSIVE, muted = false, walks = false;
	struct python_now now = {};

	if (constants.requests && !serves)
		muted = call_muted(c, t, dir, turned);
	if (!muted && (t->traced & TRACED_PYTHON)) {
		walks = transfer_runtime(c, t, dir, &now) && turned && dir;
		if (!dir)
			window_other(t, c->id);
	}
	if (constants.requests && serves)
		muted = dir ? request_sent(c, t) : request_received(c, t);
	if (muted) {
		conn_muted(c, t);
		return true;
	}
	t->state = walks && !conn_unsampled(c, t) ? now.state : 0;
	return false;
}

/* What is known of the connection, made and announced where it is new; NULL: nothing to report.
 * `dir`: as in *t, known to the compiler. */
static __always_inline struct conn_state *transfer_conn(struct transfer *t, u8 dir)
{
	struct conn_state *c = conn_of(t);
	bool turned;

	if (!c)
		return 0;
	if (!t->turn)
		t->turn = current_turn();
	if (!(c->flags & CONN_ANNOUNCED) && t->result < 0)
		return 0;
	if (!(c->flags & CONN_LOOKED))
		conn_look(c, t);
	turned = c->dir != dir;
	if (turned) {
		c->dir = dir;
		c->run_bytes = 0;
	}
	if (transfer_meaning(c, t, dir, turned))
		return 0;
	if (!(c->flags & CONN_ANNOUNCED) && conn_announce(c, t))
		return 0;
	if (c->missed[0] | c->missed[1]) {
		emit_missed(c, t);
		if (c->missed[0] | c->missed[1]) {
			conn_missed(c, t, t->result);
			return 0;
		}
	}
	if (!dir && t->request)
		request_emit(c, t);
	if (dir && t->state)
		runtime_tell(c, t->pid, t->state, t->context, 0);
	if (t->buffers == BUFFERS_MANY && c->many_next && c->many_moved &&
	    c->many_vector == t->base)
		return c; /* what is left of the call's */
	c->budget =
		c->run_bytes < constants.run_bytes ? constants.capture_bytes : constants.tail_bytes;
	return c;
}

/* The one entry: a transfer of a traced process on a stream socket, found by `sk`. */
static __always_inline int transfer_seen(struct transfer *t, u8 dir)
{
	struct conn_state *c = transfer_conn(t, dir);

	if (!c) {
		if (t->buffers == BUFFERS_MANY)
			many_unreported(t->sk, t->base, t->len, t->tid, t->result);
		return 0;
	}
	if (t->result <= 0) {
		c->many_next = 0;
		emit_io(c, t, 0, t->result, 0);
		return 0;
	}
	if (t->buffers == BUFFERS_MANY)
		message_of_many(c, t);
	if (t->buffers == BUFFERS_MESSAGE) {
		struct user_msghdr msg;

		if (bpf_probe_read_user(&msg, sizeof(msg), (const void *)t->base)) {
			count_drop(DROP_READ_FAULT);
			t->buffers = BUFFERS_VECTOR;
			t->len = 0;
		} else {
			t->base = msg.msg_iov;
			t->len = msg.msg_iovlen;
		}
	}
	if (t->buffers == BUFFERS_NONE) {
		count_drop(DROP_NO_BUFFER);
		emit_io(c, t, 0, t->result, 0);
	} else {
		emit_buffers(c, t);
	}
	return 0;
}

#endif
