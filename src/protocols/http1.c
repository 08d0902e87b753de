/*
 * HTTP/1.x connections: recognises them, and owns how each request's exchange ends: with its
 * answer, cut off, or unknown. A status or a time that was not on the wire is never made up.
 */
#include "protocols/http1.h"

#include "protocols/http1_parse.h"
#include "protocols/http1_span.h"
#include "protocols/http1_state.h"

/* A first line whose end is not there is taken for a request's when this much of it is. */
enum { HTTP1_TRUNCATED_MIN_BYTES = 64 };

void http1_forget(struct http1_state *st, struct exchange *ex)
{
	if (st->reading == ex)
		st->reading = NULL;
	if (st->answering == ex)
		st->answering = NULL;
}

void http1_finish(struct connection *c, struct exchange *ex, uint64_t end_ns)
{
	struct http1_state *st = c->state;

	http1_forget(st, ex);
	if (!(ex->scratch[0] & EX_HEAD_DONE))
		http1_span_unread_request(ex, &st->net);
	if (ex->route)
		http1_span_route(ex);
	exchange_end(ex, end_ns);
}

void http1_drop(struct connection *c, struct exchange *ex)
{
	http1_forget(c->state, ex);
	connection_count_drop(c, DROP_EXCHANGE_LOST);
	exchange_drop(ex);
}

void http1_settle(struct connection *c, struct exchange *ex)
{
	if (ex->response_ns)
		http1_finish(c, ex, ex->response_ns);
	else
		http1_drop(c, ex);
}

static void http1_settle_all(struct connection *c)
{
	struct exchange *ex;

	while ((ex = exchange_first(c)))
		http1_settle(c, ex);
}

void http1_unpair(struct connection *c)
{
	struct http1_state *st = c->state;

	st->unpaired = true;
	http1_settle_all(c);
	stream_reset(connection_stream(c, http1_response_dir(c)));
	st->response = (struct http1_side){ .stage = STAGE_UNFRAMED };
}

void http1_refuse_body(struct connection *c, struct exchange *ex)
{
	struct http1_state *st = c->state;
	enum io_dir dir = connection_request_dir(c);
	struct stream *s = connection_stream(c, dir);

	if (!(ex->scratch[0] & EX_EXPECTS) || st->reading != ex || c->moved[dir] != ex->scratch[1])
		return;
	stream_reset(s);
	st->reading = NULL;
	st->request = (struct http1_side){ .stage = STAGE_UNFRAMED, .chunk = s->chunk };
}

/* Answers come in turn: when the last request has one, all have. */
static bool unanswered(struct connection *c)
{
	const struct exchange *last = exchange_last(c);

	return last && !last->response_ns;
}

void http1_settle_lost(struct connection *c)
{
	struct http1_state *st = c->state;

	if (st->lost) {
		if (c->role == ROLE_CLIENT && (st->crowded || unanswered(c)))
			http1_unpair(c);
		http1_settle_all(c);
		st->lost = false;
	} else if (st->response.stage == STAGE_UNFRAMED && st->answering) {
		http1_settle(c, st->answering);
	}
}

/* --- detection --- */

/* "GET /…": enough of a line that goes on behind what was captured. */
static bool plausible_start(const uint8_t *data, size_t len)
{
	static const char *const starts[] = { "GET /",    "POST /",  "PUT /",    "HEAD /",
					      "DELETE /", "PATCH /", "OPTIONS /" };
	size_t i;

	if (len < HTTP1_TRUNCATED_MIN_BYTES)
		return false;
	for (i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		if (memcmp(data, starts[i], strlen(starts[i])) == 0)
			return true;
	}
	return false;
}

static enum protocol_match match_request(const uint8_t *data, size_t len, bool truncated)
{
	struct http1_request_line line;
	size_t blank = 0;
	ssize_t used;

	while (blank < len && (data[blank] == '\r' || data[blank] == '\n'))
		blank++;
	used = http1_request_line(data + blank, len - blank, &line);
	if (used > 0)
		return PROTOCOL_REQUEST;
	if (used == HTTP1_BAD || len > HTTP1_DETECT_MAX_BYTES)
		return PROTOCOL_NO;
	if (plausible_start(data + blank, len - blank))
		return PROTOCOL_REQUEST;
	return truncated ? PROTOCOL_NO : PROTOCOL_MAYBE;
}

static enum protocol_match match_response(const uint8_t *data, size_t len, bool truncated)
{
	/* "HTTP/1.1 200 ", or the line's end after the digits. */
	enum { STATUS_LINE_MIN_BYTES = 13 };
	struct http1_status_line line = { 0 };
	ssize_t used = http1_status_line(data, len, &line);

