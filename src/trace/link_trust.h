/*
 * What the kernel side may rely upon when it takes a call to be made for a request (enum
 * tracer_trust): user space has seen it proven in that very process. One proof is enough to begin
 * with; one time that it was wrong, or that requests turn out not to be told apart that way, ends
 * it for as long as the process runs its program.
 *
 * Where a loop reads in no context (uvloop), which copy begins the request's work can't be told by
 * the context that read. There the kernel side needs to know the contexts in which the loop handles
 * what it has read: those of its listening sockets. One out of which come the proven roots of two
 * connections is none's own task, so it is such a one.
 */
#ifndef TRACE_LINK_TRUST_H
#define TRACE_LINK_TRUST_H

#include "trace/link_internal.h"
#include "trace/tracer.h"

/* `what` of enum tracer_trust was proven. */
void link_trust(struct linker *l, struct process *p, uint32_t what);
/* It was not so, once. */
void link_distrust(struct linker *l, struct process *p, uint32_t what);
/* The process runs another program. */
void link_trust_reset(struct linker *l, struct process *p);
/* The kernel side takes `n`, the copy that `ev` tells of, for the root of the request that was read
 * last on connection ev->root_of. */
void link_trust_bound(struct linker *l, const struct context_event *ev, struct node *n);
/* It has none: its answer was written in `n`, which is older. Where its root would be a copy of
 * that, as when a server finds out late that it can't read the request, that shows nothing. */
void link_trust_refused(struct linker *l, struct request *r, const struct node *n);
/* Events were lost: which context is at which address isn't certain. */
void link_handlers_forget(struct linker *l, const struct process *p);
/* The address is that of another context from now on, perhaps. */
void link_trust_reused(struct linker *l, struct process *p, uint64_t address);
/* The root of the request is `root`; NULL: it has none of its own, or it isn't certain. */
void link_trust_root(struct linker *l, struct request *r, const struct node *root);

#endif
