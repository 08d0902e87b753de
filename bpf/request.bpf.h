/*
 * HTTP/1 requests that a process receives, for connection.bpf.h.
 */
#ifndef SPANLOOM_REQUEST_BPF_H
#define SPANLOOM_REQUEST_BPF_H

#include "owner.bpf.h"
#include "sample.bpf.h"
#include "transfer.bpf.h"

#define BODY_UNKNOWN (~0ull)

/* Nothing more is claimed of what goes on. `doubt`: nor of what was claimed. `body`: BODY_UNKNOWN
 * when the next answer ends it, 0 when nothing does. */
static __always_inline void request_lost(struct conn_state *c, bool doubt, u64 body)
{
	struct request_state *r = &c->request;

	if (doubt)
		owner_doubt(c->id, 0, true);
	worker_ends(r->tid);
	r->tid = 0;
	r->ids.flags = 0;
	r->stage = REQUEST_LOST;
	r->muted = 0; /* what was not reported so far is told of as lost */
	r->body = body;
}

/*
 * request.bpf.c, answer.bpf.c: what was received, what was sent on a connection that the process
 * serves. 1: it is of a request that is not sampled, and not reported. Else t->request is not 0
 * where a head is complete with it, and request_emit() is due in front of it. Global, so that the
 * verifier looks at them once for each program, apart from who calls.
 */
extern int request_received(struct conn_state *c, struct transfer *t);
extern int request_sent(struct conn_state *c, struct transfer *t);

/* The record of the request that this transfer completes. */
static __noinline int request_emit(const struct conn_state *c, const struct transfer *t)
{
	const struct request_state *q = &c->request;
	struct request_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);

	if (!r) {
		ring_lost();
		return 0;
	}
	r->type = RECORD_REQUEST;
	r->flags = t->request;
	r->trace_flags = q->ids.trace_flags;
	r->added = 0;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->conn_id = c->id;
	r->pid = t->pid;
	r->tid = t->tid;
	r->tcp_seq = q->seq;
	r->tcp_peer_seq = q->peer_seq;
	__builtin_memcpy(r->trace_id, q->ids.trace_id, sizeof(r->trace_id));
	__builtin_memcpy(r->span_id, q->ids.span_id, sizeof(r->span_id));
	__builtin_memcpy(r->parent_span_id, &t->request_parent, sizeof(r->parent_span_id));
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

#endif
