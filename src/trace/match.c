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

void tracer_span_end(struct tracer *t, struct span *s, const uint8_t *parent_flags)
{
	bool sampled = sampler_decide(&t->options.sampler, s->trace_id, parent_flags);

	if (!sampled) {
		stats_drop(t->stats, DROP_SAMPLED_OUT, 1);
		span_free(s);
		return;
	}
	s->trace_flags = (uint8_t)((parent_flags ? *parent_flags & ~1u : 0u) | 1u);
	if (s->text.failed)
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
	stats_drop(t->stats, DROP_ATTR_LIMIT, s->dropped_attr_count);
	stats_add(t->stats, STATS_SPANS, 1);
	t->ops.span(t->ops.ctx, s);
}

static const uint8_t *context_flags(const struct exchange *ex)
{
	return ex->has_context ? &ex->trace_flags : NULL;
}

/* Tells the linker what calls made in this request will carry. */
static void publish_ids(struct exchange *ex)
{
	struct tracer *t = ex->conn->tracer;

	ex->span->trace_flags = ex->has_context ? ex->trace_flags : 0;
	link_request_ids(
		ex->request, ex->span,
		sampler_decide(&t->options.sampler, ex->span->trace_id, context_flags(ex)));
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
		.within = custom_span_current(t, ev->pid, ev->tid, ev->context, ev->site),
	};

	return link_call_begin(t->linker, &o);
}

void exchange_set_route(struct exchange *ex, const struct runtime_route *route)
{
	struct tracer *t = ex->conn->tracer;
	struct route_info info = { 0 };

	if (ex->route || !t->ops.route || (t->options.no_route && t->options.no_code) ||
	    !link_request_sampled(ex->request) || !t->ops.route(t->ops.ctx, ex->pid, route, &info))
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
	ex->number = ++c->last_number;
	ex->pid = ev->pid;
	ex->tid = ev->tid;
	ex->turn = ev->turn;
	ex->nonblocking = ev->flags & IO_NONBLOCK;
	ex->chunk = connection_stream(c, connection_request_dir(c))->chunk;
	ex->span->start_ns = ev->ts_ns;
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
	if (server)
		publish_ids(ex);
	else
		add_caller(ex, ev);
	list_push(&c->exchanges, &ex->node);
	c->exchange_count++;
	return ex;
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

void exchange_end(struct exchange *ex, uint64_t end_ns)
{
	struct tracer *t = ex->conn->tracer;
	struct span *s = ex->span;
	struct link_point at = now_of(ex->conn);

	ex->span = NULL;
	s->end_ns = end_ns > s->start_ns ? end_ns : s->start_ns;
	if (ex->request) {
		if (ex->conn->event && ex->conn->event->dir == IO_SEND) {
			link_request_active(ex->request, &at);
			link_request_answered(ex->request, at.tid);
		}
		tracer_span_end(t, s, context_flags(ex));
		link_request_end(t->linker, ex->request, at.ns);
	} else {
		link_call_end(t->linker, ex->call, s, &at);
	}
	exchange_free(ex);
}

void exchange_drop(struct exchange *ex)
{
	struct tracer *t = ex->conn->tracer;
	struct link_point at = now_of(ex->conn);

	if (ex->request)
		link_request_end(t->linker, ex->request, at.ns);
	else
		link_call_end(t->linker, ex->call, NULL, &at);
	exchange_free(ex);
}

void exchange_head_read(struct exchange *ex)
{
	const struct io_event *ev = ex->conn->event;

	if (ex->request)
		link_request_head(ex->conn->tracer->linker, ex->request, ev ? ev->context : 0);
}

void exchange_answered(struct exchange *ex)
{
	const struct connection *c = ex->conn;
	/* Only what a transfer begins with is known to be of the context that it was made in. */
	if (ex->request && c->event && c->answer_number == ex->number)
		link_request_root(c->tracer->linker, ex->request, c->event->context,
				  c->event->ts_ns);
}

void exchange_set_context(struct exchange *ex, struct slice traceparent, struct slice tracestate)
{
	struct trace_context ctx;

	/* Only a server span has its parent on the wire; a client's own header is left to the one
	 * who wrote it. */
	if (!ex->request || !trace_context_parse(traceparent, &ctx))
		return;
	ex->has_context = true;
	memcpy(ex->trace_id, ctx.trace_id, sizeof(ex->trace_id));
	memcpy(ex->parent_span_id, ctx.span_id, sizeof(ex->parent_span_id));
	ex->trace_flags = ctx.flags;
	memcpy(ex->span->trace_id, ctx.trace_id, sizeof(ctx.trace_id));
	memcpy(ex->span->parent_span_id, ctx.span_id, sizeof(ctx.span_id));
	ex->span->has_parent = true;
	ex->span->remote_parent = true;
	if (tracestate.len)
		span_set_trace_state(ex->span, tracestate);
	publish_ids(ex);
}
