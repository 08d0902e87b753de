/*
 * A frame of CPython and what its code object means, for the walks outward through a thread's
 * frames. Invariant: a frame that can't be read ends the walk.
 */
#ifndef SPANLOOM_PYTHON_FRAMES_BPF_H
#define SPANLOOM_PYTHON_FRAMES_BPF_H

#include "python.bpf.h"

/* Written by the agent, which also takes the entries of a process out when it ends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CODES_MAX);
	__type(key, struct code_key);
	__type(value, struct code_class);
} codes SEC(".maps") __weak;

/* The running frame: struct _PyInterpreterFrame, before 3.11 PyFrameObject. 0: none. */
static __always_inline u64 python_first_frame(const struct python_layout *l, u64 state)
{
	u64 frame = user_word(state + l->tstate_frame);

	return frame && l->cframe_frame != PYTHON_NONE ? user_word(frame + l->cframe_frame) : frame;
}

/*
 * The scratch of the record that a walk fills: a frame, and behind it what is the same for all
 * frames. There and not on the stack, because the verifier doesn't follow what is there: it would
 * walk all frames once for each way by which a number came about.
 */
enum {
	SCRATCH_FRAME = SITE_SCRATCH - 4, /* its words, and then: */
	SCRATCH_ADDRESS = SCRATCH_FRAME,  /* of the frame; 0: there is none further out */
	SCRATCH_CODE,                     /* 0: it is not of Python code */
	SCRATCH_BYTES,
	SCRATCH_OWNER_SKIP,
};

/* At the running frame. */
static __always_inline void python_walk_begin(const struct python_layout *l, u64 *scratch,
					      u64 state)
{
	u32 last = l->frame_code > l->frame_previous ? l->frame_code : l->frame_previous;

	scratch[SCRATCH_OWNER_SKIP] = 1 << 8; /* no byte is */
	if (l->frame_owner != PYTHON_NONE) {
		scratch[SCRATCH_OWNER_SKIP] = l->frame_owner_skip;
		if (l->frame_owner > last)
			last = l->frame_owner;
	}
	scratch[SCRATCH_BYTES] = (last / sizeof(u64) + 1) * sizeof(u64);
	scratch[SCRATCH_ADDRESS] = python_first_frame(l, state);
}

/* The word at `offset` of what was read. */
static __always_inline u64 scratch_word(const u64 *scratch, u32 offset)
{
	return scratch[offset / sizeof(u64) % SITE_SCRATCH];
}

/* Reads the frame. -1: it could not be read. */
static __always_inline int python_frame_read(const struct python_layout *l, u64 *scratch)
{
	u64 bytes = scratch[SCRATCH_BYTES], owner;

	barrier_var(bytes); /* what is compared is what is used */
	if (bytes > SCRATCH_FRAME * sizeof(u64) ||
	    bpf_probe_read_user(scratch, bytes, (const void *)scratch[SCRATCH_ADDRESS])) {
		count_drop(DROP_PYTHON_READ_FAULT);
		return -1;
	}
	owner = scratch_word(scratch, l->frame_owner) >> l->frame_owner % sizeof(u64) * 8;
	scratch[SCRATCH_CODE] = scratch_word(scratch, l->frame_code) & ~(u64)l->reference_tags;
	if ((owner & 0xff) >= scratch[SCRATCH_OWNER_SKIP])
		scratch[SCRATCH_CODE] = 0;
	return 0;
}

/* Goes one frame outward. */
static __always_inline void python_frame_next(const struct python_layout *l, u64 *scratch)
{
	scratch[SCRATCH_ADDRESS] = scratch_word(scratch, l->frame_previous);
}

/* Local number `i` of a frame. */
static __always_inline u64 python_local(const struct python_layout *l, u64 frame, u32 i)
{
	return user_word(frame + l->frame_locals + i * sizeof(u64)) & ~(u64)l->reference_tags;
}

static __always_inline const struct code_class *python_class(u32 pid, u64 code)
{
	struct code_key key = { .code = code, .pid = pid };

	return bpf_map_lookup_elem(&codes, &key);
}

#endif
