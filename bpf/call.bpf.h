/*
 * Calls: HTTP/1 requests that a traced process sends on a connection it made. A call gets its ids
 * where its first bytes are seen first: in bpf/inject.bpf.c before they are queued, or behind the
 * fact by the collector. Its record is written once the bytes are sent, so a send that failed
 * leaves nothing but the ids, which the next try finds. Invariant: a call begins only where no
 * answer is outstanding that we know of.
 */
#ifndef SPANLOOM_CALL_BPF_H
#define SPANLOOM_CALL_BPF_H

#include "joined.bpf.h"
#include "late.bpf.h"
#include "python.bpf.h"
#include "sample.bpf.h"
#include "transfer.bpf.h"
#include "words.bpf.h"

static __noinline int conn_announce(struct conn_state *c, const struct transfer *t);

/* Whether bytes that begin with `word` may begin an HTTP/1 request: a method of RFC 9110 or 5789
 * and a space. CONNECT makes a tunnel, so it is none here. */
static __always_inline bool call_begins_with(u64 word)
{
	u64 three = word & 0xffffffffull, four = word & 0xffffffffffull;
	u64 five = word & 0xffffffffffffull, six = word & 0xffffffffffffffull;

	return three == WORD_OF('G', 'E', 'T', ' ', 0, 0, 0, 0) ||
	       three == WORD_OF('P', 'U', 'T', ' ', 0, 0, 0, 0) ||
	       four == WORD_OF('P', 'O', 'S', 'T', ' ', 0, 0, 0) ||
	       four == WORD_OF('H', 'E', 'A', 'D', ' ', 0, 0, 0) ||
	       five == WORD_OF('P', 'A', 'T', 'C', 'H', ' ', 0, 0) ||
	       five == WORD_OF('T', 'R', 'A', 'C', 'E', ' ', 0, 0) ||
	       six == WORD_OF('D', 'E', 'L', 'E', 'T', 'E', ' ', 0) ||
	       word == WORD_OF('O', 'P', 'T', 'I', 'O', 'N', 'S', ' ');
}

/* Who sends, and where in the streams. */
struct call_moment {
	u32 pid, tid;
	u32 process; /* TRACED_* */
	u32 turn;
	u32 seq, peer_seq;
	bool http; /* else bytes of another protocol: only whether they are reported is decided */
};

/* As owner_of(); bytes that were written before, by several contexts, are nobody's. */
static __always_inline int call_owner(const struct conn_state *c, const struct call_moment *m,
				      struct owner *ret)
{
	u64 context = 0;

	if (m->process & TRACED_PYTHON) {
		if (c->flags & CONN_LATE) {
			context = late_waiting(c, m->pid);
			if (!context)
				return 0;
		} else {
			context = python_context(m->pid);
		}
	}
	return owner_of(m->pid, m->tid, m->process, context, m->turn, ret);
}

/* The trace has no beginning that we know of: its id decides. */
static __always_inline void call_fixes(struct call_state *call, u32 process)
{
	call->ids.flags |= IDS_FIXED;
	if (!root_sampled(process, call->ids.trace_id))
		return;
	call->ids.flags |= IDS_SAMPLED;
	call->ids.trace_flags = TRACE_FLAG_SAMPLED;
}

/* Is the trace to be named to others here, while nobody knows yet whose it is? */
static __always_inline bool call_names(const struct call_moment *m, const struct owner *o)
{
	return constants.inject && (m->process & TRACED_INJECT) && (o->ids.flags & IDS_FLOATING) &&
	       owner_trusted(m->process, o);
}

/* The call's trace: its owner's; else, in a process that serves nobody, one that begins here. */
static __always_inline void call_trace(struct call_state *call, const struct call_moment *m,
				       const struct owner *o, int known)
{
	bool named = known == 1 && call_names(m, o);

	call->ids.flags = IDS_KNOWN;
	call->ids.trace_flags = 0;
	call->flags = 0;
	__builtin_memset(call->parent, 0, sizeof(call->parent));
	if (known) {
		__builtin_memcpy(call->parent, o->ids.span_id, TRACE_CONTEXT_SPAN_BYTES);
		call->flags = REQUEST_BOUND;
	}
	if (known == 2 || named) {
		__builtin_memcpy(call->ids.trace_id, o->ids.trace_id, TRACE_CONTEXT_ID_BYTES);
		call->ids.trace_flags = o->ids.trace_flags;
	} else {
		/* Whose it only seems to be may be another's, and it would stay in that trace. */
		ids_random(call->ids.trace_id, TRACE_CONTEXT_ID_BYTES);
	}
	if (known == 2) {
		call->ids.flags |= o->ids.flags & (IDS_FIXED | IDS_SAMPLED);
	} else if (named) {
		call_fixes(call, m->process);
		call->ids.flags |= IDS_FLOATING;
	} else if (!known && !(m->process & TRACED_SERVES)) {
		call_fixes(call, m->process);
	} else if (!known && !(m->process & TRACED_PYTHON)) {
		call->ids.flags |= IDS_FLOATING;
	}
	if (call->ids.flags & IDS_FIXED)
		call->flags |= REQUEST_FIXED;
	if (call->ids.flags & IDS_SAMPLED)
		call->flags |= REQUEST_SAMPLED;
}

/* Bytes that ask for something begin to be sent: ids, the entry for the other end, and whether any
 * of it is reported. */
