/*
 * Reads answers and gives them to the commands they belong to, in order. Pushes, published messages
 * and what MONITOR shows are no answers. Content is looked at only where it says what kind of value
 * it is, or which error.
 */
#include "protocols/redis_state.h"

/* --- what a value is --- */

static void set_word(struct redis_word *w, struct slice s)
{
	w->len = (uint8_t)(s.len < REDIS_WORD_MAX_BYTES ? s.len : REDIS_WORD_MAX_BYTES);
	memcpy(w->text, s.data, w->len);
}

/* The code is the first word, when it looks like one. */
static void note_error(struct redis_reply *r, struct slice text)
{
	const uint8_t *space = text.len ? memchr(text.data, ' ', text.len) : NULL;
	struct slice code = slice_of(text.data, space ? (size_t)(space - text.data) : text.len);
	struct redis_word *to = r->walk.depth ? &r->nested_error : &r->error;
	bool *has = r->walk.depth ? &r->has_nested_error : &r->has_error;

	if (*has)
		return;
	*has = true;
	if (redis_command_name_ok(code)) {
		to->len = (uint8_t)code.len;
		memcpy(to->text, code.data, code.len);
	} else {
		to->len = 0;
	}
}

static int64_t signed_number(struct slice s)
{
	int64_t value = 0;
	size_t i = s.len && (s.data[0] == '-' || s.data[0] == '+'), start = i;

	for (; i < s.len && s.data[i] >= '0' && s.data[i] <= '9' && i - start < 18; i++)
		value = value * 10 + (s.data[i] - '0');
	return s.len && s.data[0] == '-' ? -value : value;
}

/* The header of an element at the current depth, its data not included. */
static void note_header(struct redis_state *st, const struct resp_header *h)
{
	struct redis_reply *r = &st->reply;

	if (!r->walk.depth && !r->type && h->type != '|') {
		r->type = h->type;
		if (h->type == '+')
			r->first_byte = h->text.len ? h->text.data[0] : 0;
	}
	if (h->type == '-')
		note_error(r, h->text);
	if (r->walk.depth != 1)
		return;
	if (h->type == ':')
		r->last_number = signed_number(h->text);
	else if (h->type == '+' && r->element == 0)
		set_word(&r->first, h->text);
	r->element++;
}

/* The data of a bulk, whole or its beginning. */
static void note_data(struct redis_state *st, const struct resp_header *h, struct slice data)
{
	struct redis_reply *r = &st->reply;

	if (h->type == '!')
		note_error(r, data);
	if (r->walk.depth == 1 && r->element == 1)
		set_word(&r->first, data);
}

/* Is the data of this element looked at? The element was counted already. */
static bool wants_data(const struct redis_reply *r, const struct resp_header *h)
{
	return h->type == '!' ||
	       (r->walk.depth == 1 && r->element == 1 && (r->type == '*' || r->type == '>'));
}

static bool first_is(const struct redis_reply *r, const char *text)
{
	return slice_eq(slice_of(r->first.text, r->first.len), text);
}

/* --- subscriptions --- */

/* The subscription count that a confirmation is about; NULL when the value is none. */
static uint32_t *confirmed(struct redis_state *st)
{
	const struct redis_reply *r = &st->reply;

	if (first_is(r, "subscribe") || first_is(r, "unsubscribe"))
		return &st->channels;
	if (first_is(r, "psubscribe") || first_is(r, "punsubscribe"))
		return &st->patterns;
	if (first_is(r, "ssubscribe") || first_is(r, "sunsubscribe"))
		return &st->shards;
	return NULL;
}

/* The count that Redis sends is of channels and patterns together; shard channels have their own.
 */
static void count_subscription(struct redis_state *st, uint32_t *which)
{
	int64_t total = st->reply.last_number;
	uint32_t other = which == &st->channels   ? st->patterns
			 : which == &st->patterns ? st->channels
						  : 0;

	*which = total > other && total <= UINT32_MAX ? (uint32_t)total - other : 0;
}

