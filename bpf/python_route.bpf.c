/*
 * The look at the frames that send an answer, for RECORD_ROUTE: which of them knows the request's
 * ASGI scope, and the objects in there that tell the route. The keys of the scope are known by the
 * addresses of their interned strings, so no text is compared. Only while the answer is written is
 * all of this sure to be alive.
 */
#include "python_dict.bpf.h"
#include "python_frames.bpf.h"

enum { ROUTE_FRAMES_MAX = 32, DICT_ENTRIES_MAX = 48, INNER_ENTRIES_MAX = 16 };

/* In the record's scratch, behind what a chunk of entries takes: its content is nothing that the
 * verifier follows, so one more found key is no state more. */
enum {
	FOUND_ROOT_PATH = DICT_CHUNK * DICT_ENTRY_BYTES_MAX / 8, /* a str */
	FOUND_FASTAPI,                                           /* scope["fastapi"], a dict */
};

struct dict_scan {
	struct dict_entries e;
	bool inside; /* scope["fastapi"] is scanned */
};

static __noinline void route_entry(const struct python_layout *l, struct route_record *r,
				   struct dict_scan *s, u64 key, u64 value)
{
	if (!key)
		return;
	if (s->inside) {
		if (key == l->key_route_context)
			r->route_context = value;
	} else if (key == l->key_route)
		r->route = value;
	else if (key == l->key_endpoint)
		r->endpoint = value;
	else if (key == l->key_router)
		r->router = value;
	else if (key == l->key_root_path)
		r->scratch[FOUND_ROOT_PATH] = value;
	else if (key == l->key_fastapi)
		r->scratch[FOUND_FASTAPI] = value;
}

/* Some entries at once. */
static __noinline int route_chunk(const struct python_layout *l, struct route_record *r,
				  struct dict_scan *s, u32 from)
{
	u32 stride = s->e.bytes / sizeof(u64), first = stride - 2, i;
	u64 count = s->e.count - from, bytes;

	if (count > DICT_CHUNK)
		count = DICT_CHUNK;
	bytes = count * s->e.bytes;
	barrier_var(bytes); /* what is compared is what is used */
	if (bytes > sizeof(r->scratch) ||
	    bpf_probe_read_user(r->scratch, bytes, (const void *)(s->e.at + from * s->e.bytes)))
		return -1;
	for (i = 0; i < DICT_CHUNK && i < count; i++) {
		u32 at = i * stride + first;

		route_entry(l, r, s, r->scratch[at % SITE_SCRATCH],
			    r->scratch[(at + 1) % SITE_SCRATCH]);
	}
	return 0;
}

static __noinline int route_dict(const struct python_layout *l, struct route_record *r,
				 struct dict_scan *s, u64 dict, u32 max)
{
	u32 i;

	if (dict_entries_of(l, dict, &s->e))
		return -1;
	for (i = 0; i < max; i += DICT_CHUNK) {
		if (i >= s->e.count)
			return 0;
		if (route_chunk(l, r, s, i))
			return -1;
	}
	return 0;
}

static __noinline int route_scope(const struct python_layout *l, struct route_record *r, u64 scope)
{
	struct dict_scan s = {};
	int err;

	r->scope = scope;
	if (!scope || !l->key_route)
		return 0;
	r->scratch[FOUND_ROOT_PATH] = r->scratch[FOUND_FASTAPI] = 0;
	err = route_dict(l, r, &s, scope, DICT_ENTRIES_MAX);
	if (!err && r->scratch[FOUND_FASTAPI]) {
		s.inside = true;
		err = route_dict(l, r, &s, r->scratch[FOUND_FASTAPI], INNER_ENTRIES_MAX);
	}
	if (!err && r->scratch[FOUND_ROOT_PATH]) {
		int len = python_ascii(l, r->scratch[FOUND_ROOT_PATH], r->root_path, ROOT_PATH_MAX);

		if (len < 0)
			err = len; /* else the route would be told without what is in front of it */
		else
			r->root_path_len = len;
	}
	if (err) {
		count_drop(DROP_PYTHON_READ_FAULT);
		r->route = r->route_context = r->endpoint = r->router = 0;
	}
	return 0;
}

