/*
 * Requests and their answers: exchanges begin and end here, in the order of their connection, and
 * what they become is handed to the linker, the sampler and the receiver of spans. Invariant: an
 * exchange is in its connection's list from begin to end or drop.
 */
#include <stdlib.h>
#include <string.h>

#include "trace/trace_context.h"
#include "trace/tracer_internal.h"

void tracer_span_begin(struct tracer *t, struct span *s, uint32_t pid)
{
	struct resource *r = hash_get(&t->resources, pid);

	if (!r) {
		r = t->ops.resource(t->ops.ctx, pid);
		if (r && !hash_put(&t->resources, pid, r)) {
			resource_put(r);
			r = NULL;
		}
	}
	s->resource = resource_get(r);
	t->ops.random(t->ops.ctx, s->span_id, sizeof(s->span_id));
	t->ops.random(t->ops.ctx, s->trace_id, sizeof(s->trace_id));
}

/* Not sampled, but of the kind that is kept all the same; NULL: not so. Only what a trace may begin
 * with: the calls of a failed request are not kept. */
static const char *kept_for(const struct tracer_options *o, const struct span *s)
{
	if (s->kind != SPAN_SERVER && (s->kind != SPAN_CLIENT || s->has_parent))
		return NULL;
	if (o->keep_errors && s->status == SPAN_STATUS_ERROR)
		return "error";
	return o->keep_slow_ns && s->end_ns - s->start_ns >= o->keep_slow_ns ? "slow" : NULL;
}

void tracer_span_end(struct tracer *t, struct span *s, uint8_t flags)
{
	const char *kept = flags & 1 ? NULL : kept_for(&t->options, s);

	if (!(flags & 1) && !kept) {
		stats_drop(t->stats, DROP_SAMPLED_OUT, 1);
		span_free(s);
		return;
	}
	if (kept)
		span_add_str(s, "spanloom.kept", slice_str(kept));
	s->trace_flags = flags;
	if (s->text.failed)
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
	stats_drop(t->stats, DROP_ATTR_LIMIT, s->dropped_attr_count);
	stats_add(t->stats, STATS_SPANS, 1);
	t->ops.span(t->ops.ctx, s);
}

bool tracer_leaves_out(struct tracer *t, uint32_t pid)
{
	if (!t->ops.silent || !t->ops.silent(t->ops.ctx, pid))
		return false;
	stats_drop(t->stats, DROP_SDK_ACTIVE, 1);
	return true;
}

static bool may_keep(const struct tracer *t, const struct exchange *ex)
{
	return link_request_sampled(ex->request) || t->options.keep_errors ||
	       t->options.keep_slow_ns;
}

void tracer_add_code(struct span *s, const struct code_info *code)
{
	if (code->function.len)
		span_add_str(s, "code.function.name", code->function);
	if (code->file.len)
		span_add_str(s, "code.file.path", code->file);
	if (code->file.len && code->line)
		span_add_int(s, "code.line.number", code->line);
}

void tracer_remove_code(struct span *s)
{
	span_remove_attr(s, "code.function.name");
	span_remove_attr(s, "code.file.path");
	span_remove_attr(s, "code.line.number");
}

/* The process may be gone when the span ends, so it is asked now. */
static void add_caller(struct exchange *ex, const struct io_event *ev)
{
	struct tracer *t = ex->conn->tracer;
	struct code_info code = { 0 };
	uint64_t caller;

	if (!ev->site || t->options.no_code || !t->ops.code || !link_call_sampled(ex->call))
		return;
	caller = ev->site->nobody ? link_call_maker(ex->call) : ev->site->caller;
	if (caller && t->ops.code(t->ops.ctx, ev->pid, caller, &code))
		tracer_add_code(ex->span, &code);
}

static struct call *begin_call(struct exchange *ex)
{
	struct tracer *t = ex->conn->tracer;
	const struct io_event *ev = ex->conn->event;
	const struct link_origin o = {
		.pid = ev->pid,
		.conn_id = ex->conn->info.conn_id,
		.at = { ev->ts_ns, ev->tid, ev->turn },
		.context = ev->context,
		.site = ev->site,
		.span = ex->span,
		.within = custom_span_current(t, ev->pid, ev->tid, ev->context, ev->site),
	};

	return link_call_begin(t->linker, &o);
}

/* Did something match whose template isn't known? `known`: what the runtime made of it. */
static bool route_lost(const struct runtime_route *route, bool known, const struct route_info *info)
{
	return (route->route || route->route_context || route->endpoint) && !info->route.len &&
	       (route->scope || !known);
}

