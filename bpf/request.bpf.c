/*
 * HTTP/1 requests that a process receives: where one begins, whose trace it belongs to, whether
 * that is kept, when its answer begins. Invariant: a connection has one request at a time; where
 * that can't be told any more, nothing is claimed of it.
 */
#include "connection.bpf.h"
#include "option.bpf.h"
#include "request_head.bpf.h"

#define BODY_UNKNOWN (~0ull)

/* False: they are not known. */
static __always_inline bool pieces_of(const struct transfer *t, struct pieces *p)
{
	struct user_msghdr msg;

	p->left = t->result;
	p->vector = p->addr = p->count = p->len = 0;
	switch (t->buffers) {
	case BUFFERS_ONE:
		p->addr = t->base;
		p->len = t->result;
		return true;
	case BUFFERS_VECTOR:
		p->vector = t->base;
		p->count = t->len;
		return true;
	case BUFFERS_MESSAGE:
		if (bpf_probe_read_user(&msg, sizeof(msg), (const void *)t->base))
			return false;
		p->vector = msg.msg_iov;
		p->count = msg.msg_iovlen;
		return true;
	}
	return false;
}

/* Goes to the next buffer where the current one is empty. False: it can't be read. */
static __always_inline bool pieces_next(struct pieces *p)
{
	struct iovec iov;

	if (p->len)
		return true;
	if (!p->count || bpf_probe_read_user(&iov, sizeof(iov), (const void *)p->vector))
		return false;
	p->count--;
	p->vector += sizeof(iov);
	p->addr = iov.iov_base;
	p->len = iov.iov_len < p->left ? iov.iov_len : p->left;
	return true;
}

struct first_bytes {
	u64 words[2];
};

/* The first bytes of a transfer, as in memory, and how many of them there are: where the first
 * buffer with bytes holds fewer, not more than those. 0: not known. */
__noinline int transfer_begins(const struct transfer *t, struct first_bytes *ret)
{
	enum { BUFFERS_LOOKED_AT = 4 };
	u64 bytes[2] = {}, n;
	struct pieces p;
	int i;

	if (!t || !ret || !pieces_of(t, &p))
		return 0;
	for (i = 0; i < BUFFERS_LOOKED_AT && !p.len; i++) {
		if (!pieces_next(&p))
			return 0;
	}
	n = p.len < sizeof(bytes) ? p.len : sizeof(bytes);
	barrier_var(n); /* what is compared is what is used */
	if (n > sizeof(bytes) || bpf_probe_read_user(bytes, n, (const void *)p.addr))
		return 0;
	ret->words[0] = bytes[0];
	ret->words[1] = bytes[1];
	return n;
}

static __always_inline bool transfer_is_request(const struct transfer *t)
{
	struct first_bytes begins = {};
	u32 n = transfer_begins(t, &begins);

	return n && http_method(begins.words[0], n);
}

/* Nothing more is claimed of what goes on. `doubt`: nor of what was claimed. `body`: BODY_UNKNOWN
 * when the next answer ends it, 0 when nothing does. */
static __always_inline void request_lost(struct conn_state *c, bool doubt, u64 body)
{
	struct request_state *r = &c->request;

	if (doubt)
		owner_doubt(c->id);
	worker_ends(r->tid);
	r->tid = 0;
	r->ids.flags = 0;
	r->stage = REQUEST_LOST;
	r->muted = 0; /* what was not reported so far is told of as lost */
	r->body = body;
}

/* The next bytes of the head. True: there is no more to do. */
static __always_inline bool head_step(struct head_scan *s)
{
	struct pieces *p = &s->pieces;
	u32 n = 0;

	if (p->verdict != HEAD_AGAIN) {
		if (!p->left || s->found.bytes > HEAD_BYTES_MAX)
			return true;
		if (!pieces_next(p)) {
			p->verdict = HEAD_BAD;
			return true;
		}
		n = p->len < HEAD_CHUNK ? p->len : HEAD_CHUNK;
		p->addr += n;
		p->len -= n;
		p->left -= n;
		if (!n)
			return false;
	}
	p->verdict = request_scan(p->addr - n, n);
	return p->verdict != HEAD_MORE && p->verdict != HEAD_AGAIN;
}