/* Attribute value number `i` of an object, 0 when it has no such or keeps them elsewhere. */
static __noinline u64 python_value(const struct python_layout *l, u64 object, u32 i)
{
	enum { BEFORE_VALUES = 32, BEFORE_TAGGED = 24 }; /* 3.11, 3.12: in front of the object */
	u64 values = 0;

	if (!object)
		return 0;
	switch (l->values) {
	case PYTHON_VALUES_DICT:
		values = user_word(object + l->dict_offset);
		values = values ? user_word(values + l->dict_values) : 0;
		break;
	case PYTHON_VALUES_BEFORE:
		values = user_word(object - BEFORE_VALUES);
		break;
	case PYTHON_VALUES_TAGGED:
		values = user_word(object - BEFORE_TAGGED);
		values = values & 1 ? values + 1 : 0;
		break;
	case PYTHON_VALUES_INLINE:
		values = object + l->values_offset;
		break;
	}
	return values ? user_word(values + i * sizeof(u64)) : 0;
}

struct route_walk {
	u32 pid;
	u32 kind, arg; /* of the last frame's code that mattered */
};

static __noinline void route_found(const struct python_layout *l, struct route_record *r,
				   const struct route_walk *w)
{
	u64 frame = r->scratch[SCRATCH_ADDRESS];
	u32 arg = w->arg;

	r->answerer = python_local(l, frame, w->kind == CODE_ANSWER_MATCH ? arg & 0xff : 0);
	if (w->kind == CODE_ANSWER_MATCH) {
		u64 match = python_value(l, r->answerer, arg >> 8 & 0xff);

		r->route = match ? user_word(match + (arg >> 16)) : 0;
	} else {
		route_scope(l, r,
			    w->kind == CODE_ANSWER_SELF ? python_value(l, r->answerer, arg)
							: python_local(l, frame, arg));
	}
}

/* One frame. True: the walk is over. */
static __noinline bool route_step(const struct python_layout *l, struct route_record *r,
				  struct route_walk *w)
{
	const struct code_class *class_;
	u32 n = r->unknown_count;
	u64 code;

	if (!r->scratch[SCRATCH_ADDRESS] || python_frame_read(l, r->scratch))
		return true;
	code = r->scratch[SCRATCH_CODE];
	class_ = python_class(w->pid, code);
	if (class_ && class_->kind >= CODE_STOP) {
		w->kind = class_->kind;
		w->arg = class_->arg;
		if (w->kind == CODE_STOP || w->kind >= CODE_ANSWER_SELF)
			return true;
	}
	if (!class_ && code && n < SITE_UNKNOWN_MAX) {
		r->unknown[n & (SITE_UNKNOWN_MAX - 1)] = code;
		r->unknown_count = n + 1;
	}
	python_frame_next(l, r->scratch);
	return false;
}

__noinline int python_route(u32 pid, u64 state, u64 conn_id)
{
	const struct python_layout *l = python_layout_of(pid);
	struct route_walk w = { .pid = pid };
	struct route_record *r;
	int i;

	if (!l)
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		ring_lost();
		return 0;
	}
	__builtin_memset(r, 0, __builtin_offsetof(struct route_record, scratch));
	python_walk_begin(l, r->scratch, state);
	for (i = 0; i < ROUTE_FRAMES_MAX; i++) {
		if (route_step(l, r, &w))
			break;
	}
	if (w.kind >= CODE_ANSWER_SELF)
		route_found(l, r, &w);
	if (!r->answerer && !r->scope && !r->unknown_count) {
		bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);
		return 0;
	}
	r->type = RECORD_ROUTE;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->pid = pid;
	r->tid = (u32)bpf_get_current_pid_tgid();
	r->conn_id = conn_id;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
