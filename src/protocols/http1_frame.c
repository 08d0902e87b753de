/*
 * Message framing of HTTP/1.x (RFC 9112, 6): heads are put together, bodies are passed over by
 * length. Where bytes that framing needs were not captured it becomes "unframed" until a head
 * begins an event; it never guesses within.
 */
#include "protocols/http1_state.h"

#include "protocols/http1_parse.h"
#include "protocols/http1_span.h"

/* Leaves framing and passes over what is here of this event. */
static ssize_t unframe(struct connection *c, enum io_dir dir, struct http1_side *side, size_t len)
{
	struct stream *s = connection_stream(c, dir);
	struct http1_state *st = c->state;

	if (side == &st->request)
		st->hidden = true;
	side->stage = STAGE_UNFRAMED;
	side->begun = false;
	side->at_start = false;
	side->chunk = s->chunk;
	if (s->missing)
		s->skip = s->missing;
	return (ssize_t)len;
}

static void begin_message(struct http1_side *side)
{
	side->stage = STAGE_HEAD;
	side->begun = false;
	side->scanned = 0;
	side->chunked = false;
}

/* --- bodies: the same for both directions --- */

/* A chunk is passed over with the line end behind it, which is as long as that of its size line. */
static ssize_t chunk_step(struct connection *c, enum io_dir dir, struct http1_side *side,
			  const uint8_t *data, size_t len)
{
	struct stream *s = connection_stream(c, dir);
	uint64_t size = 0;
	ssize_t used = http1_chunk_size(data, len, &size);

	if (used == HTTP1_BAD)
		return STREAM_BAD;
	if (used == HTTP1_MORE) {
		side->chunked = true;
		return s->missing ? unframe(c, dir, side, len) : STREAM_MORE;
	}
	if (size)
		s->skip = size + (used >= 2 && data[used - 2] == '\r' ? 2 : 1);
	else
		side->stage = STAGE_TRAILER;
	return used;
}

/* Consumes one trailer line; *ret_done at the blank one. */
static ssize_t trailer_step(struct connection *c, enum io_dir dir, struct http1_side *side,
			    const uint8_t *data, size_t len, bool *ret_done)
{
	struct slice line;
	ssize_t used = http1_line(data, len, &line);

	if (used == HTTP1_MORE) {
		side->chunked = true;
		return connection_stream(c, dir)->missing ? unframe(c, dir, side, len)
							  : STREAM_MORE;
	}
	*ret_done = line.len == 0;
	return used;
}

/* A step within a body; *ret_done when it is whole. */
static ssize_t body_step(struct connection *c, enum io_dir dir, struct http1_side *side,
			 const uint8_t *data, size_t len, bool *ret_done)
{
	switch (side->stage) {
	case STAGE_BODY:
		*ret_done = true;
		return 0;
	case STAGE_CHUNK_SIZE:
		return chunk_step(c, dir, side, data, len);
	case STAGE_TRAILER:
		return trailer_step(c, dir, side, data, len, ret_done);
	default:
		return STREAM_BAD;
	}
}

/* How a head's fields frame what follows: the stage, with the skip set; STAGE_HEAD when there is no
 * body. */
static uint8_t frame_body(struct connection *c, enum io_dir dir, const struct http1_fields *f)
{
	if (f->has_coding)
		return f->chunked ? STAGE_CHUNK_SIZE : STAGE_UNTIL_CLOSE;
	if (!f->has_length)
		return STAGE_UNTIL_CLOSE;
	connection_stream(c, dir)->skip = f->length;
	return f->length ? STAGE_BODY : STAGE_HEAD;
}

/* A step that took all there was, when bytes follow that were not captured and that no length tells
 * to pass over. */
static ssize_t step_done(struct connection *c, enum io_dir dir, struct http1_side *side,
			 ssize_t used, size_t len)
{
	const struct stream *s = connection_stream(c, dir);

	if (used < 0 || (size_t)used < len || !s->missing || s->skip ||
	    side->stage == STAGE_UNFRAMED)
		return used;
	side->chunked = side->stage == STAGE_CHUNK_SIZE || side->stage == STAGE_TRAILER;
	return unframe(c, dir, side, len);
}

