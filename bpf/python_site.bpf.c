/*
 * The walk through a thread's frames for RECORD_SITE: who of the application makes a call, which
 * item of an executor is worked on, which custom spans are on the stack, which client is served. It
 * goes as far out as its question needs. Code objects that nobody has classified are passed and
 * told of.
 */
#include "python_dict.bpf.h"
#include "python_frames.bpf.h"

enum { SCOPE_ENTRIES_MAX = 12 /* granian sets "client" as the sixth */ };

struct site_walk {
	u32 pid;
	u32 walk; /* WALK_* */
};

/* What one code object says. True: nothing further out is of interest. (What needs more of a frame
 * is looked at behind the loop, where the verifier sees it once.) */
static __always_inline bool site_code(struct site_record *r, const struct site_walk *w)
{
	u64 code = r->scratch[SCRATCH_CODE];
	const struct code_class *class_ = python_class(w->pid, code);
	u32 n, kind;

	if (!class_) {
		if (!code)
			return false;
		r->flags |= SITE_INSIDE;
		n = r->unknown_count;
		if (n < SITE_UNKNOWN_MAX) {
			r->unknown[n & (SITE_UNKNOWN_MAX - 1)] = code;
			r->unknown_count = n + 1;
		}
		return false;
	}
	kind = class_->kind;
	if (kind == CODE_APPLICATION || kind == CODE_SPAN) {
		n = r->span_count;
		if (kind == CODE_SPAN && n < SITE_SPANS_MAX) {
			r->spans[n & (SITE_SPANS_MAX - 1)].frame = r->scratch[SCRATCH_ADDRESS];
			r->spans[n & (SITE_SPANS_MAX - 1)].code = code;
			r->spans[n & (SITE_SPANS_MAX - 1)].rule = class_->arg;
			r->span_count = n + 1;
		}
		if (!r->caller && !(r->flags & SITE_LOOPED))
			r->caller = code;
		return !(w->walk & (WALK_WORK | WALK_ALL | WALK_SCOPE));
	}
	if (kind == CODE_ANSWER_LOCAL && (w->walk & WALK_SCOPE) && !r->scope) {
		r->scope = r->scratch[SCRATCH_ADDRESS]; /* of the frame; the number of its local: */
		r->client_len = class_->arg;
		return !(w->walk & (WALK_WORK | WALK_ALL)) &&
		       (r->caller || !(w->walk & WALK_CALLER));
	}
	if (kind == CODE_LOOP) {
		if (class_->arg || (r->flags & SITE_INSIDE))
			r->flags |= SITE_LOOPED;
		return (r->flags & SITE_LOOPED) && !(w->walk & (WALK_WORK | WALK_ALL | WALK_SCOPE));
	}
	if (kind != CODE_TASK || class_->arg)
		r->flags |= SITE_INSIDE;
	if (kind == CODE_WORK)
		r->work = r->scratch[SCRATCH_ADDRESS]; /* whose first local it is */
	if (kind == CODE_WORK || kind == CODE_POOL)
		r->flags |= SITE_POOLED;
	return kind == CODE_WORK || kind == CODE_POOL || kind == CODE_STOP;
}

/* One frame. True: the walk is over. */
static __noinline bool site_step(const struct python_layout *l, struct site_record *r,
				 const struct site_walk *w)
{
	if (!r->scratch[SCRATCH_ADDRESS])
		return true;
	if (python_frame_read(l, r->scratch)) {
		r->flags |= SITE_CUT;
		return true;
	}
	if (site_code(r, w))
		return true;
	python_frame_next(l, r->scratch);
	return false;
}

/* Until now a span's rule is what its code's class says: which locals are arguments that stay while
 * the function runs as well. */
static __noinline void site_span_finish(const struct python_layout *l, struct site_span *span)
{
	u32 arguments = span->rule >> 16, i;
	u64 mix = 0;

	for (i = 0; i < SPAN_ARGUMENTS_MAX; i++) {
		if (arguments >> i & 1)
			mix = (mix ^ python_local(l, span->frame, i)) * 0x9e3779b97f4a7c15ull;
	}
	span->args = mix;
	span->rule &= 0xffff;
}