void exchange_set_route(struct exchange *ex, const struct runtime_route *route)
{
	struct tracer *t = ex->conn->tracer;
	struct route_info info = { 0 };
	bool known;

	if (ex->route || !t->ops.route || (t->options.no_route && t->options.no_code) ||
	    !may_keep(t, ex))
		return;
	known = t->ops.route(t->ops.ctx, ex->pid, route, &info);
	if (!t->options.no_route && route_lost(route, known, &info))
		stats_drop(t->stats, DROP_ROUTE_UNKNOWN, 1);
	if (!known)
		return;
	if (!t->options.no_route && info.route.len) {
		ex->route = strndup((const char *)info.route.data, info.route.len);
		if (!ex->route)
			stats_drop(t->stats, DROP_NO_MEMORY, 1);
	}
	if (!t->options.no_code && !ex->has_code) {
		ex->has_code = true;
		tracer_add_code(ex->span, &info.endpoint);
	}
}

/* Looks for the other end; `key` of method and target, once they are known. */
static void join(struct exchange *ex, uint64_t key)
{
	struct connection *c = ex->conn;
	struct tracer *t = c->tracer;
	const struct join_point at = {
		.has_seq = ex->has_seq,
		.seq = ex->seq,
		.peer_seq = ex->peer_seq,
		.number = ex->number,
		.alone = c->exchange_count == 1,
		.first = ex->first,
		.key = key,
	};

	/* Unix sockets have no numbers to know each other by. */
	if (!c->protocol->joins || !key == (c->info.family == CONN_UNIX) ||
	    (t->ops.silent && t->ops.silent(t->ops.ctx, ex->pid)))
		return;
	if (ex->request)
		join_request(&t->join, c->join, ex->request, &at);
	else
		join_call(&t->join, c->join, ex->call, &at);
}

struct exchange *exchange_begin(struct connection *c)
{
	struct tracer *t = c->tracer;
	const struct io_event *ev = c->event;
	struct exchange *ex = calloc(1, sizeof(*ex));
	bool server = c->role == ROLE_SERVER;

	if (ex)
		ex->span = span_new(server ? SPAN_SERVER : SPAN_CLIENT);
	if (!ex || !ex->span) {
		free(ex);
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	list_init(&ex->node);
	ex->conn = c;
	ex->number = c->join->last_number = ++c->last_number;
	ex->pid = ev->pid;
	ex->tid = ev->tid;
	ex->turn = ev->turn;
	ex->nonblocking = ev->flags & IO_NONBLOCK;
	ex->chunk = connection_stream(c, connection_request_dir(c))->chunk;
	ex->span->start_ns = ev->ts_ns;
	ex->has_seq = ev->tcp_seq || ev->tcp_peer_seq;
	ex->seq = ev->tcp_seq + ev->captured - (uint32_t)c->rest;
	ex->peer_seq = ev->tcp_peer_seq;
	ex->first = !c->moved[!ev->dir] && c->moved[ev->dir] + ev->captured == c->rest;
	tracer_span_begin(t, ex->span, ex->pid);
	if (server)
		ex->request = link_request_begin(t->linker, ex);
	else
		ex->call = begin_call(ex);
	if (!ex->request && !ex->call) {
		span_free(ex->span);
		free(ex);
		return NULL;
	}
	list_push(&c->exchanges, &ex->node);
	c->exchange_count++;
	exchange_take_ids(ex);
	if (!server)
		add_caller(ex, ev);
	join(ex, 0);
	return ex;
}

void exchange_crowded(const struct exchange *before, const struct exchange *ex)
{
	const struct io_event *ev = ex->conn->event;
	uint64_t first = ev->flags & IO_SAME_CALL ? 1 : 0; /* bytes in front of these */
	bool same = before && before->chunk == ex->chunk;

	if (!ex->call)
		return;
	if (same)
		link_call_crowded(before->call);
	if (same || ev->captured + first > ex->conn->rest)
		link_call_crowded(ex->call);
}

struct exchange *exchange_first(struct connection *c)
{
	return list_empty(&c->exchanges) ? NULL
					 : list_entry(c->exchanges.next, struct exchange, node);
}

struct exchange *exchange_last(struct connection *c)
{
	return list_empty(&c->exchanges) ? NULL
					 : list_entry(c->exchanges.prev, struct exchange, node);
}

static void exchange_free(struct exchange *ex)
{
	list_remove(&ex->node);
	ex->conn->exchange_count--;
	span_free(ex->span);
	free(ex->route);
	free(ex);
}

static struct link_point now_of(const struct connection *c)
{
	const struct io_event *ev = c->event;