static __noinline int call_begin(struct conn_state *c, const struct call_moment *m)
{
	struct call_state *call = &c->call;
	struct owner o = {};
	int known = call_owner(c, m, &o);
	bool before = call->muted;

	if (!m->http) {
		call->flags = 0;
		call->muted = constants.mute && known == 2 && !(o.ids.flags & IDS_SAMPLED);
		return 0;
	}
	call_trace(call, m, &o, known);
	ids_random(call->ids.span_id, TRACE_CONTEXT_SPAN_BYTES);
	call->seq = m->seq;
	call->peer_seq = m->peer_seq;
	call->start_ns = bpf_ktime_get_ns();
	call->added = 0;
	call->begun = 1;
	/* Where the trace was fixed here, user space has to hear of it. */
	call->muted = constants.mute && !(m->process & TRACED_APART) &&
		      !(call->ids.flags & IDS_FLOATING) &&
		      (call->flags & (REQUEST_FIXED | REQUEST_SAMPLED)) == REQUEST_FIXED;
	if (before && !call->muted) /* whole exchanges are missing, so what comes is in step */
		c->missed[0] = c->missed[1] = 0;
	/* Its spans may be left out, and then nobody must be their child. */
	if (!(m->process & TRACED_APART))
		call_tell_other_end(call);
	return 0;
}

static __noinline int emit_call(const struct conn_state *c, const struct transfer *t)
{
	const struct call_state *call = &c->call;
	struct request_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);

	if (!r) {
		ring_lost();
		return 0;
	}
	r->type = RECORD_REQUEST;
	r->flags = call->flags;
	r->trace_flags = call->ids.trace_flags;
	r->added = call->added;
	r->losses = ring_losses;
	r->ts_ns = call->start_ns;
	r->conn_id = c->id;
	r->pid = t->pid;
	r->tid = t->tid;
	r->tcp_seq = call->seq;
	r->tcp_peer_seq = call->peer_seq;
	__builtin_memcpy(r->trace_id, call->ids.trace_id, sizeof(r->trace_id));
	__builtin_memcpy(r->span_id, call->ids.span_id, sizeof(r->span_id));
	__builtin_memcpy(r->parent_span_id, call->parent, sizeof(r->parent_span_id));
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

/* The first eight bytes that were sent; 0 when there aren't as many in the first two buffers, or
 * which they are isn't known. Alone for the sake of the stack. */
static __noinline u64 transfer_word(const struct transfer *t)
{
	u64 base = t->base, count = t->len, word = 0;
	struct iovec iov = { .iov_base = t->base, .iov_len = t->len };
	struct user_msghdr msg;
	int i;

	if (t->buffers == BUFFERS_MESSAGE) {
		if (bpf_probe_read_user(&msg, sizeof(msg), (const void *)t->base))
			return 0;
		base = msg.msg_iov;
		count = msg.msg_iovlen;
	} else if (t->buffers == BUFFERS_NONE || t->buffers == BUFFERS_MANY) {
		return 0;
	}
	for (i = 0; i < 2 && t->buffers != BUFFERS_ONE; i++) {
		if ((u32)i >= count ||
		    bpf_probe_read_user(&iov, sizeof(iov), (const void *)(base + i * sizeof(iov))))
			return 0;
		if (iov.iov_len)
			break;
	}
	if (iov.iov_len < sizeof(word) || t->result < (s32)sizeof(word) ||
	    bpf_probe_read_user(&word, sizeof(word), (const void *)iov.iov_base))
		return 0;
	return word;
}

/* A call goes out whose socket is not in the table. (What is known of a send doesn't say whether it
 * blocks: the socket's tracepoint is told no flags.) */
static __always_inline void call_without_header(const struct conn_state *c, u32 process,
						const struct sock *sk)
{
	u32 reason = c->call.refused;

	if (!constants.inject || !(process & TRACED_INJECT))
		return;
	if (!reason)
		reason = BPF_CORE_READ(sk, sk_socket, file, f_flags) & O_NONBLOCK
				 ? DROP_HEADER_FAILED
				 : DROP_HEADER_BLOCKING;
	count_drop(reason);
}

/* Behind the fact, where no program saw the bytes before. */
static __always_inline void call_begin_behind(struct conn_state *c, const struct transfer *t)
{
	struct call_moment m = {
		.pid = t->pid,
		.tid = t->tid,
		.process = t->traced,
		.turn = t->turn,
		.seq = t->tcp_seq,
		.peer_seq = t->tcp_peer_seq,
		.http = call_begins_with(transfer_word(t)),
	};

	call_begin(c, &m);
	if (m.http && t->family != AF_UNIX)
		call_without_header(c, t->traced, (const struct sock *)t->sk);
}

/*
 * Behind a send of a traced process on a connection that it made; `turned`: the first one since
 * something was received. Announces the connection when it has something to report. 1: nothing of
 * this transfer is reported, nor of what is received from here to the next one that turned (c->dir
 * must follow all the same).
 */
static __always_inline int call_seen(struct conn_state *c, struct transfer *t, bool turned)
{
	struct call_state *call = &c->call;
	u32 sent = t->result;

	if (!constants.requests)
		return 0;
	if (t->result <= 0)
		return call->muted;
	if (!call->begun && !turned)
		return call->muted;
	if (!call->begun)
		call_begin_behind(c, t);
	if (call->muted)
		c->flags &= ~(CONN_LATE | CONN_LATE_OLD);
	if (!call->begun)
		return call->muted;
	call->begun = 0;
	if (t->tcp_seq - call->added == call->seq)
		t->tcp_seq = call->seq;
	else
		call->added = 0; /* it did not go out after all */
	if (call->muted) {
		count_drop(DROP_UNSAMPLED);
		return 1;
	}
	t->result = sent + call->added;
	if ((c->flags & CONN_ANNOUNCED) || !conn_announce(c, t))
		emit_call(c, t);
	t->result = sent;
	return 0;
}

#endif
