/*
 * Which commands share a span, and what it says (OpenTelemetry semantic conventions 1.44,
 * "database", Redis). The text of a batch is collected here and put into its span when no further
 * command can join.
 */
#include "protocols/redis_state.h"

#include <inttypes.h>
#include <stdio.h>

static struct slice word_slice(const struct redis_word *w)
{
	return slice_of(w->text, w->len);
}

static void add_name(struct redis_names *n, const struct redis_word *name)
{
	if (n->count++ == 0)
		n->name = *name;
	else if (n->name.len != name->len || memcmp(n->name.text, name->text, name->len) != 0)
		n->mixed = true;
}

/* "PIPELINE", "PIPELINE GET". */
static struct slice batch_name(const char *what, const struct redis_names *n, char *out, size_t cap)
{
	int len;

	if (n->mixed || !n->count || !n->name.len)
		return slice_str(what);
	len = snprintf(out, cap, "%s %.*s", what, n->name.len, n->name.text);
	return slice_of(out, (size_t)len);
}

static void add_operation(struct span *s, const struct redis_batch *b)
{
	char text[REDIS_NAME_MAX_BYTES + 16];
	struct slice name = word_slice(&b->all.name);
	uint32_t size = b->all.count;

	if (b->multi_first && b->multi_only && b->all.count > 1) {
		name = batch_name("MULTI", &b->inside, text, sizeof(text));
		size = b->inside.count;
	} else if (b->all.count > 1) {
		name = batch_name("PIPELINE", &b->all, text, sizeof(text));
	}
	span_set_name(s, name.len ? name : slice_str("redis"));
	span_add_str(s, "db.system.name", slice_str("redis"));
	if (name.len)
		span_add_str(s, "db.operation.name", name);
	if (size > 1 && !b->cut)
		span_add_int(s, "db.operation.batch.size", size);
}

static void seal(struct connection *c)
{
	struct redis_state *st = c->state;
	struct redis_batch *b = &st->batch;
	struct span *s = b->ex->span;
	struct slice server = net_server(&st->net, c);
	uint16_t port = net_server_port(c);
	char db[16];

	add_operation(s, b);
	if (b->text.len && !b->text.failed)
		span_add_str(s, "db.query.text", slice_of(b->text.data, b->text.len));
	if (st->db >= 0) {
		int n = snprintf(db, sizeof(db), "%" PRId32, st->db);

		span_add_str(s, "db.namespace", slice_of(db, (size_t)n));
	}
	if (b->has_procedure && b->all.count == 1)
		span_add_str(s, "db.stored_procedure.name",
			     slice_of(b->procedure, b->procedure_len));
	if (server.len)
		span_add_str(s, "server.address", server);
	if (port && port != REDIS_PORT)
		span_add_int(s, "server.port", port);
	net_add_peer(s, &st->net, c);
	b->ex = NULL;
}

void redis_finish(struct connection *c, struct exchange *ex, uint64_t end_ns)
{
	struct redis_state *st = c->state;

	if (st->batch.ex == ex)
		seal(c);
	exchange_end(ex, end_ns);
}

static void forget(struct redis_state *st, const struct exchange *ex)
{
	if (st->batch.ex == ex)
		st->batch.ex = NULL;
}

ssize_t redis_disown(struct connection *c)
{
	struct exchange *ex;

	while ((ex = exchange_first(c))) {
		forget(c->state, ex);
		exchange_drop(ex);
	}
	connection_count_drop(c, DROP_UNKNOWN_PROTOCOL);
	return STREAM_STOP;
}

void redis_settle(struct connection *c, struct exchange *ex)
{
	struct redis_state *st = c->state;

	if (ex->response_ns && st->proven) {
		redis_finish(c, ex, ex->response_ns);
		return;
	}
	forget(st, ex);
	connection_count_drop(c, DROP_EXCHANGE_LOST);
	exchange_drop(ex);
}

void redis_settle_all(struct connection *c)
{
	struct redis_state *st = c->state;
	struct exchange *ex;

	while ((ex = exchange_first(c)))
		redis_settle(c, ex);
	st->answered = st->due;
	st->special_first = 0;
	buf_reset(&st->specials);
	st->lost = false;
}

void redis_finish_unanswered(struct connection *c)
{
	struct redis_state *st = c->state;
	struct exchange *ex;

	while ((ex = exchange_first(c)) && ex->scratch[EX_DUE] <= st->answered &&
	       ex->scratch[EX_COMMAND_NS]) {
		if (st->request.begun && ex == st->batch.ex)
			return;
		redis_finish(c, ex, ex->scratch[EX_COMMAND_NS]);
	}
}