/* --- requests --- */

static ssize_t bad_request(struct connection *c)
{
	struct http1_state *st = c->state;

	if (st->reading) {
		struct exchange *ex = st->reading;

		http1_forget(st, ex);
		exchange_drop(ex);
	}
	return STREAM_BAD;
}

static bool begin_request(struct connection *c)
{
	struct http1_state *st = c->state;
	struct exchange *before;

	http1_settle_lost(c);
	if (c->exchange_count >= HTTP1_MAX_IN_FLIGHT)
		return false;
	before = exchange_last(c);
	if (before && !before->response_ns)
		st->crowded = true;
	st->reading = exchange_begin(c);
	if (st->reading)
		exchange_crowded(before, st->reading);
	st->request.begun = true;
	net_text_make(&st->net, c);
	return st->reading != NULL;
}

/* OTLP/HTTP (OTLP specification, "OTLP/HTTP Request"): spans go to the collector there. */
static bool is_export(const struct http1_request_line *line)
{
	static const char path[] = "/v1/traces";
	size_t n = sizeof(path) - 1;

	return slice_eq(line->method, "POST") && line->target.len >= n &&
	       memcmp(line->target.data + line->target.len - n, path, n) == 0;
}

/* A head, whole or cut off at the end of what was captured (`framed` false). */
static bool read_request_head(struct connection *c, const uint8_t *data, size_t len, bool framed)
{
	struct http1_state *st = c->state;
	enum io_dir dir = connection_request_dir(c);
	struct exchange *ex = st->reading;
	struct http1_request_line line;
	struct http1_fields fields;
	ssize_t used = http1_request_line(data, len, &line);

	if (used == HTTP1_MORE && !framed && http1_request_line_cut(data, len, &line))
		used = (ssize_t)len;
	if (used <= 0)
		return false;
	http1_fields_read(slice_of(data + used, len - (size_t)used), &fields);
	if (framed && (fields.bad_length || (fields.has_coding && !fields.chunked)))
		return false;
	if (ex) {
		http1_span_request(ex, &line, &fields, &st->net, &st->work);
		ex->scratch[0] |= EX_HEAD_DONE;
		exchange_head_read(ex);
		if (used < (ssize_t)len || framed)
			exchange_set_target(ex, line.method, line.target);
		if (is_export(&line))
			ex->scratch[0] |= EX_IS_EXPORT;
		if (slice_eq(line.method, "HEAD"))
			ex->scratch[0] |= EX_IS_HEAD;
		if (slice_eq(line.method, "CONNECT"))
			ex->scratch[0] |= EX_IS_CONNECT;
		if (fields.expects && c->rest == len && !connection_stream(c, dir)->missing) {
			ex->scratch[0] |= EX_EXPECTS;
			ex->scratch[1] = c->moved[dir] + c->event->length;
		}
	}
	begin_message(&st->request);
	if (framed && (fields.has_coding || fields.has_length))
		st->request.stage = frame_body(c, dir, &fields);
	if (ex && st->unpaired)
		http1_drop(c, ex);
	if (st->request.stage == STAGE_HEAD)
		st->reading = NULL;
	return true;
}

/* Line ends before a start line, which a message may have in front (RFC 9112, 2.2). */
static size_t blank_bytes(const uint8_t *data, size_t len)
{
	size_t blank = 0;

	while (blank < len && (data[blank] == '\r' || data[blank] == '\n'))
		blank++;
	return blank;
}

static ssize_t request_head(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;
	enum io_dir dir = connection_request_dir(c);
	struct http1_side *side = &st->request;
	ssize_t used;

	if (!side->begun) {
		size_t blank = blank_bytes(data, len);

		if (blank || !len)
			return (ssize_t)blank;
		if (!begin_request(c))
			return STREAM_BAD;
	}
	used = http1_head_length(data, len, &side->scanned);
	if (used == HTTP1_MORE && !connection_stream(c, dir)->missing &&
	    len < STREAM_PENDING_MAX_BYTES)
		return STREAM_MORE;
	if (used != HTTP1_MORE && read_request_head(c, data, (size_t)used, true))
		return used;
	/* Its body can't be followed, but it is a request and will have an answer. */
	if (!read_request_head(c, data, used == HTTP1_MORE ? len : (size_t)used, false) &&
	    used != HTTP1_MORE)
		return bad_request(c);
	st->reading = NULL;
	return unframe(c, dir, side, len);
}

