/*
 * The ids that the kernel side gives to requests and calls before their bytes are seen. It finds
 * the exchange that each is for. Invariant: an exchange takes ids once, and those of another
 * request never.
 */
#include "trace/tracer_internal.h"

static bool has_seq(const struct request_event *ev)
{
	return ev->tcp_seq || ev->tcp_peer_seq;
}

bool connection_begins_surely(const struct connection *c, const struct io_event *ev)
{
	const struct request_event *next = &c->next;

	if (!c->has_next || !next->added || next->flags & REQUEST_EVENT_SERVER ||
	    c->role != ROLE_CLIENT || ev->dir != IO_SEND || !ev->captured ||
	    ev->flags & (IO_SAME_CALL | IO_LOST))
		return false;
	return ev->tcp_seq == next->tcp_seq || ev->tcp_seq == next->tcp_seq + next->added;
}

static void apply(struct exchange *ex, const struct request_event *ev)
{
	struct linker *l = ex->conn->tracer->linker;

	ex->identified = true;
	ex->named = ev->flags & REQUEST_EVENT_INJECTED;
	if (ex->request) {
		link_request_ids(l, ex->request, ev);
		return;
	}
	link_call_ids(l, ex->call, ev);
	memcpy(ex->span->span_id, ev->span_id, sizeof(ev->span_id));
	if (ev->ts_ns && ev->ts_ns < ex->span->start_ns)
		ex->span->start_ns = ev->ts_ns;
	if (has_seq(ev)) {
		ex->has_seq = true;
		ex->seq = ev->tcp_seq;
		ex->peer_seq = ev->tcp_peer_seq;
	}
}

/* What was put in behind the request line is not in the length of the transfer. */
static bool is_first_byte(const struct exchange *ex, const struct request_event *ev)
{
	if (!has_seq(ev) || !ex->has_seq)
		return true;
	return ex->seq == ev->tcp_seq ||
	       (!(ev->flags & REQUEST_EVENT_SERVER) && ex->seq == ev->tcp_seq + ev->added);
}

void exchange_take_ids(struct exchange *ex)
{
	struct connection *c = ex->conn;

	if (!c->has_next || !!(c->next.flags & REQUEST_EVENT_SERVER) != !!ex->request ||
	    !is_first_byte(ex, &c->next))
		return;
	c->has_next = false;
	apply(ex, &c->next);
}

void connection_forget_ids(struct connection *c, const struct io_event *ev)
{
	if (!c->has_next || !c->protocol || !ev->length || ev->dir != connection_request_dir(c))
		return;
	if ((ev->flags & IO_LOST) && has_seq(&c->next))
		return; /* it was lost in front of the request, whose first byte has a number */
	c->next_bytes += ev->length;
	/* What has come since may still turn out to begin it. */
	if (connection_stream(c, ev->dir)->pending.len < c->next_bytes)
		c->has_next = false;
}

void tracer_request(struct tracer *t, const struct request_event *ev)
{
	struct connection *c = hash_get(&t->connections, ev->conn_id);
	struct exchange *ex = c ? exchange_last(c) : NULL;

	tracer_see_time(t, ev->ts_ns);
	if (!c || c->ignored)
		return;
	/* A head that comes in pieces has begun. */
	if ((ev->flags & REQUEST_EVENT_SERVER) && ex && ex->request && !ex->head_read &&
	    !ex->identified && is_first_byte(ex, ev)) {
		apply(ex, ev);
		return;
	}
	c->next = *ev;
	c->next_bytes = 0;
	c->has_next = true;
}
