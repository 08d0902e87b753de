/*
 * The two directions between the layers: records of the ring become calls of the tracer, and what
 * the tracer asks for is done here. Each function only passes on.
 */
#include "agent_internal.h"

#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "export/queue.h"
#include "python_layout.h"

/* --- what the tracer asks for --- */

static bool on_code(void *ctx, uint32_t pid, uint64_t code, struct code_info *ret)
{
	return agent_runtime_code(((struct agent *)ctx)->runtime, pid, code, ret);
}

static bool on_route(void *ctx, uint32_t pid, const struct runtime_route *route,
		     struct route_info *ret)
{
	return agent_runtime_route(((struct agent *)ctx)->runtime, pid, route, ret);
}

static void on_span(void *ctx, struct span *s)
{
	struct agent *a = ctx;

	export_queue_push(a->queue, s, a->now_ns);
	if (a->room && a->room != SIZE_MAX)
		a->room--;
}

static struct resource *on_resource(void *ctx, uint32_t pid)
{
	struct agent *a = ctx;
	struct resource *r = resource_detect(&a->resources, pid, NULL);

	if (r)
		agent_runtime_describe(a->runtime, pid, r);
	return r;
}

static void on_ignore(void *ctx, uint64_t conn_id)
{
	struct agent *a = ctx;

	probe_ignore(a->probe, conn_id);
}

static void on_random(void *ctx, uint8_t *data, size_t len)
{
	struct agent *a = ctx;

	if (a->random_used + len > sizeof(a->random)) {
		size_t have = 0;

		while (have < sizeof(a->random)) {
			ssize_t n = getrandom(a->random + have, sizeof(a->random) - have, 0);

			if (n > 0)
				have += (size_t)n;
		}
		a->random_used = 0;
	}
	memcpy(data, a->random + a->random_used, len);
	a->random_used += len;
}

static void on_trust(void *ctx, uint32_t pid, uint32_t trust)
{
	agent_process_trust(((struct agent *)ctx)->processes, pid,
			    (trust & TRACER_TRUST_CONTEXTS ? PROBE_TRUST_CONTEXTS : 0u) |
				    (trust & TRACER_TRUST_THREADS ? PROBE_TRUST_THREADS : 0u));
}

static void on_handlers(void *ctx, uint32_t pid, const uint64_t *contexts)
{
	const struct agent *a = ctx;
	struct context_handlers h = { .since = (uint32_t)(a->now_ns >> 20) };
	int err;

	_Static_assert((int)TRACER_HANDLERS_MAX == (int)HANDLERS_MAX, "as many as are told");
	memcpy(h.context, contexts, sizeof(h.context));
	err = probe_set_handlers(a->probe, pid, &h);
	if (err)
		log_debug("process %u: its requests get no roots in the kernel: %s", pid,
			  strerror(-err));
}

static bool on_silent(void *ctx, uint32_t pid)
{
	struct agent *a = ctx;

	return agent_process_silent(a->processes, pid, a->now_ns);
}

static void on_exports(void *ctx, uint32_t pid)
{
	agent_process_exports(((struct agent *)ctx)->processes, pid);
}

/* --- what the table of processes asks for --- */

static void on_follow(void *ctx, uint32_t pid, enum agent_follow how)
{
	struct agent *a = ctx;
	int n;

	if (how == AGENT_FOLLOW_NOT) {
		agent_runtime_end(a->runtime, pid);
		return;
	}
	agent_runtime_begin(a->runtime, pid,
			    how == AGENT_FOLLOW_THERE ? RUNTIME_THERE : RUNTIME_FORKED);
	if (how == AGENT_FOLLOW_BORN)
		return; /* what it has is its parent's */
	n = probe_adopt(a->probe, pid);
	if (n < 0)
		log_debug("the open connections of process %u get no headers: %s", pid,
			  strerror(-n));
	else if (n)
		log_debug("process %u: %d open connections are taken over", pid, n);
}

/* --- what comes off the ring --- */

static void on_io(void *ctx, const struct io_event *ev)
{
	tracer_io(((struct agent *)ctx)->tracer, ev);
}

static void on_request(void *ctx, const struct request_event *ev)
{
	tracer_request(((struct agent *)ctx)->tracer, ev);
}

static void on_conn_open(void *ctx, const struct conn_info *info)
{
	tracer_conn_open(((struct agent *)ctx)->tracer, info);
}

