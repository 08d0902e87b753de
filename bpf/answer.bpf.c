/*
 * Where the answer to a request begins, so that what is received next begins another one. An
 * interim answer (1xx) is none; one that is no answer's beginning shows that requests overlap.
 */
#include "connection.bpf.h"
#include "request_head.bpf.h"

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
	if (t->traced & TRACED_PYTHON)
		window_close(t->tid, c->id);
	r->tid = 0;
	r->stage = REQUEST_ANSWERED;
	if (status == SWITCHING_PROTOCOLS) {
		r->stage = REQUEST_LOST; /* all that follows is the request's */
		r->body = 0;
	} else if (r->body == BODY_UNKNOWN) {
		r->body = 0;
	}
}

__noinline int request_sent(struct conn_state *c, struct transfer *t)
{
	struct request_state *r;

	if (!c || !t || !constants.requests)
		return 0;
	r = &c->request;
	if (t->result <= 0)
		return r->muted & REQUEST_MUTED;
	/* Of the request before: its record comes late. */
	if ((r->stage == REQUEST_HEAD || r->stage == REQUEST_RUNNING) && t->family != AF_UNIX &&
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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
