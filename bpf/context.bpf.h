/* Work that is handed on inside a process: RECORD_CONTEXT. */
#ifndef SPANLOOM_CONTEXT_BPF_H
#define SPANLOOM_CONTEXT_BPF_H

#include "python_frames.bpf.h"
#include "python_served.bpf.h"

static __always_inline void emit_context(u8 what, u64 context, u64 object, u64 pid_tid)
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
	r->pad = 0;
	r->root_of = 0;
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

/*
 * `object` gets what the running thread works for. A thread without a context may run an executor's
 * item; the main thread never does.
 */
static __always_inline void context_handed_on(u8 what, u64 object)
{
	u64 pid_tid = bpf_get_current_pid_tgid();
	u32 pid = pid_tid >> 32, walk;
	const struct python_layout *l = python_layout_of(pid);
	struct python_now now = {};

	if (!l || python_look(l, &now))
		return;
	walk = (l->walks & PYTHON_WALK_EVENTS && what != CONTEXT_COPIED ? WALK_ALL : 0) |
	       (!now.context && pid != (u32)pid_tid ? WALK_WORK : 0);
	if (l->walks && now.state)
		walk |= context_maker_walk(l, pid, now.state);
	if (l->key_client)
		walk |= served_walk(pid, now.context);
	if (walk && now.state && python_site(pid, now.state, 0, walk))
		served_told(pid, now.context);
	emit_context(what, now.context, object, pid_tid);
	if (l->key_client && what == CONTEXT_COPIED)
		served_copied(pid, now.context, object);
}

#endif
