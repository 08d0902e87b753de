/*
 * A proxy's call has no owner that the kernel side could know, so the request at its other end gets
 * the trace that the call was given, for the time being. Where that request calls on with a header,
 * the kernel side has to name a trace: it names this one, a promise that user space keeps. The
 * proxy's own request, of which nobody was told anything, takes that trace once it is known whose
 * the call is.
 */
#ifndef TRACE_LINK_PROMISE_H
#define TRACE_LINK_PROMISE_H

#include "trace/link_internal.h"

/* `c` is bound to a request and has gone out with its trace. */
void link_promise(struct linker *l, const struct call *c);
/* The request's trace was promised: it becomes that of the call at its other end, if that is known
 * and has the id. */
void link_promise_keep(struct linker *l, struct request *r);
/* Is there one trace for the call and for what it was made for? What a call was sent with stays;
 * `from` takes it where nobody knows its own. */
bool link_trace_agrees(const struct call *c, struct link_trace *from);
/* Is it still to be decided whether the request takes the trace of a call of its own? */
bool link_may_be_renamed_yet(struct request *r);

#endif