/* Looks at the bytes of a head. HEAD_*, as request_scan(). */
__noinline int head_read(const struct transfer *t)
{
	struct head_scan *s = head_scratch();
	int i;

	if (!t || !s || !pieces_of(t, &s->pieces))
		return HEAD_BAD;
	s->pieces.verdict = HEAD_MORE;
	for (i = 0; i < HEAD_PIECES; i++) {
		if (head_step(s))
			break;
	}
	if (s->found.bytes > HEAD_BYTES_MAX || s->pieces.verdict == HEAD_AGAIN ||
	    (s->pieces.verdict == HEAD_MORE && s->pieces.left))
		return HEAD_BAD;
	return s->pieces.verdict;
}

static __always_inline bool head_resume(struct head_scan *s, u64 conn_id)
{
	const struct head_part *part = bpf_map_lookup_elem(&heads, &conn_id);

	if (!part)
		return false;
	s->found = part->found;
	return !bpf_probe_read_kernel(s->data, sizeof(part->line), part->line);
}

static __always_inline bool head_pause(const struct head_scan *s, u64 conn_id)
{
	return !bpf_map_update_elem(&heads, &conn_id, &s->found, BPF_ANY);
}

/* May the other end be a traced process of this host whose call is not known yet? */
static __always_inline bool caller_may_come(const struct transfer *t)
{
	const struct sock *sk = (const void *)t->sk;
	u64 ours[2], theirs[2];

	if (t->family == AF_UNIX) {
		u32 pid = BPF_CORE_READ(sk, sk_peer_pid, numbers[0].nr);

		return (traced_flags(pid) & (TRACED | TRACED_SILENT)) == TRACED;
	}
	/* Where headers are put into calls, one without is taken for a stranger's: else nothing
	 * that begins here could be named to others. */
	if (constants.calls_early || constants.inject)
		return false;
	if (t->family == AF_INET) {
		u32 from = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		return (from & 0xff) == 127 || from == BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
	}
	BPF_CORE_READ_INTO(&ours, sk, __sk_common.skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&theirs, sk, __sk_common.skc_v6_daddr);
	return ours[0] == theirs[0] && ours[1] == theirs[1];
}

/* Whose trace the request belongs to. `found`: what its head says. Gives REQUEST_* of its record.
 */
static __always_inline u8 request_trace(struct request_state *r, struct transfer *t,
					const struct head_found *found)
{
	struct trace_ids *ids = &r->ids, caller = {};
	const struct trace_ids *remote = &found->ids;
	bool named = found->traceparents == 1 && remote->flags, joined, sampled = false;
	u8 flags = REQUEST_SERVER;

	ids_random(ids->span_id, TRACE_CONTEXT_SPAN_BYTES);
	ids->flags = IDS_KNOWN | IDS_FIXED;
	t->request_parent = 0;
	joined = !named && call_joined(r->seq, r->peer_seq, &caller);
	if (!named && !joined) {
		remote = &caller;
		named = option_received(t->sk, r->seq, &caller);
	}
	if (named) {
		__builtin_memcpy(ids->trace_id, remote->trace_id, TRACE_CONTEXT_ID_BYTES);
		__builtin_memcpy(&t->request_parent, remote->span_id, TRACE_CONTEXT_SPAN_BYTES);
		ids->trace_flags = remote->trace_flags;
		sampled = parent_sampled(ids->trace_flags, ids->trace_id);
		flags |= REQUEST_REMOTE;
	} else if (joined) {
		__builtin_memcpy(ids->trace_id, caller.trace_id, TRACE_CONTEXT_ID_BYTES);
		__builtin_memcpy(&t->request_parent, caller.span_id, TRACE_CONTEXT_SPAN_BYTES);
		ids->trace_flags = caller.trace_flags;
		sampled = caller.flags & IDS_SAMPLED;
		if (!(caller.flags & IDS_FIXED))
			ids->flags = IDS_KNOWN;
		flags |= REQUEST_JOINED;
	} else {
		ids_random(ids->trace_id, TRACE_CONTEXT_ID_BYTES);
		ids->trace_flags = 0;
		if (caller_may_come(t))
			ids->flags = IDS_KNOWN;
		else
			sampled = root_sampled(t->traced, ids->trace_id);
	}
	if (!(ids->flags & IDS_FIXED))
		return flags;
	ids->trace_flags &= ~TRACE_FLAG_SAMPLED;
	if (sampled) {
		ids->flags |= IDS_SAMPLED;
		ids->trace_flags |= TRACE_FLAG_SAMPLED;
		flags |= REQUEST_SAMPLED;
	}
	return flags | REQUEST_FIXED;
}