static void on_conn_close(void *ctx, uint64_t conn_id, uint64_t ts_ns)
{
	tracer_conn_close(((struct agent *)ctx)->tracer, conn_id, ts_ns);
}

static void on_connect_failed(void *ctx, const struct connect_failure *f)
{
	tracer_connect_failed(((struct agent *)ctx)->tracer, f);
}

static void on_thread_start(void *ctx, uint32_t pid, uint32_t tid, uint32_t parent_tid,
			    uint64_t ts_ns)
{
	tracer_thread_start(((struct agent *)ctx)->tracer, pid, tid, parent_tid, ts_ns);
}

static void on_thread_exit(void *ctx, uint32_t pid, uint32_t tid, uint64_t ts_ns)
{
	tracer_thread_exit(((struct agent *)ctx)->tracer, pid, tid, ts_ns);
}

static void on_process_fork(void *ctx, uint32_t pid, uint32_t parent_pid)
{
	/* and on_trace() from there */
	attach_on_fork(&((struct agent *)ctx)->attach, pid, parent_pid);
}

static void on_process_exec(void *ctx, uint32_t pid)
{
	struct agent *a = ctx;

	tracer_process_changed(a->tracer, pid);
	agent_runtime_changed(a->runtime, pid);
	agent_process_changed(a->processes, pid, a->now_ns);
	attach_on_change(&a->attach, pid);
}

static void on_process_exit(void *ctx, uint32_t pid, uint64_t ts_ns)
{
	struct agent *a = ctx;

	tracer_process_exit(a->tracer, pid, ts_ns);
	agent_runtime_end(a->runtime, pid);
	agent_process_end(a->processes, pid);
	attach_on_exit(&a->attach, pid);
}

static void on_process_cgroup(void *ctx, uint32_t pid)
{
	attach_on_change(&((struct agent *)ctx)->attach, pid);
}

static void on_listen(void *ctx, uint32_t pid, uint16_t port)
{
	struct agent *a = ctx;

	agent_runtime_listens(a->runtime, pid);
	agent_process_listens(a->processes, pid);
	attach_on_listen(&a->attach, pid, port);
}

static void on_context(void *ctx, const struct context_event *ev)
{
	tracer_context(((struct agent *)ctx)->tracer, ev);
}

static void on_native_span(void *ctx, const struct native_span_event *ev)
{
	tracer_native_span(((struct agent *)ctx)->tracer, ev);
}

static void on_code_unknown(void *ctx, uint32_t pid, uint64_t code)
{
	agent_runtime_code_unknown(((struct agent *)ctx)->runtime, pid, code);
}

static void on_lost(void *ctx, uint64_t ts_ns)
{
	(void)ts_ns;
	((struct agent *)ctx)->lost = true;
	tracer_lost(((struct agent *)ctx)->tracer);
}

static bool on_full(void *ctx)
{
	return ((struct agent *)ctx)->room == 0;
}

struct tracer_ops agent_tracer_ops(struct agent *a)
{
	return (struct tracer_ops){
		.span = on_span,
		.resource = on_resource,
		.ignore = on_ignore,
		.random = on_random,
		.code = on_code,
		.route = on_route,
		.trust = on_trust,
		.handlers = on_handlers,
		.silent = a->options->keep_sdk ? NULL : on_silent,
		.exports = a->options->keep_sdk ? NULL : on_exports,
		.ctx = a,
	};
}

struct agent_process_ops agent_process_ops(struct agent *a)
{
	return (struct agent_process_ops){ .follow = on_follow, .ctx = a };
}

struct probe_sink agent_sink(struct agent *a)
{
	return (struct probe_sink){
		.io = on_io,
		.request = on_request,
		.conn_open = on_conn_open,
		.conn_close = on_conn_close,
		.connect_failed = on_connect_failed,
		.thread_start = on_thread_start,
		.thread_exit = on_thread_exit,
		.process_fork = on_process_fork,
		.process_exec = on_process_exec,
		.process_exit = on_process_exit,
		.process_cgroup = on_process_cgroup,
		.listen = on_listen,
		.context = on_context,
		.native_span = on_native_span,
		.code_unknown = on_code_unknown,
		.lost = on_lost,
		.full = on_full,
		.ctx = a,
	};
}
