/*
 * What the process's interpreter is asked for at a transfer. Included by connection.bpf.h, behind
 * struct transfer.
 */
#ifndef SPANLOOM_RUNTIME_BPF_H
#define SPANLOOM_RUNTIME_BPF_H

#include "python_served.bpf.h"

/*
 * The frames behind bytes that are written, where a request or an answer begins: of a request its
 * caller, of an answer its route; of both, where spans are configured, the spans.
 */
static __always_inline void runtime_tell(const struct conn_state *c, const struct python_layout *l,
					 const struct python_now *now, u32 pid, u64 conn_id,
					 bool begins)
{
	u32 walk = l->walks & PYTHON_WALK_EVENTS ? WALK_ALL : 0;

	if (!begins)
		return;
	if (c->flags & CONN_PASSIVE)
		python_route(pid, now->state, conn_id);
	else
		walk |= WALK_CALLER | (l->key_client ? served_walk(pid, now->context) : 0);
	if (walk && python_site(pid, now->state, conn_id, walk | (now->context ? 0 : WALK_WORK)))
		served_told(pid, now->context);
}

/* `turned`: the first transfer of the connection in this direction since one in the other. */
static __always_inline void transfer_runtime(struct conn_state *c, struct transfer *t, bool turned)
{
	const struct python_layout *l = python_layout_of(t->pid);
	struct python_now now = {};

	if (!l || python_look(l, &now))
		return;
	t->context = now.context;
	t->flags |= IO_RECORD_RUNTIME;
	if (!t->dir) {
		if (c->flags & CONN_LATE)
			c->flags |= CONN_LATE_OLD;
	} else if (c->flags & CONN_LATE) {
		c->flags &= ~(CONN_LATE | CONN_LATE_OLD);
		t->context = c->late_context;
		t->flags |= IO_RECORD_LATE;
		return;
	}
	if (now.state && t->result > 0)
		runtime_tell(c, l, &now, t->pid, 0, turned && t->dir);
}

#endif