	if (used == HTTP1_BAD)
		return PROTOCOL_NO;
	if (used > 0 || len >= STATUS_LINE_MIN_BYTES)
		return PROTOCOL_RESPONSE;
	return truncated ? PROTOCOL_NO : PROTOCOL_MAYBE;
}

enum protocol_match http1_match(const struct connection *c, enum io_dir dir, const uint8_t *data,
				size_t len, size_t total)
{
	enum protocol_match request = PROTOCOL_NO, response = PROTOCOL_NO;
	bool known = c->protocol == &http1_protocol;

	if (!len)
		return total ? PROTOCOL_NO : PROTOCOL_MAYBE;
	if (!known || dir == connection_request_dir(c))
		request = match_request(data, len, len < total);
	if (!known || dir != connection_request_dir(c))
		response = match_response(data, len, len < total);
	return response != PROTOCOL_NO ? response : request;
}

/* --- the end --- */

static void end_exchange(struct connection *c, struct exchange *ex, struct slice error)
{
	struct http1_state *st = c->state;
	bool unframed = ex == st->answering && st->response.stage == STAGE_UNFRAMED;

	if (ex == st->answering && st->response.stage == STAGE_UNTIL_CLOSE && !error.len) {
		http1_finish(c, ex, connection_now(c));
	} else if ((st->lost || unframed) && !error.len) {
		http1_settle(c, ex);
	} else if (!(ex->scratch[0] & EX_HEAD_DONE) && !ex->response_ns) {
		http1_drop(c, ex);
	} else {
		span_set_error(ex->span,
			       error.len ? error : net_error_type(net_cut_off_error(c, ex)));
		http1_finish(c, ex, connection_now(c));
	}
}

static void end_all(struct connection *c, int error)
{
	struct slice type = error ? net_error_type(error) : slice_of(NULL, 0);
	struct exchange *ex;

	while ((ex = exchange_first(c)))
		end_exchange(c, ex, type);
}

/*
 * A client's failed send is not the end: the server may have answered early, and its answer may
 * wait to be read. A server whose peer has only closed its sending half (or gone away; that shows
 * when the answer is sent) goes on.
 */
static void http1_end(struct connection *c, enum io_dir dir, int error)
{
	struct http1_state *st = c->state;
	bool gone = !c->event;

	if (c->role == ROLE_SERVER) {
		if (error || gone)
			end_all(c, error);
		return;
	}
	if (dir == IO_SEND) {
		if (error && !st->error)
			st->error = error;
		return;
	}
	if (!error)
		error = st->error;
	end_all(c, error);
}

static void http1_quiet(struct connection *c)
{
	struct http1_state *st = c->state;
	struct exchange *ex = st->lost                               ? exchange_first(c)
			      : st->response.stage == STAGE_UNFRAMED ? st->answering
								     : NULL;

	if (ex && ex->response_ns)
		http1_settle(c, ex);
}

static void http1_lost(struct connection *c, enum io_dir dir)
{
	struct http1_state *st = c->state;

	(void)dir;
	st->lost = true;
	st->reading = NULL;
	st->request = (struct http1_side){ .stage = STAGE_HEAD };
	st->response.stage = STAGE_UNFRAMED;
	st->response.begun = false;
	st->response.chunked = false;
}

/*
 * Where bytes of the request before were not captured, or it was misread, whole requests may have
 * gone by unseen. A client that waits for its answers has sent none: then the answer in progress,
 * if any, is over.
 */
static void http1_begins(struct connection *c)
{
	struct http1_state *st = c->state;
	struct stream *s = connection_stream(c, connection_request_dir(c));
	bool over = st->response.stage == STAGE_UNFRAMED && c->exchange_count == 1;

	if (st->request.stage == STAGE_HEAD && !st->request.begun && !s->pending.len && !s->skip)
		return;
	if (st->request.stage != STAGE_UNFRAMED)
		connection_count_drop(c, DROP_BAD_MESSAGE);
	stream_reset(s);
	st->request = (struct http1_side){ .stage = STAGE_HEAD };
	st->reading = NULL;
	if (!st->lost && (st->crowded || unanswered(c) || (c->exchange_count && !over)))
		http1_unpair(c);
}

static ssize_t http1_step(struct connection *c, enum io_dir dir, const uint8_t *data, size_t len)
{
	return dir == connection_request_dir(c) ? http1_request_step(c, data, len)
						: http1_response_step(c, data, len);
}

static void http1_free(void *state)
{
	struct http1_state *st = state;

	buf_free(&st->work);
}

const struct protocol http1_protocol = {
	.name = "http1",
	.joins = true,
	.state_size = sizeof(struct http1_state),
	.match = http1_match,
	.step = http1_step,
	.begins = http1_begins,
	.lost = http1_lost,
	.settle = http1_settle_all,
	.end = http1_end,
	.quiet = http1_quiet,
	.free = http1_free,
};