/* Counts a confirmation. True when its command has all of them. */
static bool confirm(struct redis_state *st, struct redis_special *sp, uint32_t *which)
{
	uint32_t before = *which;
	bool whole = false;

	if (sp) {
		if (!sp->count)
			sp->count = before ? before : 1;
		whole = --sp->count == 0;
	}
	count_subscription(st, which);
	return whole;
}

/* --- answers --- */

static void set_error(struct exchange *ex, const struct redis_word *code)
{
	struct slice text = code->len ? slice_of(code->text, code->len) : slice_str("_OTHER");

	if (ex->span->status == SPAN_STATUS_ERROR)
		return;
	if (code->len)
		span_add_str(ex->span, "db.response.status_code", text);
	span_set_error(ex->span, text);
}

static void reset_connection(struct redis_state *st)
{
	st->db = 0;
	st->monitor = st->resp3 = false;
	st->channels = st->patterns = st->shards = 0;
}

static void apply_special(struct redis_state *st, struct exchange *ex,
			  const struct redis_special *sp)
{
	const struct redis_reply *r = &st->reply;

	switch (sp->effect) {
	case REDIS_SELECT:
		if (r->has_error)
			st->db = sp->db;
		break;
	case REDIS_EXEC:
		if (r->has_nested_error)
			set_error(ex, &r->nested_error);
		break;
	case REDIS_MONITOR:
		st->monitor = !r->has_error;
		break;
	case REDIS_RESET:
		if (!r->has_error)
			reset_connection(st);
		break;
	default:
		break;
	}
}

/* An answer is whole: the oldest command's. */
static void answer(struct connection *c, struct redis_special *sp)
{
	struct redis_state *st = c->state;
	struct exchange *ex;

	redis_finish_unanswered(c);
	ex = exchange_first(c);
	if (!ex || st->answered >= st->due) {
		if (!st->lost)
			connection_count_drop(c, DROP_RESPONSE_WITHOUT_REQUEST);
		return;
	}
	ex->response_ns = connection_now(c);
	if (st->lost) {
		if (st->batch.cut && st->batch.ex == ex && st->reply.has_error)
			set_error(ex, &st->reply.error);
		return;
	}
	if (st->reply.has_error)
		set_error(ex, &st->reply.error);
	if (sp) {
		apply_special(st, ex, sp);
		redis_special_pop(st);
	}
	if (++st->answered >= ex->scratch[EX_DUE])
		redis_finish(c, ex, connection_now(c));
}

static bool is_message(const struct redis_reply *r)
{
	return first_is(r, "message") || first_is(r, "pmessage") || first_is(r, "smessage");
}

static void value_done(struct connection *c)
{
	struct redis_state *st = c->state;
	struct redis_reply *r = &st->reply;
	struct redis_special *sp = redis_special_first(st);
	bool subscribed = st->channels || st->patterns || st->shards, awaited;
	uint32_t *which = NULL;

	st->proven = true;
	if (sp && sp->number != st->answered)
		sp = NULL;
	awaited = sp && (sp->effect == REDIS_SUBSCRIBE || sp->effect == REDIS_UNSUBSCRIBE);
	if (strchr("%~_#,(=>", r->type) && r->type)
		st->resp3 = true;
	if (r->type == '>' || (r->type == '*' && !st->resp3 && (subscribed || awaited)))
		which = confirmed(st);
	if (which) {
		if (confirm(st, awaited ? sp : NULL, which))
			answer(c, sp);
	} else if (r->type == '>' ||
		   (r->type == '*' && subscribed && !st->resp3 && is_message(r)) ||
		   (r->type == '+' && st->monitor && r->first_byte >= '0' &&
		    r->first_byte <= '9')) {
		/* no answer */
	} else {
		answer(c, sp);
	}
	*r = (struct redis_reply){ 0 };
}