/* True when an unframed side is at the start of an event; false again once the bytes turned out to
 * be no head. */
static bool at_event_start(struct connection *c, enum io_dir dir, struct http1_side *side)
{
	uint64_t chunk = connection_stream(c, dir)->chunk;

	if (side->chunk != chunk)
		side->at_start = true;
	side->chunk = chunk;
	return side->at_start;
}

/*
 * May a request begin while the end of the one before was not seen? Not before that one has its
 * answer: a body may well look like a request.
 */
static bool may_begin(struct connection *c)
{
	const struct http1_state *st = c->state;
	const struct exchange *ex = exchange_last(c);

	return !ex || (st->response.stage == STAGE_UNFRAMED && ex->response_ns);
}

static ssize_t request_unframed(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;
	enum io_dir dir = connection_request_dir(c);
	struct stream *s = connection_stream(c, dir);

	if (at_event_start(c, dir, &st->request) && may_begin(c)) {
		enum protocol_match m = http1_match(c, dir, data, len, len + s->missing);

		if (m == PROTOCOL_MAYBE && !s->missing)
			return STREAM_MORE;
		if (m == PROTOCOL_REQUEST) {
			if (c->role == ROLE_CLIENT && st->crowded)
				http1_unpair(c);
			begin_message(&st->request);
			return request_head(c, data, len);
		}
	}
	return unframe(c, dir, &st->request, len);
}

static ssize_t request_step(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;
	bool done = false;
	ssize_t used;

	if (st->request.stage == STAGE_HEAD)
		return request_head(c, data, len);
	if (st->request.stage == STAGE_UNFRAMED)
		return request_unframed(c, data, len);
	used = body_step(c, connection_request_dir(c), &st->request, data, len, &done);
	if (!done)
		return used;
	begin_message(&st->request);
	st->reading = NULL;
	return used ? used : request_head(c, data, len);
}

ssize_t http1_request_step(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;

	return step_done(c, connection_request_dir(c), &st->request, request_step(c, data, len),
			 len);
}

/* --- responses --- */

static void finish_response(struct connection *c)
{
	struct http1_state *st = c->state;

	begin_message(&st->response);
	if (st->answering)
		http1_finish(c, st->answering, connection_now(c));
}

/* A final status: the body's framing, or the end of HTTP on this connection. */
static ssize_t frame_response(struct connection *c, int status, const struct http1_fields *f,
			      ssize_t used)
{
	struct http1_state *st = c->state;
	uint64_t flags = st->answering ? st->answering->scratch[0] : 0;

	if (f->bad_length && !f->has_coding)
		return STREAM_BAD;
	if (status == 101 || ((flags & EX_IS_CONNECT) && status / 100 == 2)) {
		struct exchange *ex;

		finish_response(c);
		while ((ex = exchange_first(c)))
			http1_drop(c, ex);
		return STREAM_STOP;
	}
	begin_message(&st->response);
	if (!(flags & EX_IS_HEAD) && status != 204 && status != 304)
		st->response.stage = frame_body(c, http1_response_dir(c), f);
	if (st->response.stage == STAGE_UNTIL_CLOSE)
		connection_stream(c, http1_response_dir(c))->skip = UINT64_MAX;
	else if (st->response.stage == STAGE_HEAD)
		finish_response(c);
	return used;
}

static void take_status(struct exchange *ex, int status)
{
	exchange_answered(ex, status);
	if ((ex->scratch[0] & EX_IS_EXPORT) && status / 100 == 2)
		exchange_exports(ex);
}

