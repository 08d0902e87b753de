/*
 * The front of the pure core: finds the connection of each event, bounds how many there are, and
 * passes on what concerns threads and processes. Invariant: every connection is in the table and in
 * the list by use.
 */
#include "trace/tracer.h"

#include <errno.h>
#include <stdlib.h>

#include "trace/net_attrs.h"
#include "trace/tracer_internal.h"

#define QUIET_NS \
	400000000ull /* after this without an event an exchange that can't be followed is ended */

enum { MAX_CONNECTIONS = 16384 };

static void on_linked(void *ctx, struct span *s, uint8_t flags)
{
	tracer_span_end(ctx, s, flags);
}

static void on_not_made(void *ctx, struct span *s)
{
	(void)ctx;
	tracer_remove_code(s);
}

static uint8_t decide(void *ctx, const uint8_t *trace_id, const uint8_t *parent_flags)
{
	const struct tracer *t = ctx;
	bool sampled = sampler_decide(&t->options.sampler, trace_id, parent_flags);

	return (uint8_t)((parent_flags ? *parent_flags & ~1u : 0u) | sampled);
}

static void on_trust(void *ctx, uint32_t pid, uint32_t trust)
{
	const struct tracer *t = ctx;

	if (t->ops.trust)
		t->ops.trust(t->ops.ctx, pid, trust);
}

static void on_handlers(void *ctx, uint32_t pid, const uint64_t *contexts)
{
	const struct tracer *t = ctx;

	if (t->ops.handlers)
		t->ops.handlers(t->ops.ctx, pid, contexts);
}

static bool is_silent(void *ctx, uint32_t pid)
{
	const struct tracer *t = ctx;

	return t->ops.silent && t->ops.silent(t->ops.ctx, pid);
}

struct tracer *tracer_new(const struct tracer_options *options, const struct tracer_ops *ops,
			  struct stats *stats)
{
	struct tracer *t = calloc(1, sizeof(*t));
	struct linker_ops linker_ops = {
		.linked = on_linked,
		.not_made = on_not_made,
		.decide = decide,
		.trust = on_trust,
		.handlers = on_handlers,
		.silent = is_silent,
		.ctx = t,
	};

	if (!t)
		return NULL;
	t->options = *options;
	if (!t->options.max_connections)
		t->options.max_connections = MAX_CONNECTIONS;
	t->ops = *ops;
	t->stats = stats;
	list_init(&t->by_use);
	t->linker = linker_new(&linker_ops, stats);
	if (!t->linker) {
		free(t);
		return NULL;
	}
	join_init(&t->join, t->linker, stats);
	return t;
}

void tracer_free(struct tracer *t)
{
	struct list *it, *tmp;
	void *value;
	size_t pos = 0;

	if (!t)
		return;
	list_each_safe(it, tmp, &t->by_use)
		connection_free(list_entry(it, struct connection, node));
	custom_span_free(t);
	join_free(&t->join);
	linker_free(t->linker);
	while (hash_next(&t->resources, &pos, NULL, &value))
		resource_put(value);
	hash_free(&t->resources);
	hash_free(&t->connections);
	free(t);
}

void tracer_see_time(struct tracer *t, uint64_t ts_ns)
{
	if (ts_ns > t->now_ns)
		t->now_ns = ts_ns;
}

void tracer_conn_open(struct tracer *t, const struct conn_info *info)
{
	struct connection *old = hash_get(&t->connections, info->conn_id);

	tracer_see_time(t, info->ts_ns);
	if (old)
		connection_close(old, info->ts_ns);
	if (t->connections.count >= t->options.max_connections) {
		struct connection *c = list_entry(t->by_use.next, struct connection, node);

		stats_drop(t->stats, DROP_CONN_LIMIT, 1);
		if (c->role == ROLE_SERVER || (c->info.flags & CONN_PASSIVE))
			link_opaque(t->linker, c->info.pid);
		if (t->ops.ignore)
			t->ops.ignore(t->ops.ctx, c->info.conn_id);
		connection_free(c);
	}
	connection_new(t, info);
	link_connected(t->linker, info);
}

static void see_site(struct tracer *t, const struct io_event *ev)
{
	const struct custom_point at = { ev->pid, ev->tid, ev->turn, ev->ts_ns, ev->context };

	if (ev->site->client.known)
		link_serves(t->linker, ev->pid, ev->context, &ev->site->client, ev->ts_ns);
	custom_span_see(t, &at, ev->site);
}