/* May the command that begins now share the span of the commands before it? */
static bool joins(const struct connection *c, const struct redis_state *st)
{
	const struct redis_batch *b = &st->batch;
	const struct exchange *ex = b->ex;
	const struct io_event *ev = c->event;

	if (!ex)
		return false;
	if (b->last_chunk == c->streams[connection_request_dir(c)].chunk)
		return true;
	if (b->multi_open && b->all.count > 1)
		return true;
	/* A blocking thread that goes on sending has not looked at answers: one pipeline, sent in
	 * pieces. (Sends don't always tell that they do not block; what else runs in the thread
	 * then has another context.) */
	return ev && ev->context == b->context && !(ev->flags & IO_NONBLOCK) && !ex->nonblocking &&
	       ev->tid == ex->tid && !ex->response_ns && ex->scratch[EX_DUE] > st->answered;
}

static void open_batch(struct redis_batch *b, struct exchange *ex, uint64_t context)
{
	struct buf text = b->text;

	buf_reset(&text);
	*b = (struct redis_batch){ .ex = ex, .context = context, .text = text };
}

bool redis_batch_begin(struct connection *c)
{
	struct redis_state *st = c->state;
	struct exchange *ex;

	net_text_make(&st->net, c);
	if (!st->started) {
		st->started = true;
		st->db = c->info.flags & CONN_FRESH ? 0 : -1;
		st->proven = !st->by_inline;
	}
	if (!joins(c, st)) {
		if (st->batch.ex)
			seal(c);
		redis_finish_unanswered(c);
		if (c->exchange_count >= REDIS_MAX_IN_FLIGHT)
			return false;
		ex = exchange_begin(c);
		if (!ex)
			return false;
		exchange_head_read(ex);
		open_batch(&st->batch, ex, c->event->context);
	}
	st->due++;
	st->batch.ex->scratch[EX_DUE] = st->due;
	st->batch.command_start = st->batch.text.len;
	return true;
}

static void append_text(struct redis_batch *b, const char *before, struct slice text)
{
	size_t need = strlen(before) + text.len;

	if (b->text_full)
		return;
	if (b->text.len + need > REDIS_TEXT_MAX_BYTES ||
	    b->text.len - b->command_start + need > REDIS_COMMAND_TEXT_MAX_BYTES) {
		b->text_full = true;
		buf_append_str(&b->text, " ...");
		return;
	}
	buf_append_str(&b->text, before);
	buf_append(&b->text, text.data, text.len);
}

static void count_names(struct redis_batch *b, const struct redis_request *r)
{
	uint8_t effect = r->command ? r->command->effect : REDIS_PLAIN;
	bool closes = effect == REDIS_EXEC || effect == REDIS_DISCARD;

	if (b->all.count && !b->multi_open)
		b->multi_only = false;
	if (b->multi_open && !closes)
		add_name(&b->inside, &r->name);
	if (effect == REDIS_MULTI) {
		b->multi_open = true;
		if (!b->all.count)
			b->multi_first = b->multi_only = true;
	} else if (closes) {
		b->multi_open = false;
	}
	add_name(&b->all, &r->name);
}

void redis_batch_name(struct redis_state *st, struct slice name)
{
	struct redis_batch *b = &st->batch;

	if (!b->ex)
		return;
	count_names(b, &st->request);
	/* A command that was too long to show does not hide the next one. */
	if (b->text.len + REDIS_NAME_MAX_BYTES < REDIS_TEXT_MAX_BYTES)
		b->text_full = false;
	append_text(b, b->text.len ? "; " : "", name.len ? name : slice_str("?"));
}

void redis_batch_arg(struct redis_state *st, bool shown, struct slice text)
{
	if (st->batch.ex)
		append_text(&st->batch, " ", shown ? text : slice_str("?"));
}

void redis_batch_command_done(struct connection *c)
{
	struct redis_state *st = c->state;
	struct redis_batch *b = &st->batch;

	if (!b->ex)
		return;
	b->last_chunk = connection_stream(c, connection_request_dir(c))->chunk;
	b->ex->scratch[EX_COMMAND_NS] = connection_now(c);
}

/* --- answers that mean something --- */

struct redis_special *redis_special_first(struct redis_state *st)
{
	struct redis_special *all = (struct redis_special *)(void *)st->specials.data;

	return st->special_first < st->specials.len / sizeof(*all) ? &all[st->special_first] : NULL;
}

void redis_special_push(struct redis_state *st, struct redis_special special)
{
	if (st->specials.len / sizeof(special) - st->special_first < REDIS_MAX_SPECIALS)
		buf_append(&st->specials, &special, sizeof(special));
}

void redis_special_pop(struct redis_state *st)
{
	if (++st->special_first == st->specials.len / sizeof(struct redis_special)) {
		st->special_first = 0;
		buf_reset(&st->specials);
	}
}
