/*
 * The probes in a process's own code, each attached for one process: where CPython copies contexts
 * and hands work to executors, where uvloop puts a write off, where a native function that is a
 * custom span begins and ends. Invariant: nothing is reported of a process that isn't traced.
 */
#include "connection.bpf.h"
#include "context.bpf.h"
#include "descriptor.bpf.h"

static __always_inline int context_copied_to(u64 child, bool certain)
{
	if (child)
		context_handed_on(CONTEXT_COPIED, child, certain);
	return 0;
}

/*
 * At the return of a function that gives a new context. Before 6.12 a process comes here once for
 * each process that has this probe in the same file: the cookie says whose it is (0: the kernel has
 * seen to it).
 */
SEC("uretprobe")
int context_copied(struct pt_regs *ctx)
{
	u64 pid = bpf_get_attach_cookie(ctx);

	if (pid && pid != bpf_get_current_pid_tgid() >> 32)
		return 0;
	return context_copied_to(probe_result(ctx), true);
}

/* Within such a function, or at its RET instructions. */
SEC("uprobe")
int context_in_rax(struct pt_regs *ctx)
{
	return context_copied_to(probe_result(ctx), false);
}

SEC("uprobe")
int context_in_rbx(struct pt_regs *ctx)
{
	return context_copied_to(probe_rbx(ctx), false);
}

/* _queue.SimpleQueue.put(self, args, nargs, kwnames): args[0] is the item (METH_FASTCALL). */
SEC("uprobe")
int item_submitted(struct pt_regs *ctx)
{
	u64 item = user_word(probe_second_argument(ctx));

	if (item)
		context_handed_on(CONTEXT_SUBMITTED, item, true);
	return 0;
}

/* Of a uvloop.loop.UVStream (0.15 to 0.22), its uv_stream_t, and the io_watcher in there. */
enum {
	STREAM_HANDLE = 24,
	STREAM_BUFFERED = 304, /* bytes in _buffer */
	HANDLE_QUEUED = 96,    /* bytes that libuv has: write_queue_size */
	HANDLE_FD = 184,
};

/* The descriptor behind a stream's handle. -1: it could not be read. */
static __always_inline s32 uvloop_descriptor(u64 handle)
{
	s32 fd = -1;

	if (!handle || bpf_probe_read_user(&fd, sizeof(fd), (const void *)(handle + HANDLE_FD)))
		return -1;
	return fd;
}

/* Is something of what was written before still to be sent? Not where all of that was empty. */
static __always_inline bool uvloop_has_bytes(u64 stream, u64 handle)
{
	u64 buffered = 1, queued = 1;

	bpf_probe_read_user(&buffered, sizeof(buffered), (const void *)(stream + STREAM_BUFFERED));
	bpf_probe_read_user(&queued, sizeof(queued), (const void *)(handle + HANDLE_QUEUED));
	return buffered || queued;
}

/* The state of the connection behind a descriptor, made where there is none. NULL: no stream. */
static __always_inline struct conn_state *descriptor_conn(u32 fd)
{
	struct open_socket s = {};
	const struct sock *sk;
	struct conn_state *c;
	u16 family;
	u64 key;

	if (socket_of_fd(fd, &s))
		return 0;
	sk = s.sk;
	if (BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
		return 0;
	key = (u64)sk;
	c = bpf_map_lookup_elem(&conns, &key);
	if (c && ((family != AF_UNIX && c->family != AF_UNIX) || c->inode == s.inode))
		return c;
	return conn_create(key, family, s.inode);
}

/*
 * What is written now is sent at the end of the loop's turn, in no context. What several contexts
 * have written is nobody's, since it can't be told apart in what is sent; the end of an answer and
 * the beginning of the next one are such, unless that end is empty.
 */
static __always_inline int written_late(u64 stream)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	const struct python_layout *l = python_layout_of(pid);
	u64 handle = user_word(stream + STREAM_HANDLE);
	s32 fd = uvloop_descriptor(handle);
	u32 process = traced_flags(pid), tid = (u32)bpf_get_current_pid_tgid();
	struct python_now now = {};
	struct owner o = {};
	struct conn_state *c;
	bool waiting;

	if (!l || (process & TRACED_SILENT))
		return 0;
	c = fd < 0 ? 0 : descriptor_conn(fd);
	if (!c) {
		/* A pipe is no loss. */
		if (fd < 0)
			count_drop(DROP_LATE_WRITE_LOST);
		return 0;
	}
	waiting = (c->flags & (CONN_LATE | CONN_LATE_OLD)) == CONN_LATE &&
		  uvloop_has_bytes(stream, handle);
	if (conn_ignored(c) || python_look(l, &now))
		return 0;
	/* Not where it is what was left of the answer before. */
	if ((c->flags & CONN_PASSIVE) && !owner_of(pid, tid, process, now.context, 0, &o))
		window_spoilt(tid, c->id);
	if (waiting) {
		if (late_waiting(c, pid) != now.context)
			c->late_context = 0;
		return 0;
	}
	late_waits(c, pid, now.context);
	c->flags = (c->flags & ~CONN_LATE_OLD) | CONN_LATE;
	if (now.state && c->dir != IO_RECORD_SEND &&
	    !(c->flags & CONN_PASSIVE ? ids_unsampled(&c->request.ids)
				      : work_unsampled(pid, tid, process, now.context)))
		runtime_tell(c, pid, now.state, now.context, c->id);
	return 0;
}

SEC("uprobe")
int late_write(struct pt_regs *ctx)
{
	return written_late(probe_first_argument(ctx));
}

static __always_inline int native_span(u64 stack, u32 rule, u8 left)
{
	u64 pid_tid = bpf_get_current_pid_tgid();
	u32 flags = traced_flags(pid_tid >> 32);
	struct native_span_record *r;
	u64 context;

	if (!flags || (flags & TRACED_SILENT))
		return 0;
	context = flags & TRACED_PYTHON ? python_context(pid_tid >> 32) : 0;
	r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);
	if (!r) {
		ring_lost();
		return 0;
	}
	r->type = RECORD_NATIVE_SPAN;
	r->left = left;
	r->zero = 0;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->context = context;
	r->stack = stack;
	r->pid = pid_tid >> 32;
	r->tid = (u32)pid_tid;
	r->rule = rule;
	r->turn = current_turn();
	bpf_ringbuf_submit(r, ring_wake_flags());
	return 0;
}

/* At both places the stack pointer is at the return address. The cookie is the rule. */
SEC("uprobe")
int native_entered(struct pt_regs *ctx)
{
	return native_span(probe_stack(ctx), bpf_get_attach_cookie(ctx), 0);
}

SEC("uprobe")
int native_left(struct pt_regs *ctx)
{
	return native_span(probe_stack(ctx), bpf_get_attach_cookie(ctx), 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
