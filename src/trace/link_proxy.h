/*
 * Whose call is it in a proxy, which handles many requests in one thread and tells nothing of them?
 * Two things show it:
 *
 * The header. A call that carries the very traceparent with which exactly one request came is that
 * request's: nobody else knows the span id in it. Another request with the same one, open or ended
 * within REMOTE_HOLD_NS, leaves it open.
 *
 * The answer. Calls "fit" a request when they have its method and target and begin after its head
 * was read. A thread that reads an answer's head and, with no other transfer in between, begins to
 * answer a fitting request may do so for another reason, when what it read is held back. But a
 * request is never answered before its own call is. So the call of the request is among the fitting
 * ones that are answered; if each of the others is known to be another request's, it is the one
 * that was just read. The same holds for the ends of answers, where heads are held back. By
 * induction no such link is wrong, whatever the order of things, unless the request was answered
 * from elsewhere (a cache) at that moment: then the request whose call it was shows up for the same
 * call, or goes without an answer, and neither is linked.
 */
#ifndef TRACE_LINK_PROXY_H
#define TRACE_LINK_PROXY_H

#include "trace/link_internal.h"

#define REMOTE_HOLD_NS 1000000000ull

enum { HOPS_MAX = 4096 /* of a process; behind that no call of it is followed */ };

/* No call of the process that is open can be followed any more. */
void link_hops_lost(struct process *p);
/* The process is gone. */
void link_hops_forget(struct process *p);
/* The request is over; `answered`: it has an answer that was seen. */
void link_hop_over(struct linker *l, struct request *r, bool answered);
/* The call goes. */
void link_hop_free(struct call *c);
/* Whose is it? VERDICT_NO: these rules don't say. */
enum verdict link_judge_hop(const struct call *c, enum patience patience, struct request **ret);

#endif