/* Some entries of the scope at once; what is behind the key "client" goes to r->scope. */
static __noinline int site_scope_chunk(const struct python_layout *l, struct site_record *r,
				       const struct dict_entries *e, u32 from)
{
	u32 stride = e->bytes / sizeof(u64), key = stride - 2, i;
	u64 bytes = (u64)(e->count - from < DICT_CHUNK ? e->count - from : DICT_CHUNK) * e->bytes;

	barrier_var(bytes); /* what is compared is what is used */
	if (bytes > sizeof(r->scratch) ||
	    bpf_probe_read_user(r->scratch, bytes, (const void *)(e->at + from * e->bytes)))
		return -1;
	for (i = 0; i < DICT_CHUNK; i++, key += stride) {
		if (from + i < e->count && r->scratch[key % SITE_SCRATCH] == l->key_client)
			r->scope = r->scratch[(key + 1) % SITE_SCRATCH];
	}
	return 0;
}

/* The value behind the key "client"; 0: it isn't among the first. */
static __noinline u64 site_client_of(const struct python_layout *l, struct site_record *r)
{
	struct dict_entries e = {};
	u64 scope = r->scope, value;
	u32 i;

	if (!scope || dict_entries_of(l, scope, &e))
		return 0;
	r->scope = 0;
	for (i = 0; i < SCOPE_ENTRIES_MAX && i < e.count; i += DICT_CHUNK)
		if (site_scope_chunk(l, r, &e, i))
			break;
	value = r->scope;
	r->scope = scope;
	return value;
}

/* granian's scope["client"] is a tuple (host, port), both str, where other servers have an int:
 * what is no such pair was not made by it, and doesn't count. */
static __noinline void site_client(const struct python_layout *l, struct site_record *r)
{
	enum { SIZE = 16, ITEMS = 24, ITEMS_3_14 = 32 };
	u64 items = l->reference_tags ? ITEMS_3_14 : ITEMS, pair[2] = {}, tuple;
	u32 local = r->client_len;
	int host, port;

	r->client_len = 0;
	r->scope = python_local(l, r->scope, local);
	tuple = site_client_of(l, r);
	if (!tuple || user_word(tuple + SIZE) != 2 ||
	    bpf_probe_read_user(pair, sizeof(pair), (const void *)(tuple + items)))
		return;
	host = python_ascii(l, pair[0], r->client, sizeof(r->client));
	port = python_ascii(l, pair[1], r->client_port, sizeof(r->client_port));
	if (host <= 0 || port <= 0)
		return;
	r->client_len = host;
	r->client_port_len = port;
}

__noinline int python_site(u32 pid, u64 state, u64 conn_id, u32 walk)
{
	const struct python_layout *l = python_layout_of(pid);
	struct site_walk w = { .pid = pid, .walk = walk };
	struct site_record *r;
	bool done = false;
	int i, told;

	if (!l)
		return 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		ring_lost();
		return 0;
	}
	__builtin_memset(r, 0, __builtin_offsetof(struct site_record, scratch));
	python_walk_begin(l, r->scratch, state);
	for (i = 0; i < FRAMES_MAX && !done; i++)
		done = site_step(l, r, &w);
	if (r->work)
		r->work = python_local(l, r->work, 0);
	for (i = 0; i < SITE_SPANS_MAX && i < r->span_count; i++)
		site_span_finish(l, &r->spans[i]);
	if (r->scope)
		site_client(l, r);
	if (!done) {
		r->flags |= SITE_CUT;
		count_drop(DROP_PYTHON_STACK_CUT);
	}
	r->flags &= ~(SITE_INSIDE | SITE_LOOPED);
	if ((walk & (WALK_CALLER | WALK_ALL)) && !r->caller && !r->unknown_count &&
	    !(r->flags & SITE_CUT))
		r->flags |= SITE_NOBODY;
	/* That no custom span is on the stack tells that those of before have ended. */
	if (!(r->flags || r->work || r->unknown_count || r->client_len || (walk & WALK_ALL) ||
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
	told = r->client_len;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return told;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
