/*
 * What is told of connections and their bytes: RECORD_CONN_OPEN, RECORD_IO. A piece of a transfer
 * is one record, in the smallest of four sizes, filled straight from the process's memory.
 * Invariant: a record that finds no room is counted, and its bytes with its connection.
 */
#include "connection.bpf.h"

/* The listener's path: an accepted socket has it as its own, a connecting one finds it at its peer.
 */
static __always_inline void conn_unix_path(struct conn_record *r, const struct sock *sk)
{
	const struct unix_sock *u = (const void *)sk;
	struct unix_address *addr = BPF_CORE_READ(u, addr);
	int len;

	if (addr) {
		r->flags |= CONN_RECORD_PASSIVE;
	} else {
		const struct unix_sock *peer = (const void *)BPF_CORE_READ(u, peer);

		if (!peer)
			return;
		addr = BPF_CORE_READ(peer, addr);
		if (!addr) /* a socketpair: nobody connected */
			return;
		r->flags |= CONN_RECORD_ACTIVE;
	}
	len = BPF_CORE_READ(addr, len) - (int)sizeof(u16);
	if (len <= 0)
		return;
	if (len > (int)sizeof(r->path))
		len = sizeof(r->path);
	r->path_len = len;
	bpf_probe_read_kernel(r->path, sizeof(r->path),
			      (const char *)addr +
				      bpf_core_field_offset(struct unix_address, name) +
				      sizeof(u16));
}

/*
 * Was this the first transfer of its connection? What was received counts when it is read, what was
 * sent when it is written, so that what still waits in the kernel's queues is left out.
 */
static __always_inline bool transfer_is_first(const struct conn_state *c, const struct transfer *t,
					      const struct sock *sk)
{
	const struct tcp_sock *tp = (const void *)sk;
	u64 received, sent, moved = t->result > 0 ? t->result : 0;

	if (t->family == AF_UNIX || BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP)
		return false;
	received = BPF_CORE_READ(tp, bytes_received);
	sent = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);
	if (t->dir) {
		u32 unsent = BPF_CORE_READ(tp, write_seq) - BPF_CORE_READ(tp, snd_nxt);

		return !received && sent + unsent == moved + c->call.added;
	} else {
		u32 unread = BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq);

		return !sent && received - unread == moved;
	}
}

/* What a connection's first transfer shows. */
__noinline int conn_look(struct conn_state *c, const struct transfer *t)
{
	const struct unix_sock *u;
	const struct sock *sk;
	bool passive;

	if (!c || !t)
		return 0;
	sk = (const void *)t->sk;
	u = (const void *)sk;
	/* Only listen() sets the backlog, and an accepted socket is a copy of its listener. An
	 * accepted unix socket has the listener's path as its own. */
	passive = t->family == AF_UNIX
			  ? BPF_CORE_READ(u, addr) != 0
			  : !(c->flags & CONN_ACTIVE) && BPF_CORE_READ(sk, sk_max_ack_backlog);
	c->flags |= CONN_LOOKED;
	if (passive)
		c->flags |= CONN_PASSIVE;
	if (t->family == AF_UNIX || transfer_is_first(c, t, sk))
		c->flags |= CONN_FIRST;
	return 0;
}

__noinline int emit_open(struct conn_state *c, const struct transfer *t)
{
	const struct sock *sk;
	struct conn_record *r;

	if (!c || !t)
		return -1;
	sk = (const void *)t->sk;
	if (!(c->flags & CONN_LOOKED))
		conn_look(c, t);
	r = conn_record_reserve(RECORD_CONN_OPEN, c->id, t->pid, t->tid);
	if (!r) {
		c->flags &= ~CONN_FIRST;
		return -1;
	}
	conn_addresses(r, sk, t->family);
	if (t->family == AF_UNIX)
		conn_unix_path(r, sk);
	else if (c->flags & CONN_FIRST)
		r->flags |= CONN_RECORD_FRESH; /* whatever was left out were whole exchanges */
	if (c->flags & CONN_ACTIVE)
		r->flags |= CONN_RECORD_ACTIVE;
	else if (c->flags & CONN_PASSIVE)
		r->flags |= CONN_RECORD_PASSIVE;
	r->turn = t->turn;
	r->connect_context = c->connect_context;
	if (c->connect_tid == t->tid)
		r->connect_turn = c->connect_turn;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	c->flags |= CONN_ANNOUNCED;
	return 0;
}

static __always_inline void io_fill(struct io_record *r, const struct conn_state *c,
				    const struct transfer *t, s32 result)
{
	r->type = RECORD_IO;
	r->flags = t->flags | t->dir;
	r->captured = 0;
	r->result = result;
	r->ts_ns = bpf_ktime_get_ns();
	r->conn_id = c->id;
	r->pid = t->pid;
	r->tid = t->tid;
	r->tcp_seq = t->tcp_seq;
	r->tcp_peer_seq = t->tcp_peer_seq;
	r->losses = ring_losses;
	r->syscall = t->syscall;
	r->turn = t->turn;
	r->pad = 0;
	r->context = t->context;
}