	return (struct link_point){ connection_now(c), ev ? ev->tid : 0, ev ? ev->turn : 0 };
}

static void end_request(struct exchange *ex, struct span *s, const struct link_point *at)
{
	const struct io_event *ev = ex->conn->event;
	struct linker *l = ex->conn->tracer->linker;

	if (ev && ev->dir == IO_SEND) {
		link_request_active(ex->request, at);
		link_request_answered(l, ex->request, at->tid);
		link_request_passes(l, ex->request, ev, 0);
	}
	link_request_end(l, ex->request, s, at->ns);
}

static void end_call(struct exchange *ex, struct span *s, const struct link_point *at, bool whole)
{
	struct connection *c = ex->conn;
	struct tracer *t = c->tracer;

	if (whole && c->event && c->event->dir == IO_RECV)
		link_call_hears(t->linker, ex->call, c->event, 0);
	join_call_over(&t->join, c->join, ex->call, at->ns,
		       whole && c->exchange_count == 1 && !c->lost);
	link_call_end(t->linker, ex->call, s, at);
}

/* `whole`: its answer was seen to its end, or it has none. */
static void end_exchange(struct exchange *ex, uint64_t end_ns, bool whole)
{
	struct tracer *t = ex->conn->tracer;
	struct span *s = ex->span;
	struct link_point at = now_of(ex->conn);

	ex->span = NULL;
	s->end_ns = end_ns > s->start_ns ? end_ns : s->start_ns;
	if (ex->exports)
		stats_drop(t->stats, DROP_SDK_ACTIVE, 1);
	if (ex->exports || tracer_leaves_out(t, ex->pid)) {
		span_free(s);
		s = NULL;
	}
	if (ex->request)
		end_request(ex, s, &at);
	else
		end_call(ex, s, &at, whole);
	exchange_free(ex);
}

void exchange_end(struct exchange *ex, uint64_t end_ns)
{
	end_exchange(ex, end_ns, true);
}

void exchange_drop(struct exchange *ex)
{
	struct tracer *t = ex->conn->tracer;
	struct link_point at = now_of(ex->conn);

	if (ex->named && ex->head_read && ex->span->name_len) {
		span_add_str(ex->span, "spanloom.answer", slice_str("lost"));
		end_exchange(ex, ex->response_ns, false);
		return;
	}
	if (ex->request) {
		link_request_end(t->linker, ex->request, NULL, at.ns);
	} else {
		join_call_over(&t->join, ex->conn->join, ex->call, at.ns, false);
		link_call_end(t->linker, ex->call, NULL, &at);
	}
	exchange_free(ex);
}

void exchange_head_read(struct exchange *ex)
{
	const struct io_event *ev = ex->conn->event;

	ex->head_read = true;
	if (ex->request)
		link_request_head(ex->conn->tracer->linker, ex->request, ev ? ev->context : 0);
}

void exchange_answered(struct exchange *ex, int status)
{
	const struct connection *c = ex->conn;
	struct linker *l = c->tracer->linker;

	if (!c->event)
		return;
	if (ex->call) {
		link_call_hears(l, ex->call, c->event, status);
		return;
	}
	link_request_passes(l, ex->request, c->event, status);
	/* Only what a transfer begins with is known to be of the context that it was made in. */
	if (c->answer_number == ex->number)
		link_request_root(l, ex->request, c->event->context, c->event->ts_ns);
}

void connection_exports(struct connection *c)
{
	const struct tracer *t = c->tracer;

	if (t->ops.exports && c->event)
		t->ops.exports(t->ops.ctx, c->event->pid);
}

void exchange_exports(struct exchange *ex)
{
	if (!ex->call || link_call_passes_on(ex->call))
		return;
	ex->exports = true;
	connection_exports(ex->conn);
}

/* FNV-1a. */
static uint64_t hash_bytes(uint64_t h, struct slice s)
{
	size_t i;

	for (i = 0; i < s.len; i++)
		h = (h ^ s.data[i]) * 0x100000001b3;
	return (h ^ s.len) * 0x100000001b3;
}

void exchange_set_target(struct exchange *ex, struct slice method, struct slice target)
{
	struct linker *l = ex->conn->tracer->linker;
	uint64_t key = hash_bytes(hash_bytes(0xcbf29ce484222325, method), target);

	key = key ? key : 1;
	if (ex->call)
		link_call_target(l, ex->call, key);
	else if (ex->conn->exchange_count == 1)
		link_request_target(l, ex->request, key);
	join(ex, key);
}

void exchange_set_context(struct exchange *ex, struct slice traceparent, struct slice tracestate)
{
	struct linker *l = ex->conn->tracer->linker;
	struct trace_context ctx;

	if (!trace_context_parse(traceparent, &ctx))
		return;
	if (ex->call)
		link_call_header(l, ex->call, &ctx, connection_now(ex->conn));
	else if (link_request_remote(ex->request, &ctx) && tracestate.len)
		span_set_trace_state(ex->span, tracestate);
}
