/* Work that is handed on inside a process: RECORD_CONTEXT. */
#ifndef SPANLOOM_CONTEXT_BPF_H
#define SPANLOOM_CONTEXT_BPF_H

#include "late.bpf.h"
#include "python_frames.bpf.h"
#include "python_served.bpf.h"

/* `root_of`, `bound`: as in the record. */
static __always_inline void emit_context(u8 what, u64 context, u64 object, u64 pid_tid, u64 root_of,
					 bool bound)
{
	struct context_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);

	if (!r) {
		ring_lost();
		return;
	}
	r->type = RECORD_CONTEXT;
	r->what = what;
	r->zero = 0;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->context = context;
	r->object = object;
	r->pid = pid_tid >> 32;
	r->tid = (u32)pid_tid;
	r->turn = current_turn();
	r->bound = bound;
	r->root_of = root_of;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

enum { MAKER_FRAMES = 5 };

/*
 * What the layout asks for where somebody of the application may have wanted what is handed on: the
 * running function is its own, or one that makes tasks for whoever calls it. Nothing else is looked
 * at, for contexts are copied for each callback and timer, too; nor who is behind those that handle
 * requests, since nobody is.
 */
static __noinline u32 context_maker_walk(const struct python_layout *l, u32 pid, u64 state)
{
	u32 walk = (l->walks & PYTHON_WALK_EVENTS ? WALK_ALL : 0) |
		   (l->walks & PYTHON_WALK_MAKERS ? WALK_CALLER : 0);
	u64 frame = python_first_frame(l, state);
	const struct code_class *class_;
	int i;

	for (i = 0; i < MAKER_FRAMES && frame; i++) {
		class_ = python_class(pid,
				      user_word(frame + l->frame_code) & ~(u64)l->reference_tags);
		if (class_ && class_->kind == CODE_SERVE)
			return class_->arg ? walk & WALK_ALL : 0;
		if (!class_ || class_->kind != CODE_TASK) {
			if (i)
				return walk;
			return class_ && (class_->kind == CODE_APPLICATION ||
					  class_->kind == CODE_SPAN)
				       ? walk
				       : 0;
		}
		frame = user_word(frame + l->frame_previous);
	}
	return i ? walk : 0;
}

/* The frames of who hands something on, as far as somebody wants to know of them. */
static __always_inline void context_frames(const struct python_layout *l,
					   const struct python_now *now, u8 what, u64 pid_tid)
{
	u32 pid = pid_tid >> 32, walk;

	walk = (l->walks & PYTHON_WALK_EVENTS && what != CONTEXT_COPIED ? WALK_ALL : 0) |
	       (!now->context && pid != (u32)pid_tid ? WALK_WORK : 0);
	if (l->walks)
		walk |= context_maker_walk(l, pid, now->state);
	if (l->key_client)
		walk |= served_walk(pid, now->context);
	if (walk && python_site(pid, now->state, 0, walk))
		served_told(pid, now->context);
}

/* Is it a context? */
static __always_inline bool is_context(const struct python_layout *l, u64 object)
{
	enum { OBJECT_TYPE = 8 }; /* PyObject: ob_type, 3.9 to 3.14 */

	return user_word(object + OBJECT_TYPE) == l->context_type;
}

/* There may be a new context, but not which, or not of what: should it be `object`, it is nobody's,
 * and should it have been a request's root, that has none. */
static __always_inline void context_unknown(const struct python_layout *l,
					    const struct python_now *now, u64 object, u64 pid_tid)
{
	u32 pid = pid_tid >> 32;

	window_missed((u32)pid_tid);
	if (object != now->context) {
		late_given_away(pid, object);
		owner_forget(memory_of(pid), object);
		if (l->key_client)
			served_copied(pid, 0, object);
	}
	emit_context(CONTEXT_UNKNOWN, now->context, object, pid_tid, 0, false);
}

/*
 * `object` gets what the running thread works for. A thread without a context may run an executor's
 * item; the main thread never does. The frames are of no interest where nothing of the request is
 * kept; the copy itself is told of even so, since addresses are used again.
 *
 * But not where the address was told of for the same request that is certainly not sampled: what
 * user space then still knows of it comes from the root of that request as well, so all that it can
 * make of it is another descendant of the request, of which nothing is kept either way.
 *
 * `certain`: it is what the function says it is; else it came out of a register on the way there.
 */
static __always_inline void context_handed_on(u8 what, u64 object, bool certain)
{
	u64 pid_tid = bpf_get_current_pid_tgid(), root_of = 0;
	u32 pid = pid_tid >> 32, tid = (u32)pid_tid, process = traced_flags(pid);
	bool again = false, unsampled;
	const struct python_layout *l;
	struct python_now now = {};
	struct owner o = {};
	bool seen;
	int known;

	if (!process || (process & TRACED_SILENT))
		return;
	l = python_layout_of(pid);
	if (!l)
		return;
	seen = !python_look(l, &now);
	if (seen && !certain && (object == now.context || !is_context(l, object))) {
		count_drop(DROP_CONTEXT_UNLIKELY);
		seen = false;
	}
	if (!seen) {
		if (what == CONTEXT_COPIED)
			context_unknown(l, &now, object, pid_tid);
		return;
	}
	if (what == CONTEXT_COPIED) {
		late_given_away(pid, object);
		known = owner_copied(pid, tid, process, now.context, object, &o, &root_of, &again);
	} else {
		known = owner_of(pid, tid, process, now.context, 0, &o);
	}
	unsampled = known == 2 && !(o.ids.flags & IDS_SAMPLED);
	if (now.state && !unsampled)
		context_frames(l, &now, what, pid_tid);
	if (!(constants.mute && unsampled && again && !root_of))
		emit_context(what, now.context, object, pid_tid, root_of, known);
	if (l->key_client && what == CONTEXT_COPIED)
		served_copied(pid, now.context, object);
}

#endif
