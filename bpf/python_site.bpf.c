/*
 * The walk through a thread's frames for RECORD_SITE: who of the application makes a call, which
 * item of an executor is worked on, which custom spans are on the stack. It goes as far out as its
 * question needs. Code objects that nobody has classified are passed and told of.
 */
#include "python_frames.bpf.h"

struct site_walk {
	u64 frame; /* the next one */
	u32 frame_bytes, pid;
	u32 walk; /* WALK_* */
};

/* Arguments are all that stays while a function runs, as a rule. */
static __noinline u64 arguments_mix(const struct python_layout *l, u64 frame, u32 count)
{
	enum { MIXED_MAX = 4 };
	u64 mix = 0;
	u32 i;

	for (i = 0; i < MIXED_MAX && i < count; i++)
		mix = (mix ^ python_local(l, frame, i)) * 0x9e3779b97f4a7c15ull;
	return mix;
}

static __always_inline void site_span_add(const struct python_layout *l, struct site_record *r,
					  u64 frame, u32 arg)
{
	u32 n = r->span_count;

	if (n >= SITE_SPANS_MAX)
		return;
	r->spans[n & (SITE_SPANS_MAX - 1)].frame = frame;
	r->spans[n & (SITE_SPANS_MAX - 1)].args = arguments_mix(l, frame, arg >> 16);
	r->spans[n & (SITE_SPANS_MAX - 1)].rule = arg & 0xffff;
	r->span_count = n + 1;
}

static __always_inline void site_unknown_add(struct site_record *r, u64 code)
{
	u32 n = r->unknown_count;

	if (n >= SITE_UNKNOWN_MAX)
		return;
	r->unknown[n & (SITE_UNKNOWN_MAX - 1)] = code;
	r->unknown_count = n + 1;
}

/* What one code object says. True: nothing further out is of interest. */
static __always_inline bool site_code(const struct python_layout *l, struct site_record *r,
				      const struct site_walk *w, u64 code)
{
	const struct code_class *class_ = python_class(w->pid, code);

	if (!class_) {
		site_unknown_add(r, code);
		return false;
	}
	switch (class_->kind) {
	case CODE_SPAN:
		site_span_add(l, r, w->frame, class_->arg);
		/* fallthrough */
	case CODE_APPLICATION:
		if (!r->caller)
			r->caller = code;
		return !(w->walk & (WALK_WORK | WALK_ALL));
	case CODE_WORK:
		r->work = python_local(l, w->frame, 0);
		/* fallthrough */
	case CODE_POOL:
		r->flags |= SITE_POOLED;
		return true;
	case CODE_STOP:
		return true;
	default:
		return false;
	}
}

/* One frame. True: the walk is over. */
static __noinline bool site_step(const struct python_layout *l, struct site_record *r,
				 struct site_walk *w)
{
	struct python_frame f = {};

	if (python_frame_read(l, r->scratch, w->frame, w->frame_bytes, &f)) {
		r->flags |= SITE_CUT;
		return true;
	}
	if (f.code && site_code(l, r, w, f.code))
		return true;
	w->frame = f.previous;
	return !f.previous;
}

__noinline int python_site(u32 pid, u64 state, u64 conn_id, u32 walk)
{
	const struct python_layout *l = python_layout_of(pid);
	struct site_walk w = { .pid = pid, .walk = walk };
	struct site_record *r;
	bool done = false;
	int i;

	if (!l)
		return 0;
	w.frame_bytes = python_frame_bytes(l);
	w.frame = python_first_frame(l, state);
	if (!w.frame)
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		ring_lost();
		return 0;
	}
	__builtin_memset(r, 0, __builtin_offsetof(struct site_record, scratch));
	for (i = 0; i < FRAMES_MAX && !done; i++)
		done = site_step(l, r, &w);
	if (!done) {
		r->flags |= SITE_CUT;
		count_drop(DROP_PYTHON_STACK_CUT);
	}
	if (!(r->flags || r->work || r->span_count || r->unknown_count ||
	      ((walk & WALK_CALLER) && r->caller))) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	r->type = RECORD_SITE;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->pid = pid;
	r->tid = (u32)bpf_get_current_pid_tgid();
	r->conn_id = conn_id;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
