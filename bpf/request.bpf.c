/*
 * HTTP/1 requests that a process receives: where one begins, whose trace it belongs to, whether
 * that is kept. Invariant: a connection has one request at a time; where that can't be told any
 * more, nothing is claimed of it.
 */
#include "connection.bpf.h"
#include "option.bpf.h"
#include "request_head.bpf.h"

static __always_inline bool transfer_is_request(const struct transfer *t)
{
	struct first_bytes begins = {};
	u32 n = transfer_begins(t, &begins);

	return n && http_method(begins.words[0], n);
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

/* Whose trace the request belongs to, with what its head says. Gives REQUEST_* of its record. This
 * and the next two are functions of their own, since the scan needs the stack that there is. */
__noinline int request_trace(struct request_state *r, struct transfer *t)
{
	const struct head_scan *s = head_scratch();
	const struct trace_ids *remote;
	struct trace_ids *ids, caller = {};
	bool named, joined, sampled = false;
	u8 flags = REQUEST_SERVER;

	if (!r || !t || !s)
		return 0;
	ids = &r->ids;
	remote = &s->found.ids;
	named = s->found.traceparents == 1 && remote->flags;
	ids_random(ids->span_id, TRACE_CONTEXT_SPAN_BYTES);
	ids->flags = IDS_KNOWN | IDS_FIXED;
	ids->began = owner_clock();
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
			ids->flags = IDS_KNOWN | (caller.flags & IDS_FLOATING);
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
__noinline int request_binds(struct conn_state *c, const struct transfer *t)
{
	struct owner o = {};

	if (!c || !t)
		return 0;
	o.ids = c->request.ids;
	o.conn_id = c->id;
	if (!(t->flags & IO_RECORD_NONBLOCK)) {
		worker_begins(t->pid, t->tid, &o);
		c->request.tid = t->tid;
	} else if (t->traced & TRACED_PYTHON) {
		window_open(t->tid, t->turn, t->context, &o);
	}
	return 0;
}

static __always_inline void process_serves(const struct transfer *t)
{
	u32 *flags, pid = t->pid;

	if (t->traced & TRACED_SERVES)
		return;
	flags = bpf_map_lookup_elem(&traced, &pid);
	if (flags)
		__sync_fetch_and_or(flags, TRACED_SERVES);
}

/* Are the calls that are made for it going to be known for its own? `before`: when the one before
 * it on the connection began (0: there was none), whose root has to be known as well: this one's
 * may be made out of it. */
static __always_inline bool request_will_bind(const struct conn_state *c, const struct transfer *t,
					      u32 before)
{
	const struct context_handlers *h;
	u32 pid = t->pid;

	if (owner_doubted(c->id, c->request.ids.began) == 2)
		return false;
	if (!(t->flags & IO_RECORD_NONBLOCK))
		return t->traced & TRACED_THREADS;
	if (!(t->traced & TRACED_CONTEXTS) || (before && owner_doubted(c->id, before)))
		return false;
	if (t->context)
		return true;
	h = bpf_map_lookup_elem(&handlers, &pid);
	return h && (!before || (s32)(before - h->since) > 0);
}

/* Its head is complete: `bytes` of this transfer are not the head's. */
__noinline int request_complete(struct conn_state *c, struct transfer *t, u32 bytes, u32 whole)
{
	const struct head_scan *s = head_scratch();
	const struct head_found *found;
	struct request_state *r;
	u32 before;
	u8 told;

	if (!c || !t || !s)
		return 0;
	found = &s->found;
	r = &c->request;
	r->body = found->flags & HEAD_ENDLESS  ? BODY_UNKNOWN
		  : found->flags & HEAD_LENGTH ? found->length
					       : 0;
	if (bytes > r->body) {
		request_lost(c, true, 0);
		return 0;
	}
	if (r->body != BODY_UNKNOWN)
		r->body -= bytes;
	r->stage = REQUEST_RUNNING;
	process_serves(t);
	before = r->ids.began;
	told = request_trace(r, t);
	request_binds(c, t);
	/* The first pieces of one that came in several are with the agent already. */
	if (constants.mute && whole &&
	    (told & (REQUEST_FIXED | REQUEST_SAMPLED)) == REQUEST_FIXED &&
	    request_will_bind(c, t, before)) {
		r->muted |= REQUEST_MUTED;
		count_drop(DROP_UNSAMPLED);
		return 0;
	}
	t->request = told;
	return 0;
}

/* Bytes of a head. `whole`: the first ones. */
__noinline int request_head(struct conn_state *c, struct transfer *t, u32 whole)
{
	struct head_scan *s = head_scratch();
	struct request_state *r;
	int verdict;
	u32 before;

	if (!c || !t)
		return 0;
	r = &c->request;
	if (!s || s->busy) {
		request_lost(c, false, BODY_UNKNOWN);
		return 0;
	}
	s->busy = 1;
	if (whole)
		__builtin_memset(&s->found, 0, sizeof(s->found));
	before = whole ? 0 : r->scanned;
	verdict = whole || head_resume(c->id) ? head_read(t) : HEAD_BAD;
	if (verdict == HEAD_MORE) {
		r->scanned = s->found.bytes;
		if (!head_pause(c->id)) {
			count_drop(DROP_REQUEST_TABLE_FULL);
			verdict = HEAD_BAD;
		}
	} else if (!whole) {
		head_forget(c->id);
	}
	if (verdict == HEAD_DONE)
		request_complete(c, t, t->result - (s->found.bytes - before), whole);
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

__noinline int request_received(struct conn_state *c, struct transfer *t)
{
	struct request_state *r;

	if (!c || !t || !constants.requests)
		return 0;
	r = &c->request;
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
