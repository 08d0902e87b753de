/*
 * Puts a traceparent into HTTP/1.1 requests that traced processes send: an sk_msg program sees what
 * a socket of the table sends before it is queued, in the context of who sends it. It follows the
 * messages by sequence numbers and writes only behind the request line of a head that it has seen
 * whole. Invariant: of a message that is not certain to begin here nothing is changed, and what the
 * process is told of its send is what it would have been told without us.
 */
#define PROGRAM_OF_NETWORK
#include "avoided.bpf.h"
#include "chunks.bpf.h"
#include "header.bpf.h"
#include "option.bpf.h"

/* linux/bpf.h, ABI. */
enum { BPF_SOCK_OPS_HDR_OPT_LEN_CB = 14, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG = 64 };

/* Keyed by cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, INJECTION_SOCKETS_MAX);
	__type(key, u64);
	__type(value, u64);
} sockets SEC(".maps");

/* The ids of the agent's own trial. */
static const struct trace_ids trial_ids = {
	.trace_id = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
	.span_id = { 1, 1, 1, 1, 1, 1, 1, 1 },
	.trace_flags = 1,
};

/* The socket leaves the table: at once in effect, and the agent takes it out. */
static __always_inline void socket_leaves(struct injection *in, bool urgent)
{
	u64 pid_tid = bpf_get_current_pid_tgid();

	in->flags |= INJECTION_LEFT;
	if (!(in->flags & INJECTION_TEST))
		emit_task(RECORD_RELEASE, pid_tid >> 32, (u32)pid_tid, 0, in->socket, urgent);
}

/* --- requests --------------------------------------------------------------------------------- */

/* Why a request gets no header; DROP_KERNEL_COUNT: it may get one. *ret_leave: none behind it will
 * either. */
static __always_inline u32 header_refused(const struct tcp_sock *tp, const struct head *h, u32 size,
					  u32 process, bool *ret_leave)
{
	bool blocks = !socket_nonblocking(tp);
	/* Where the other end speaks first it isn't HTTP, whatever is said to it then. */
	bool special = socket_special(tp) || (!tp->bytes_sent && tp->bytes_received) ||
		       sends_by_ring(process);

	*ret_leave = (h->seen & (HEAD_COMPLETE | HEAD_HTTP11 | HEAD_ODD)) !=
			     (HEAD_COMPLETE | HEAD_HTTP11) ||
		     blocks || special || (h->seen & HEAD_UPGRADE) ||
		     (socket_collects(tp) && size > WHOLE_MAX - HEADER_BYTES);
	if (special)
		return DROP_HEADER_FAILED;
	if (blocks)
		return DROP_HEADER_BLOCKING;
	if (*ret_leave || !header_fits(tp, h))
		return DROP_HEADER_SHAPE;
	return socket_busy(tp) ? DROP_HEADER_BUSY : DROP_KERNEL_COUNT;
}

/* The call that begins here: the state of its connection, NULL where nothing is to be told. */
static __noinline struct conn_state *message_call(const struct tcp_sock *tp, u32 process)
{
	const struct sock *sk = (const void *)tp;
	u64 pid_tid = bpf_get_current_pid_tgid(), key = (u64)tp;
	struct call_moment m = { .pid = pid_tid >> 32, .tid = (u32)pid_tid, .process = process };
	struct conn_state *c = bpf_map_lookup_elem(&conns, &key);
	u8 muted;

	if (!c)
		c = conn_create(key, sk->__sk_common.skc_family, 0);
	if (!c || conn_ignored(c))
		return 0;
	m.seq = tp->write_seq;
	if (c->call.begun && c->call.seq == m.seq)
		return c; /* it was tried before */
	m.turn = current_turn();
	m.peer_seq = stream_read(tp->copied_seq, tp->rcv_nxt, sk->__sk_common.skc_flags);
	m.http = true;
	muted = c->call.muted;
	call_begin(c, &m);
	if (c->dir == IO_RECORD_SEND)
		c->call.muted = muted; /* the answer before is still to come */
	return c;
}

