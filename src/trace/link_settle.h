/*
 * The settling of traces. A request knows its own trace id at once where it came with a header or
 * the kernel side has fixed it; else it waits LINK_JOIN_NS from its first byte for the call at its
 * other end (join.h), and then until that call knows for whom it was made, LINK_SETTLE_NS behind
 * its own end at most: then it is a root. What was made for a request takes its trace over once it
 * is settled. Whose call something is does not wait for that, only its span does.
 */
#ifndef TRACE_LINK_SETTLE_H
#define TRACE_LINK_SETTLE_H

#include "trace/link_internal.h"

/* `s` has the ids that are its own. */
void link_trace_init(struct link_trace *t, const struct span *s, bool is_request);
/* Its trace id is final, `flags` are W3C's with the decision in bit 0. Those who take it over do so
 * before this returns, or before the outermost call of this function does. */
void link_trace_settle(struct linker *l, struct link_trace *t, uint8_t flags);

/* A request begins; too many that wait: the oldest waits no longer. */
void link_settle_begin(struct linker *l, struct request *r, const struct exchange *ex);
/* Its head was read: whether it has a parent of its own is known. */
void link_settle_head(struct linker *l, struct request *r);
/* It has ended. Its span (taken over; NULL: none) leaves once all is final. */
void link_request_leave(struct linker *l, struct request *r, struct span *s);
/* Its caller isn't looked for or waited for any longer. */
void link_settle_alone(struct linker *l, struct request *r);

/* It is decided whose the call is: `from` is the request's trace, or that of the custom span it was
 * made in (call.of or call.within keeps it); NULL: nobody's that we know. Frees the call if it has
 * ended and the trace is settled. */
void link_call_decided(struct linker *l, struct call *c, struct link_trace *from);
/* The same, for request `r` (NULL: nobody's), compared with what the kernel side took it for. */
void link_call_made_for(struct linker *l, struct call *c, struct request *r);
/* The span leaves, and the call is freed, if it is decided and nothing is waited for. */
void link_call_hand_on(struct linker *l, struct call *c);
/* Takes the ids that the request at its other end gives to the call, if it has none of the kernel
 * side's and wrote no header of its own. */
void link_call_learn(struct linker *l, struct call *c);
/* No span comes of the call. */
void link_call_void(struct linker *l, struct call *c);

void link_settle_tick(struct linker *l, uint64_t now_ns);
void link_settle_flush(struct linker *l);
void link_settle_free(struct linker *l);

#endif