/* Whose work begins: the thread's, or that of the first context it makes now. */
static __always_inline void request_binds(struct conn_state *c, const struct transfer *t)
{
	struct owner o = { .ids = c->request.ids, .conn_id = c->id };

	if (!(t->flags & IO_RECORD_NONBLOCK)) {
		worker_begins(t->pid, t->tid, &o);
		c->request.tid = t->tid;
	} else if (t->traced & TRACED_PYTHON) {
		window_open(t->tid, t->turn, t->context, &o);
	}
}

static __always_inline void process_serves(const struct transfer *t)
{
	u32 *flags;

	if (t->traced & TRACED_SERVES)
		return;
	flags = bpf_map_lookup_elem(&traced, &t->pid);
	if (flags)
		__sync_fetch_and_or(flags, TRACED_SERVES);
}

/* Its head is complete: `bytes` of this transfer are not the head's. */
static __always_inline void request_complete(struct conn_state *c, struct transfer *t,
					     const struct head_found *found, u32 bytes, bool whole)
{
	struct request_state *r = &c->request;
	u8 told;

	r->body = found->flags & HEAD_ENDLESS  ? BODY_UNKNOWN
		  : found->flags & HEAD_LENGTH ? found->length
					       : 0;
	if (bytes > r->body) {
		request_lost(c, true, 0);
		return;
	}
	if (r->body != BODY_UNKNOWN)
		r->body -= bytes;
	r->stage = REQUEST_RUNNING;
	process_serves(t);
	told = request_trace(r, t, found);
	request_binds(c, t);
	/* The first pieces of one that came in several are with the agent already. */
	if (constants.mute && whole && (t->traced & (TRACED_CONTEXTS | TRACED_THREADS)) &&
	    (told & (REQUEST_FIXED | REQUEST_SAMPLED)) == REQUEST_FIXED) {
		r->muted |= REQUEST_MUTED;
		count_drop(DROP_UNSAMPLED);
		return;
	}
	t->request = told;
}

/* Bytes of a head. `whole`: the first ones. */
__noinline int request_head(struct conn_state *c, struct transfer *t, u32 whole)
{
	struct head_scan *s = head_scratch();
	struct request_state *r;
	int verdict;
	u64 conn_id;
	u32 before;

	if (!c || !t)
		return 0;
	r = &c->request;
	conn_id = c->id;

	if (!s || s->busy) {
		request_lost(c, false, BODY_UNKNOWN);
		return 0;
	}
	s->busy = 1;
	if (whole)
		__builtin_memset(&s->found, 0, sizeof(s->found));
	before = whole ? 0 : r->scanned;
	verdict = whole || head_resume(s, conn_id) ? head_read(t) : HEAD_BAD;
	if (verdict == HEAD_MORE) {
		r->scanned = s->found.bytes;
		if (!head_pause(s, conn_id)) {
			count_drop(DROP_REQUEST_TABLE_FULL);
			verdict = HEAD_BAD;
		}
	} else if (!whole) {
		bpf_map_delete_elem(&heads, &conn_id);
	}
	if (verdict == HEAD_DONE)
		request_complete(c, t, &s->found, t->result - (s->found.bytes - before), whole);
	else if (verdict != HEAD_MORE)
		request_lost(c, false, verdict == HEAD_TUNNEL ? 0 : BODY_UNKNOWN);
	s->busy = 0;
	return 0;
}

/* A request begins, if the bytes look like one. */
__noinline int request_begins_here(struct conn_state *c, struct transfer *t)
{
	struct request_state *r;
	bool first;

	if (!c || !t)
		return 0;
	r = &c->request;
	first = r->stage == REQUEST_NONE;
	if (!transfer_is_request(t)) {
		request_lost(c, false, first ? 0 : BODY_UNKNOWN);
		return 0;
	}
	worker_ends(r->tid);
	if (r->muted & REQUEST_MUTED) {
		conn_in_step(c);
		r->muted = REQUEST_MUTED_BEFORE;
	} else {
		r->muted = 0;
	}
	r->ids.flags = 0;
	r->stage = REQUEST_HEAD;
	r->seq = t->tcp_seq;
	r->peer_seq = t->tcp_peer_seq;
	r->tid = 0;
	r->scanned = 0;
	request_head(c, t, 1);
	return 0;
}

/* The answer has begun though its record has not come: another thread is about to tell. */
static __always_inline bool request_overtaken(const struct request_state *r,
					      const struct transfer *t)
{
	return t->family != AF_UNIX && (t->tcp_seq || t->tcp_peer_seq) &&
	       (s32)(t->tcp_peer_seq - r->peer_seq) > 0;
}

