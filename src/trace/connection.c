/*
 * A connection's life: from its first bytes through the detection of its protocol to its end. It
 * feeds the protocol, finds the way back after lost bytes, and gives up what is of no interest. It
 * knows no protocol by name.
 */
#include "trace/connection.h"

#include <stdlib.h>

#include "trace/tracer_internal.h"

enum {
	DETECT_EVENTS = 32, /* of a connection that was open before: how many may begin with nothing
			       known */
	DETECT_MAYBE_BYTES = 256,
	LOST_EVENTS = 4096, /* how long a connection may wait for a new message */
};

struct connection *connection_new(struct tracer *t, const struct conn_info *info)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (c)
		c->join = calloc(1, sizeof(*c->join));
	if (!c || !c->join || !hash_put(&t->connections, info->conn_id, c)) {
		if (c)
			free(c->join);
		free(c);
		stats_drop(t->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	c->tracer = t;
	c->info = *info;
	c->last_event_ns = info->ts_ns;
	list_init(&c->exchanges);
	list_push(&t->by_use, &c->node);
	join_conn_open(&t->join, c->join, info);
	stats_add(t->stats, STATS_CONNECTIONS, 1);
	return c;
}

void connection_count_drop(struct connection *c, enum drop_reason reason)
{
	stats_drop(c->tracer->stats, reason, 1);
}

static void drop_exchanges(struct connection *c)
{
	struct exchange *ex;

	while ((ex = exchange_first(c))) {
		connection_count_drop(c, DROP_EXCHANGE_LOST);
		exchange_drop(ex);
	}
}

/* Frees what the protocol and the streams hold; the connection itself stays known. */
static void forget_protocol(struct connection *c)
{
	drop_exchanges(c);
	if (c->state && c->protocol->free)
		c->protocol->free(c->state);
	free(c->state);
	c->state = NULL;
	c->protocol = NULL;
	c->role = ROLE_UNKNOWN;
	stream_free(&c->streams[IO_RECV]);
	stream_free(&c->streams[IO_SEND]);
}

void connection_free(struct connection *c)
{
	forget_protocol(c);
	list_remove(&c->node);
	hash_remove(&c->tracer->connections, c->info.conn_id);
	link_conn_close(c->tracer->linker, c->info.conn_id);
	join_conn_close(&c->tracer->join, c->join);
	free(c->join);
	free(c);
}

void connection_close(struct connection *c, uint64_t ts_ns)
{
	c->event = NULL;
	c->last_event_ns = ts_ns;
	if (c->protocol && !c->ignored)
		c->protocol->end(c, IO_RECV, 0);
	connection_free(c);
}

static void ignore(struct connection *c)
{
	struct tracer *t = c->tracer;

	if (c->role == ROLE_SERVER || (c->info.flags & CONN_PASSIVE))
		link_opaque(t->linker, c->info.pid);
	forget_protocol(c);
	c->ignored = true;
	if (t->ops.ignore)
		t->ops.ignore(t->ops.ctx, c->info.conn_id);
}

/* --- detection --- */

static enum conn_role role_of(enum protocol_match m, enum io_dir dir)
{
	bool request = m == PROTOCOL_REQUEST;

	return request == (dir == IO_SEND) ? ROLE_CLIENT : ROLE_SERVER;
}

static bool adopt(struct connection *c, const struct protocol *p, enum protocol_match m,
		  enum io_dir dir)
{
	c->state = calloc(1, p->state_size ? p->state_size : 1);
	if (!c->state) {
		connection_count_drop(c, DROP_NO_MEMORY);
		return false;
	}
	c->protocol = p;
	c->role = role_of(m, dir);
	return true;
}

/* Which protocol begins at `data`? PROTOCOL_MAYBE when some want more bytes and none is sure. */
static enum protocol_match match_any(struct connection *c, enum io_dir dir, const uint8_t *data,
				     size_t len, size_t total, const struct protocol **ret)
{
	const struct protocol *const *p;
	enum protocol_match best = PROTOCOL_NO;

	for (p = c->tracer->options.protocols; *p; p++) {
		enum protocol_match m = (*p)->match(c, dir, data, len, total);

		if (m == PROTOCOL_REQUEST || m == PROTOCOL_RESPONSE) {
			*ret = *p;
			return m;
		}
		if (m == PROTOCOL_MAYBE)
			best = PROTOCOL_MAYBE;
	}
	return best;
}

/* True when the protocol is known now; what was kept of earlier events waits in the stream. */
static bool detect(struct connection *c, const struct io_event *ev)
{
	struct stream *s = &c->streams[ev->dir];
	const struct protocol *p = NULL;
	const uint8_t *data = ev->data;
	size_t len = ev->captured, total = ev->length;
	enum protocol_match m;

	if (s->pending.len) {
		if (!buf_reserve(&s->pending, ev->captured))
			return false;
		memcpy(s->pending.data + s->pending.len, ev->data, ev->captured);
		data = s->pending.data;
		len += s->pending.len;
		total += s->pending.len;
	} else if (ev->flags & IO_SAME_CALL) {
		return false;
	}
	m = match_any(c, ev->dir, data, len, total, &p);
	if (m == PROTOCOL_REQUEST || m == PROTOCOL_RESPONSE)
		return adopt(c, p, m, ev->dir);
	if (m == PROTOCOL_MAYBE && len < DETECT_MAYBE_BYTES && len == total) {
		buf_append(&s->pending, ev->data, ev->captured);
		return false;
	}
	buf_reset(&s->pending);
	if ((c->info.flags & CONN_FRESH) || ++c->undetected_events >= DETECT_EVENTS) {
		connection_count_drop(c, DROP_UNKNOWN_PROTOCOL);
		ignore(c);
	}
	return false;
}

static void found(struct connection *c)
{
	c->lost = false;
	c->undetected_events = 0;
}

/* After lost bytes: does a request begin here? */
static bool resync(struct connection *c, const struct io_event *ev)
{
	struct exchange *ex = exchange_first(c);

	if (ev->dir != connection_request_dir(c)) {
		if (ex)
			ex->response_ns = ev->ts_ns;
		return false;
	}
	/* A body may look like a request: none begins before the one in flight has an answer. */
	if (!(ev->flags & IO_SAME_CALL) && (!ex || ex->response_ns) &&
	    c->protocol->match(c, ev->dir, ev->data, ev->captured, ev->length) ==
		    PROTOCOL_REQUEST) {
		found(c);
		return true;
	}
	if (++c->undetected_events >= LOST_EVENTS) {
		connection_count_drop(c, DROP_UNKNOWN_PROTOCOL);
		ignore(c);
	}
	return false;
}

/* --- feeding --- */

struct step_context {
	struct connection *conn;
	enum io_dir dir;
};

static ssize_t step(void *ctx, const uint8_t *data, size_t len)
{
	const struct step_context *s = ctx;

	s->conn->rest = len;
	return s->conn->protocol->step(s->conn, s->dir, data, len);
}

static void lose(struct connection *c, enum io_dir dir, enum drop_reason reason)
{
	connection_count_drop(c, reason);
	stream_reset(&c->streams[IO_RECV]);
	stream_reset(&c->streams[IO_SEND]);
	c->lost = true;
	join_conn_lost(c->join);
	c->protocol->lost(c, dir);
}

static void feed(struct connection *c, const struct io_event *ev)
{
	struct step_context ctx = { c, ev->dir };
	struct stream *s = &c->streams[ev->dir];

	s->same_call = ev->flags & IO_SAME_CALL;
	switch (stream_feed(s, ev->data, ev->captured, ev->length, step, &ctx)) {
	case STREAM_OK:
		break;
	case STREAM_LOST:
		lose(c, ev->dir, DROP_STREAM_LOST);
		break;
	case STREAM_BROKEN:
		lose(c, ev->dir, DROP_BAD_MESSAGE);
		break;
	case STREAM_TOO_LARGE:
		lose(c, ev->dir, DROP_HEAD_TOO_LARGE);
		break;
	case STREAM_NO_MEMORY:
		lose(c, ev->dir, DROP_NO_MEMORY);
		break;
	case STREAM_STOPPED:
		ignore(c);
		break;
	}
}

/*
 * Bytes whose records were lost. Within a body of known length they are passed over (true: feed
 * them); else messages may have ended and begun among them.
 */
static bool pass_lost(struct connection *c, const struct io_event *ev)
{
	struct stream *s = &c->streams[ev->dir];

	join_conn_lost(c->join);
	if (!c->protocol) {
		c->info.flags &= ~(uint32_t)CONN_FRESH;
		buf_reset(&s->pending);
		return false;
	}
	if (!c->lost && !s->pending.len && s->skip > ev->length)
		return true;
	if (!c->lost)
		lose(c, ev->dir, DROP_STREAM_LOST);
	c->protocol->settle(c);
	return false;
}

/* What the runtime says of a transfer of a connection that is or may be served. */
static void see_runtime(struct connection *c, const struct io_event *ev)
{
	struct exchange *ex = exchange_first(c);

	if (c->role == ROLE_CLIENT || ev->error || !ev->length)
		return;
	if (ev->dir == IO_RECV) {
		if (c->info.flags & CONN_ACTIVE)
			return;
		link_conn_read(c->tracer->linker, ev->pid, c->info.conn_id, ev->context);
		return;
	}
	if (!(ev->flags & IO_SAME_CALL))
		c->answer_number = ex ? ex->number : 0;
	if (ex && ev->route)
		exchange_set_route(ex, ev->route);
}

void connection_feed(struct connection *c, const struct io_event *ev)
{
	if (c->ignored)
		return;
	c->event = ev;
	c->last_event_ns = ev->ts_ns;
	see_runtime(c, ev);
	if (c->protocol && c->protocol->begins && connection_begins_surely(c, ev)) {
		c->protocol->begins(c);
		found(c);
	}
	if (ev->flags & IO_LOST) {
		if (pass_lost(c, ev))
			feed(c, ev);
	} else if (ev->error || !ev->length) {
		if (c->protocol)
			c->protocol->end(c, ev->dir, ev->error);
	} else if (!c->protocol) {
		bool known = detect(c, ev), began = known && ev->dir == connection_request_dir(c);

		if (!began && (c->info.flags & (CONN_PASSIVE | CONN_FRESH)) == CONN_PASSIVE)
			link_unseen(c->tracer->linker, ev->pid, ev->ts_ns);
		if (known)
			feed(c, ev);
	} else if (!c->lost || resync(c, ev)) {
		feed(c, ev);
	}
	if (c->protocol && c->role == ROLE_SERVER && exchange_first(c)) {
		struct link_point at = { ev->ts_ns, ev->tid, ev->turn };

		link_request_active(exchange_first(c)->request, &at);
		if (ev->dir == IO_SEND)
			link_request_answered(c->tracer->linker, exchange_first(c)->request,
					      ev->tid);
	}
	connection_forget_ids(c, ev);
	c->moved[ev->dir] += ev->error ? 0 : ev->length;
	c->event = NULL;
}