/* A header for the call on `c`, if nothing speaks against it. -2 as header_put(). */
static __always_inline int call_header(struct sk_msg_md *msg, struct conn_state *c,
				       const struct head *h, u32 refused, bool collects)
{
	int err;

	if (h->seen & HEAD_TRACEPARENT) {
		c->call.flags |= REQUEST_OWN;
		return -1;
	}
	if (refused == DROP_KERNEL_COUNT && !(c->call.flags & REQUEST_FIXED))
		refused = DROP_HEADER_UNBOUND;
	if (refused != DROP_KERNEL_COUNT) {
		count_drop(refused);
		return -1;
	}
	err = header_put(msg, h, &c->call.ids, collects);
	if (err) {
		count_drop(DROP_HEADER_FAILED);
		return err;
	}
	c->call.flags |= REQUEST_INJECTED;
	c->call.added = HEADER_BYTES;
	return 0;
}

/* The message whose head is `h`, its first byte number `seq`: up to where it is understood. */
static __always_inline void message_follow(struct sk_msg_md *msg, struct injection *in,
					   const struct head *h, u32 seq)
{
	in->known = seq + h->end + (u32)h->length;
	if (h->seen & HEAD_CHUNKED) {
		in->phase = INJECTION_SIZE;
		in->left = 0;
		if (message_chunks(msg, in, h->end, seq))
			socket_leaves(in, false);
	}
}

/* A message begins with the first byte of `msg`. */
static __noinline int message_begins(struct sk_msg_md *msg, struct tcp_sock *tp,
				     struct injection *in)
{
	u32 seq = tp->write_seq, process = traced_flags(bpf_get_current_pid_tgid() >> 32);
	struct conn_state *c = 0;
	bool leave, collects = socket_collects(tp);
	struct head h = {};
	u32 refused;
	int err = -1;

	if (collects)
		bpf_msg_pull_data(msg, 0, msg->size, 0);
	if (message_head(msg, &h)) {
		option_never(tp);
		socket_leaves(in, false);
		return SK_PASS;
	}
	refused = header_refused(tp, &h, msg->size, process, &leave);
	if (in->flags & INJECTION_TEST) {
		if (refused == DROP_KERNEL_COUNT && !(h.seen & HEAD_TRACEPARENT))
			err = header_put(msg, &h, &trial_ids, collects);
	} else if (process && !(process & TRACED_SILENT)) {
		c = message_call(tp, process);
		if (c && leave)
			c->call.refused = refused;
		if (c && (process & TRACED_INJECT))
			err = call_header(msg, c, &h, refused, collects);
		if (c && err)
			option_begins(tp, &c->call, process, msg->size);
	}
	if (err == -2)
		return SK_DROP;
	if (leave) {
		socket_leaves(in, refused == DROP_HEADER_BLOCKING);
		return SK_PASS;
	}
	h.end += err ? 0 : HEADER_BYTES;
	message_follow(msg, in, &h, seq);
	return SK_PASS;
}

/* --- adopted ---------------------------------------------------------------------------------- */

/*
 * A connection may be taken over within a message: while its answer is awaited, while a body waits
 * for its 100 Continue or for room. So what is sent first may be the rest of a body, and look like
 * a request. It is believed to be one when it is followed to its end, nothing is received
 * before that and something behind it, and only then is the next one changed.
 */

/* A message may begin: where it seems to it is followed, and neither changed nor reported here. */
static __noinline int message_seems(struct sk_msg_md *msg, struct tcp_sock *tp,
				    struct injection *in)
{
	u64 pid = bpf_get_current_pid_tgid() >> 32;
	const struct sock *sk = (const void *)tp;
	bool blocks = !socket_nonblocking(tp), leave = false;
	u8 before = in->flags;
	struct head h = {};

	in->phase = INJECTION_ADOPTED;
	in->flags = INJECTION_WITHIN;
	/* Who was accepted shows it though nobody listens any more. */
	if (blocks || sk->sk_max_ack_backlog || peer_avoided(sk, pid)) {
		socket_leaves(in, blocks);
		return SK_PASS;
	}
	if (before && tp->rcv_nxt == in->heard)
		return SK_PASS; /* nothing was received: the message goes on */
	in->heard = tp->rcv_nxt;
	if (message_head(msg, &h)) {
		if (before & INJECTION_WITHIN)
			socket_leaves(in, false); /* and another one: it is no HTTP/1 */
		return SK_PASS;
	}
	header_refused(tp, &h, msg->size, traced_flags(pid), &leave);
	if (leave) {
		socket_leaves(in, false);
		return SK_PASS;
	}
	in->phase = INJECTION_START;
	in->flags = INJECTION_DOUBTED;
	message_follow(msg, in, &h, tp->write_seq);
	return SK_PASS;
}