/* Bytes behind a complete head. */
static __always_inline void request_more(struct conn_state *c, struct transfer *t)
{
	struct request_state *r = &c->request;
	u32 bytes = t->result;

	if (r->body == BODY_UNKNOWN) {
		if (request_overtaken(r, t) && transfer_is_request(t))
			request_begins_here(c, t);
	} else if (bytes <= r->body) {
		r->body -= bytes;
	} else if (!r->body && request_overtaken(r, t)) {
		request_begins_here(c, t);
	} else {
		request_lost(c, true, 0);
	}
}

static __always_inline bool request_received(struct conn_state *c, struct transfer *t)
{
	struct request_state *r = &c->request;

	if (t->result <= 0)
		return r->muted & REQUEST_MUTED;
	switch (r->stage) {
	case REQUEST_NONE:
		if (c->flags & CONN_FIRST)
			request_begins_here(c, t);
		break;
	case REQUEST_HEAD:
		request_head(c, t, 0);
		break;
	case REQUEST_RUNNING:
		request_more(c, t);
		break;
	case REQUEST_ANSWERED:
		if (!r->body)
			request_begins_here(c, t);
		else if ((u32)t->result <= r->body)
			r->body -= t->result;
		else
			request_lost(c, true, 0);
		break;
	}
	return r->muted & REQUEST_MUTED;
}

/* The status in an answer's first bytes, "HTTP/1.1 200"; 0: it isn't in them. -1: they begin none.
 */
static __always_inline s32 answer_status(const struct transfer *t)
{
	enum { PREFIX = 7, STATUS_END = 12 };
	struct first_bytes begins = {};
	u32 n = transfer_begins(t, &begins);
	u64 prefix;

	prefix = n < PREFIX ? (1ull << 8 * n) - 1 : (1ull << 8 * PREFIX) - 1;
	if ((begins.words[0] ^ 0x2e312f50545448 /* HTTP/1. */) & prefix)
		return -1;
	if (n < STATUS_END)
		return 0;
	return (begins.words[1] >> 8 & 0xf) * 100 + (begins.words[1] >> 16 & 0xf) * 10 +
	       (begins.words[1] >> 24 & 0xf);
}

/* Something is sent while the answer had not begun. */
static __always_inline void answer_begins(struct conn_state *c, const struct transfer *t)
{
	enum { SWITCHING_PROTOCOLS = 101 };
	struct request_state *r = &c->request;
	s32 status = answer_status(t);

	if (status < 0) { /* the answer before it was not over */
		request_lost(c, true, 0);
		return;
	}
	if (status >= 100 && status < 200 && status != SWITCHING_PROTOCOLS) {
		r->peer_seq = t->tcp_seq + t->result;
		return;
	}
	worker_ends(r->tid);
	r->tid = 0;
	r->stage = REQUEST_ANSWERED;
	if (status == SWITCHING_PROTOCOLS) {
		r->stage = REQUEST_LOST; /* all that follows is the request's */
		r->body = 0;
	} else if (r->body == BODY_UNKNOWN) {
		r->body = 0;
	}
}

static __always_inline bool request_sent(struct conn_state *c, const struct transfer *t)
{
	struct request_state *r = &c->request;
	bool head = r->stage == REQUEST_HEAD;

	if (t->result <= 0)
		return r->muted & REQUEST_MUTED;
	/* Of the request before: its record comes late. */
	if ((head || r->stage == REQUEST_RUNNING) && t->family != AF_UNIX &&
	    (t->tcp_seq || t->tcp_peer_seq) && (s32)(t->tcp_seq - r->peer_seq) < 0)
		return r->muted & REQUEST_MUTED_BEFORE;
	switch (r->stage) {
	case REQUEST_NONE:
		r->stage = REQUEST_ANSWERED;
		break;
	case REQUEST_HEAD:
		request_lost(c, false, 0);
		break;
	case REQUEST_RUNNING:
		answer_begins(c, t);
		break;
	case REQUEST_LOST:
		if (r->body == BODY_UNKNOWN) {
			r->stage = REQUEST_ANSWERED;
			r->body = 0;
		}
		break;
	}
	return r->muted & REQUEST_MUTED;
}

__noinline int request_seen(struct conn_state *c, struct transfer *t)
{
	if (!c || !t || !constants.requests)
		return 0;
	return t->dir ? request_sent(c, t) : request_received(c, t);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