/* The status line and what is there of the fields; the whole head when `used` is its length. */
static ssize_t read_response_head(struct connection *c, const uint8_t *data, size_t len,
				  bool framed)
{
	struct http1_state *st = c->state;
	struct exchange *ex = st->answering;
	struct http1_status_line line = { 0 };
	struct http1_fields fields;
	ssize_t used = http1_status_line(data, len, &line);

	if (used == HTTP1_BAD)
		return STREAM_BAD;
	if (line.status == 0 || (line.status / 100 == 1 && line.status != 101)) {
		if (ex && line.status == 100)
			ex->scratch[0] &= ~(uint64_t)EX_EXPECTS;
		begin_message(&st->response);
		return (ssize_t)len;
	}
	if (!ex) {
		connection_count_drop(c, DROP_RESPONSE_WITHOUT_REQUEST);
		/* A request went by unseen behind one that was seen, and more may have. */
		if (c->role == ROLE_CLIENT && c->last_number && st->hidden) {
			http1_unpair(c);
			return (ssize_t)len;
		}
	} else if (!(ex->scratch[0] & EX_HAS_STATUS)) {
		http1_span_status(ex->span, line.status);
		take_status(ex, line.status);
		http1_refuse_body(c, ex);
		ex->scratch[0] |= EX_HAS_STATUS;
	}
	if (!framed)
		return (ssize_t)len;
	http1_fields_read(slice_of(data + used, len - (size_t)used), &fields);
	return frame_response(c, line.status, &fields, (ssize_t)len);
}

static ssize_t response_head(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;
	enum io_dir dir = http1_response_dir(c);
	struct http1_side *side = &st->response;
	ssize_t used;

	if (!side->begun) {
		size_t blank = blank_bytes(data, len);

		if (blank || !len)
			return (ssize_t)blank;
		side->begun = true;
		st->answering = exchange_first(c);
	}
	if (st->answering)
		st->answering->response_ns = connection_now(c);
	used = http1_head_length(data, len, &side->scanned);
	if (used != HTTP1_MORE)
		return read_response_head(c, data, (size_t)used, true);
	if (!connection_stream(c, dir)->missing && len < STREAM_PENDING_MAX_BYTES)
		return STREAM_MORE;
	if (read_response_head(c, data, len, false) < 0)
		return STREAM_BAD;
	return unframe(c, dir, side, len);
}

/* An event that ends with the last chunk ends a chunked body whose middle was not captured. */
static bool ends_with_last_chunk(const uint8_t *data, size_t len)
{
	static const char last[] = "\r\n0\r\n\r\n";
	size_t n = sizeof(last) - 1;

	return (len >= n && memcmp(data + len - n, last, n) == 0) ||
	       (len == n - 2 && memcmp(data, last + 2, len) == 0);
}

static ssize_t response_unframed(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;
	enum io_dir dir = http1_response_dir(c);
	struct stream *s = connection_stream(c, dir);

	if (at_event_start(c, dir, &st->response) &&
	    (st->lost || !st->answering || c->exchange_count > 1)) {
		enum protocol_match m = http1_match(c, dir, data, len, len + s->missing);

		if (m == PROTOCOL_MAYBE && !s->missing)
			return STREAM_MORE;
		if (m == PROTOCOL_RESPONSE) {
			if (st->answering)
				http1_settle(c, st->answering);
			begin_message(&st->response);
			return response_head(c, data, len);
		}
	}
	if (st->answering) {
		st->answering->response_ns = connection_now(c);
		if (st->response.chunked && !s->missing && ends_with_last_chunk(data, len))
			http1_finish(c, st->answering, connection_now(c));
	}
	return unframe(c, dir, &st->response, len);
}

static ssize_t response_step(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;
	bool done = false;
	ssize_t used;

	if (st->unpaired)
		return unframe(c, http1_response_dir(c), &st->response, len);
	if (st->response.stage == STAGE_HEAD)
		return response_head(c, data, len);
	if (st->response.stage == STAGE_UNFRAMED)
		return response_unframed(c, data, len);
	if (st->answering)
		st->answering->response_ns = connection_now(c);
	used = body_step(c, http1_response_dir(c), &st->response, data, len, &done);
	if (!done)
		return used;
	finish_response(c);
	return used ? used : response_head(c, data, len);
}

ssize_t http1_response_step(struct connection *c, const uint8_t *data, size_t len)
{
	struct http1_state *st = c->state;

	return step_done(c, http1_response_dir(c), &st->response, response_step(c, data, len), len);
}
