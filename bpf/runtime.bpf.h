/*
 * What the process's interpreter is asked for at a transfer.
 */
#ifndef SPANLOOM_RUNTIME_BPF_H
#define SPANLOOM_RUNTIME_BPF_H

#include "late.bpf.h"
#include "python_served.bpf.h"
#include "transfer.bpf.h"

/*
 * The frames behind bytes that are written, where a request or an answer begins: of a request its
 * caller, of an answer its route; of both, where spans are configured, the spans. `state`: of the
 * thread, not 0.
 */
static __always_inline void runtime_tell(const struct conn_state *c, u32 pid, u64 state,
					 u64 context, u64 conn_id)
{
	const struct python_layout *l = python_layout_of(pid);
	u32 walk;

	if (!l)
		return;
	walk = l->walks & PYTHON_WALK_EVENTS ? WALK_ALL : 0;
	if (c->flags & CONN_PASSIVE)
		python_route(pid, state, conn_id);
	else
		walk |= WALK_CALLER | (l->key_client ? served_walk(pid, context) : 0);
	if (walk && python_site(pid, state, conn_id, walk | (context ? 0 : WALK_WORK)))
		served_told(pid, context);
}

static __always_inline bool ids_unsampled(const struct trace_ids *ids)
{
	return (ids->flags & (IDS_FIXED | IDS_SAMPLED)) == IDS_FIXED;
}

/* Is what the running thread does in `context` for a request that is certainly not sampled? */
static __always_inline bool work_unsampled(u32 pid, u32 tid, u32 process, u64 context)
{
	struct owner o = {};

	return (process & (TRACED_CONTEXTS | TRACED_THREADS)) &&
	       owner_of(pid, tid, process, context, 0, &o) == 2 && ids_unsampled(&o.ids);
}

/* Is what is sent on the connection of a trace that is not sampled? */
static __always_inline bool conn_unsampled(const struct conn_state *c, const struct transfer *t)
{
	if (c->flags & CONN_PASSIVE)
		return ids_unsampled(&c->request.ids);
	return ids_unsampled(&c->call.ids) ||
	       (!c->call.ids.flags && work_unsampled(t->pid, t->tid, t->traced, t->context));
}

/* What the interpreter says of the moment. True: the frames can be looked at. */
static __always_inline bool transfer_runtime(struct conn_state *c, struct transfer *t, u8 dir,
					     struct python_now *now)
{
	const struct python_layout *l = python_layout_of(t->pid);

	if (!l || python_look(l, now))
		return false;
	t->context = now->context;
	t->flags |= IO_RECORD_RUNTIME;
	if (!dir) {
		if (c->flags & CONN_LATE)
			c->flags |= CONN_LATE_OLD;
	} else if (c->flags & CONN_LATE) {
		c->flags &= ~(CONN_LATE | CONN_LATE_OLD);
		t->context = late_waiting(c, t->pid);
		t->flags |= IO_RECORD_LATE;
		return false;
	}
	return now->state && t->result > 0;
}

#endif