/* Is what seemed to begin a message still like one, now that more is sent? */
static __always_inline bool message_holds(const struct tcp_sock *tp, const struct injection *in)
{
	if (in->phase != INJECTION_START || in->known != tp->write_seq)
		return tp->rcv_nxt == in->heard;
	/* It has ended: it arrived, and was answered, and that was read. */
	return tp->rcv_nxt != in->heard && tp->copied_seq == tp->rcv_nxt && !socket_busy(tp);
}

/* --- where messages begin --------------------------------------------------------------------- */

static __always_inline int message_seen(struct sk_msg_md *msg)
{
	struct bpf_sock *sk = msg->sk;
	struct injection *in;
	struct tcp_sock *tp;
	u32 seq, ahead;

	tp = sk ? bpf_skc_to_tcp_sock(sk) : 0;
	in = sk ? bpf_sk_storage_get(&injections, sk, 0, 0) : 0;
	if (!tp || !in || (in->flags & INJECTION_LEFT))
		return SK_PASS;
	if (in->phase == INJECTION_ADOPTED ||
	    ((in->flags & INJECTION_DOUBTED) && !message_holds(tp, in)))
		return message_seems(msg, tp, in);
	seq = tp->write_seq;
	if (in->phase < INJECTION_START) {
		in->phase = INJECTION_START;
		in->known = seq;
	}
	ahead = in->known - seq;
	if ((s32)ahead >= (s32)msg->size)
		return SK_PASS;
	if (in->phase == INJECTION_START && !ahead) {
		in->flags &= ~INJECTION_DOUBTED;
		return message_begins(msg, tp, in);
	}
	/* Bytes went by unseen (the program isn't asked when a send that failed is tried again), or
	 * several messages are sent as one: where they begin isn't certain any more. */
	if ((s32)ahead < 0 || in->phase == INJECTION_START || message_chunks(msg, in, ahead, seq))
		socket_leaves(in, false);
	return SK_PASS;
}

SEC("sk_msg")
int inject_header(struct sk_msg_md *msg)
{
	return message_seen(msg);
}

/* --- the table -------------------------------------------------------------------------------- */

/* In the process: it connects. */
static __always_inline void socket_connects(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();
	u32 process = traced_flags(BPF_CORE_READ(task, tgid));
	const struct tcp_sock *tp;
	struct injection *in;

	if (!(process & TRACED_INJECT) || (process & TRACED_SILENT) || sends_by_ring(process))
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || socket_special(tp) || !socket_nonblocking(tp) ||
	    peer_avoided((const struct sock *)tp, BPF_CORE_READ(task, tgid)))
		return;
	in = bpf_sk_storage_get(&injections, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!in)
		return;
	in->socket = bpf_get_socket_cookie(ops);
	in->phase = INJECTION_NEW;
}

static __always_inline void socket_connected(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct injection *in = bpf_sk_storage_get(&injections, sk, 0, 0);
	const struct tcp_sock *tp;
	u64 key;

	if (!in || in->phase != INJECTION_NEW)
		return;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || socket_busy(tp) || !socket_nonblocking(tp))
		return;
	in->known = tp->write_seq;
	in->phase = INJECTION_START;
	key = in->socket;
	if (bpf_sock_hash_update(ops, &sockets, &key, BPF_NOEXIST))
		in->flags |= INJECTION_LEFT; /* another table has it, or ours is full */
	else
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags |
						       BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/*
 * TCP is about to send: asked for its options, though none is wanted, since this is the one place
 * where a socket can be taken out within the very send that has shown that it must go, and one that
 * blocks by now (where a receive in the table would be disturbed by signals) is found out with any
 * segment.
 */
static __always_inline void socket_sends(struct bpf_sock_ops *ops, struct bpf_sock *sk)
{
	struct injection *in = bpf_sk_storage_get(&injections, sk, 0, 0);
	const struct tcp_sock *tp;
	u64 key;

	if (!in || in->phase < INJECTION_START)
		return;
	tp = in->flags & INJECTION_LEFT ? 0 : bpf_skc_to_tcp_sock(sk);
	if (tp && socket_nonblocking(tp))
		return;
	in->flags |= INJECTION_LEFT;
	key = in->socket;
	bpf_map_delete_elem(&sockets, &key);
	bpf_sock_ops_cb_flags_set(ops,
				  ops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

SEC("sockops")
int inject_socket(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	if (!sk)
		return 1;
	if (ops->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		socket_connects(ops, sk);
	else if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		socket_connected(ops, sk);
	else if (ops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		socket_sends(ops, sk);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