/* One record of a class, filled from user memory; `want` <= size. Both are known to the compiler as
 * bounded. */
#define EMIT_CLASS(size)                                                                        \
	do {                                                                                    \
		struct {                                                                        \
			struct io_record head;                                                  \
			u8 data[size];                                                          \
		} *rec = bpf_ringbuf_reserve(&ring, sizeof(struct io_record) + (size), 0);      \
		if (!rec) {                                                                     \
			conn_missed(c, t, result);                                              \
			return -1;                                                              \
		}                                                                               \
		io_fill(&rec->head, c, t, result);                                              \
		if (want) {                                                                     \
			if (bpf_probe_read_user(rec->data,                                      \
						want & ((size)-1) ? want & ((size)-1) : (size), \
						(const void *)addr))                            \
				count_drop(DROP_READ_FAULT);                                    \
			else                                                                    \
				rec->head.captured = want;                                      \
		}                                                                               \
		bpf_ringbuf_submit(rec, ring_wake_flags());                                     \
		return 0;                                                                       \
	} while (0)

/* `result` bytes (or errno) of which the first `want` at `addr` are captured. */
__noinline int emit_io(struct conn_state *c, const struct transfer *t, u64 addr, s32 result,
		       u32 want)
{
	if (!c || !t)
		return -1;
	if (want <= IO_CLASS_0)
		EMIT_CLASS(IO_CLASS_0);
	if (want <= IO_CLASS_1)
		EMIT_CLASS(IO_CLASS_1);
	if (want <= IO_CLASS_2)
		EMIT_CLASS(IO_CLASS_2);
	if (want > IO_CLASS_3)
		want = IO_CLASS_3;
	EMIT_CLASS(IO_CLASS_3);
}

/* The next buffer of a vector; false at its end. */
static __always_inline bool vector_next(const struct transfer *t, u32 i, u64 *addr, u32 *len)
{
	struct iovec iov;

	if (i >= t->len)
		return false;
	if (bpf_probe_read_user(&iov, sizeof(iov), (const void *)(t->base + i * sizeof(iov)))) {
		count_drop(DROP_READ_FAULT);
		return false;
	}
	*addr = iov.iov_base;
	*len = iov.iov_len < t->left ? iov.iov_len : t->left;
	return true;
}

/* One piece: what is left of the current buffer, or as much of it as the largest record takes.
 * False: it found no room. */
static __always_inline bool emit_piece(struct conn_state *c, struct transfer *t, u64 *addr,
				       u32 *len, bool last)
{
	u32 want = *len < c->budget ? *len : c->budget, piece = *len;

	if (want > IO_CLASS_3) {
		want = IO_CLASS_3;
		if (!last) /* which takes the rest by length */
			piece = IO_CLASS_3;
	}
	t->left -= piece;
	if (emit_io(c, t, *addr, piece, want))
		return false;
	t->flags |= IO_RECORD_SAME_CALL;
	t->tcp_seq += piece;
	c->budget -= want;
	c->run_bytes += want;
	*addr += piece;
	*len -= piece;
	return true;
}

__noinline int emit_buffers(struct conn_state *c, struct transfer *t)
{
	u32 len = 0, next = 0;
	u64 addr = 0;
	int i;

	if (!c || !t)
		return 0;
	t->left = t->result;
	if (t->buffers == BUFFERS_ONE) {
		addr = t->base;
		len = t->result;
	}
	for (i = 0; i < PIECES_MAX; i++) {
		if (!t->left)
			return 0;
		if (!len && (t->buffers == BUFFERS_ONE || !vector_next(t, next++, &addr, &len)))
			break;
		if (len && !emit_piece(c, t, &addr, &len, i == PIECES_MAX - 1)) {
			conn_missed_rest(c, t);
			return 0;
		}
	}
	if (!t->left)
		return 0;
	if (i == PIECES_MAX)
		count_drop(DROP_VECTOR_LONG);
	emit_io(c, t, 0, t->left, 0);
	return 0;
}

__noinline int emit_missed(struct conn_state *c, const struct transfer *t)
{
	struct transfer gap;
	int i;

	if (!c || !t)
		return 0;
	gap = *t;
	gap.context = 0;
	for (i = 0; i < 2; i++) {
		u32 bytes = c->missed[i];

		if (!bytes)
			continue;
		if (bytes > MISSED_REPORT_MAX)
			bytes = MISSED_REPORT_MAX;
		__sync_fetch_and_sub(&c->missed[i], bytes);
		gap.dir = i;
		gap.flags = IO_RECORD_LOST;
		gap.tcp_seq = 0;
		emit_io(c, &gap, 0, bytes, 0);
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