/* --- reading --- */

/* Bytes that are needed were not captured: what is in flight ends with the next command. */
static ssize_t unframe(struct connection *c, size_t len)
{
	struct redis_state *st = c->state;

	st->lost = true;
	st->reply = (struct redis_reply){ .unframed = true };
	return redis_pass_event(c, redis_reply_dir(c), len);
}

/* False when the value breaks the protocol. */
static bool element_done(struct connection *c, const struct resp_header *h)
{
	struct redis_state *st = c->state;

	switch (resp_walk_element(&st->reply.walk, h)) {
	case RESP_STEP_BAD:
		return false;
	case RESP_STEP_DONE:
		value_done(c);
		return true;
	default:
		return true;
	}
}

/* One element; *ret_skipping when the rest of its data is left to the stream's skip. */
static ssize_t read_element(struct connection *c, const uint8_t *data, size_t len,
			    bool *ret_skipping)
{
	struct redis_state *st = c->state;
	struct redis_reply *r = &st->reply;
	struct stream *s = connection_stream(c, redis_reply_dir(c));
	struct resp_header h;
	ssize_t used = resp_header_read(data, len, &h);
	size_t have, size;

	if (used <= 0)
		return used ? STREAM_BAD : STREAM_MORE;
	if (!resp_has_data(&h)) {
		note_header(st, &h);
		return element_done(c, &h) ? used : STREAM_BAD;
	}
	have = len - (size_t)used;
	size = (size_t)h.value;
	/* ";0" ends a streamed string and has no data. */
	if (h.type == ';' && !size)
		return element_done(c, &h) ? used : STREAM_BAD;
	if (have < size + 2 && have < REDIS_ERROR_MAX_BYTES && !s->missing && size < UINT32_MAX) {
		/* A beginning that will be looked at is waited for. */
		struct redis_reply after = { .walk.depth = r->walk.depth,
					     .element = r->element + 1,
					     .type = r->type };

		if (wants_data(&after, &h))
			return STREAM_MORE;
	}
	note_header(st, &h);
	if (have >= size + 2) {
		if (wants_data(r, &h))
			note_data(st, &h, slice_of(data + used, size));
		return element_done(c, &h) ? used + (ssize_t)size + 2 : STREAM_BAD;
	}
	if (wants_data(r, &h))
		note_data(st, &h, slice_of(data + used, have < size ? have : size));
	r->header = h;
	r->passing = true;
	s->skip = size + 2;
	*ret_skipping = true;
	return used;
}

static ssize_t reply_step(struct connection *c, const uint8_t *data, size_t len)
{
	struct redis_state *st = c->state;
	struct exchange *ex = exchange_first(c);
	size_t used = 0;
	bool skipping = false;

	if (ex)
		ex->response_ns = connection_now(c);
	if (st->reply.unframed)
		return redis_pass_event(c, redis_reply_dir(c), len);
	if (st->reply.passing) {
		st->reply.passing = false;
		if (!element_done(c, &st->reply.header))
			return STREAM_BAD;
	}
	while (used < len && !skipping) {
		ssize_t n = read_element(c, data + used, len - used, &skipping);

		if (n < 0)
			return n;
		if (n == STREAM_MORE) {
			if (connection_stream(c, redis_reply_dir(c))->missing)
				return unframe(c, len);
			break;
		}
		used += (size_t)n;
	}
	/* What follows was not captured, and nothing says how far it goes. */
	if (used == len && connection_stream(c, redis_reply_dir(c))->missing && !skipping)
		return unframe(c, len);
	return (ssize_t)used;
}

ssize_t redis_reply_step(struct connection *c, const uint8_t *data, size_t len)
{
	const struct redis_state *st = c->state;
	ssize_t used = reply_step(c, data, len);

	if (used == STREAM_BAD && st->started && !st->proven)
		return redis_disown(c);
	return used;
}