void tracer_io(struct tracer *t, const struct io_event *ev)
{
	struct connection *c = hash_get(&t->connections, ev->conn_id);

	tracer_see_time(t, ev->ts_ns);
	link_transfer(t->linker, ev);
	if (ev->site)
		see_site(t, ev);
	if (!c)
		return; /* given up: CONN_LIMIT was counted and the kernel told */
	list_remove(&c->node);
	list_push(&t->by_use, &c->node);
	connection_feed(c, ev);
}

void tracer_conn_close(struct tracer *t, uint64_t conn_id, uint64_t ts_ns)
{
	struct connection *c = hash_get(&t->connections, conn_id);

	tracer_see_time(t, ts_ns);
	if (c)
		connection_close(c, ts_ns);
}

void tracer_connect_failed(struct tracer *t, const struct connect_failure *f)
{
	const struct conn_info *info = &f->conn;
	const struct connection c = { .info = *info, .role = ROLE_CLIENT };
	struct net_text net = { 0 };
	struct link_origin begin = {
		.pid = info->pid,
		.at = { info->ts_ns, info->tid, 0 },
		.context = info->connect_context,
		.within = custom_span_current(t, info->pid, info->tid, info->connect_context, NULL),
	};
	const struct link_point end = { f->end_ns, info->tid, 0 };
	struct span *s;
	struct call *call = NULL;

	tracer_see_time(t, f->end_ns);
	if (!link_is_handling(t->linker, info->pid, info->connect_context))
		return; /* of interest to the request that wanted the connection only */
	if (tracer_leaves_out(t, info->pid))
		return;
	begin.span = s = span_new(SPAN_CLIENT);
	if (s) {
		tracer_span_begin(t, s, info->pid);
		call = link_call_begin(t->linker, &begin);
	}
	if (!call) {
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
		span_free(s);
		return;
	}
	s->start_ns = info->ts_ns;
	s->end_ns = f->end_ns > info->ts_ns ? f->end_ns : info->ts_ns;
	span_set_name(s, slice_str("connect"));
	net_text_make(&net, &c);
	net_add_server(s, &net, &c);
	net_add_peer(s, &net, &c);
	/* The process gave up before an answer came: nothing else makes it close a socket that
	 * still connects. */
	span_set_error(s, f->error == -ECANCELED ? slice_str("timeout") : net_error_type(f->error));
	link_call_end(t->linker, call, s, &end);
}

void tracer_thread_start(struct tracer *t, uint32_t pid, uint32_t tid, uint32_t parent_tid,
			 uint64_t ts_ns)
{
	tracer_see_time(t, ts_ns);
	link_thread_start(t->linker, pid, tid, parent_tid, ts_ns);
}

void tracer_thread_exit(struct tracer *t, uint32_t pid, uint32_t tid, uint64_t ts_ns)
{
	tracer_see_time(t, ts_ns);
	custom_span_thread_exit(t, pid, tid);
	link_thread_exit(t->linker, pid, tid, ts_ns);
}

void tracer_process_exit(struct tracer *t, uint32_t pid, uint64_t ts_ns)
{
	struct list *it, *tmp;

	tracer_see_time(t, ts_ns);
	list_each_safe(it, tmp, &t->by_use) {
		struct connection *c = list_entry(it, struct connection, node);

		if (c->info.pid == pid)
			connection_close(c, ts_ns);
	}
	custom_span_process_exit(t, pid);
	link_process_exit(t->linker, pid, ts_ns);
	resource_put(hash_remove(&t->resources, pid));
}

void tracer_process_changed(struct tracer *t, uint32_t pid)
{
	resource_put(hash_remove(&t->resources, pid));
	custom_span_process_exit(t, pid);
	link_process_changed(t->linker, pid, t->now_ns);
}

void tracer_lost(struct tracer *t)
{
	custom_span_end_all(t);
	link_lost(t->linker, t->now_ns);
}

/* The list is in the order of the last event: behind the first that is not quiet none is. */
static void settle_quiet(struct tracer *t)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &t->by_use) {
		struct connection *c = list_entry(it, struct connection, node);

		if (c->last_event_ns + QUIET_NS > t->now_ns)
			return;
		if (c->exchange_count && c->protocol->quiet)
			c->protocol->quiet(c);
	}
}

void tracer_tick(struct tracer *t, uint64_t now_ns)
{
	tracer_see_time(t, now_ns);
	if (now_ns >= t->next_settle_ns) {
		t->next_settle_ns = now_ns + QUIET_NS / 2;
		settle_quiet(t);
	}
	link_tick(t->linker, now_ns);
	join_tick(&t->join, now_ns);
	custom_span_tick(t, now_ns);
}

void tracer_flush(struct tracer *t, uint64_t now_ns)
{
	custom_span_end_all(t);
	link_flush(t->linker, now_ns);
}
