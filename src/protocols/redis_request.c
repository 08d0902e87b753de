/*
 * Reads commands, as arrays of bulk strings or inline, argument by argument: what is shown or
 * looked at is put together up to REDIS_ARG_MAX_BYTES, all else is passed over by length. Values
 * are never kept.
 */
#include "protocols/redis_state.h"

enum { ARGC_MAX = 1024 * 1024 };

ssize_t redis_pass_event(struct connection *c, enum io_dir dir, size_t len)
{
	struct stream *s = connection_stream(c, dir);

	if (s->missing)
		s->skip = s->missing;
	return (ssize_t)len;
}

/* Bytes that are needed were not captured: look for the next command at an event's start. */
static ssize_t unframe(struct connection *c, size_t len)
{
	struct redis_state *st = c->state;
	enum io_dir dir = connection_request_dir(c);

	st->lost = true;
	st->batch.cut = true;
	st->request = (struct redis_request){ .unframed = true,
					      .chunk = connection_stream(c, dir)->chunk };
	return redis_pass_event(c, dir, len);
}

static int64_t number_of(struct slice s)
{
	int64_t value = 0;
	size_t i;

	if (!s.len || s.len > 9)
		return -1;
	for (i = 0; i < s.len; i++) {
		if (s.data[i] < '0' || s.data[i] > '9')
			return -1;
		value = value * 10 + (s.data[i] - '0');
	}
	return value;
}

/* --- what arguments mean --- */

static bool is_key(const struct redis_request *r, int64_t i)
{
	const struct redis_command *cmd = r->command;
	int64_t last;

	if (!cmd || i == 0)
		return false;
	if (cmd->destination && i == 1)
		return true;
	switch (cmd->keys) {
	case REDIS_KEYS_RANGE:
		last = cmd->last < 0 ? r->argc + cmd->last : cmd->last;
		return i >= cmd->first && i <= last && (i - cmd->first) % cmd->step == 0;
	case REDIS_KEYS_COUNTED:
	case REDIS_KEYS_STREAMS:
		return i >= r->keys_from && i < r->keys_to;
	default:
		return false;
	}
}

/* Is there something to learn from argument `i`, besides a key to show? */
static bool is_looked_at(const struct redis_request *r, int64_t i)
{
	const struct redis_command *cmd = r->command;

	if (!cmd)
		return false;
	if ((cmd->subcommand || cmd->procedure) && i == 1)
		return true;
	if (cmd->keys == REDIS_KEYS_COUNTED)
		return i == cmd->first;
	if (cmd->keys == REDIS_KEYS_STREAMS)
		return !r->keys_to;
	if (cmd->effect == REDIS_CLIENT)
		return i == 2;
	return (cmd->effect == REDIS_SELECT || cmd->effect == REDIS_HELLO) && i == 1;
}

static void take_name(struct redis_state *st, struct slice arg)
{
	struct redis_request *r = &st->request;
	struct slice name = { 0 };

	r->named = true;
	if (redis_command_name_ok(arg)) {
		name = redis_command_upper(arg, r->name.text);
		r->name.len = (uint8_t)name.len;
		r->command = redis_command_find(name);
	}
	redis_batch_name(st, name);
}

static void look_at(struct redis_state *st, int64_t i, struct slice arg)
{
	struct redis_request *r = &st->request;
	const struct redis_command *cmd = r->command;

	if (cmd->keys == REDIS_KEYS_COUNTED && i == cmd->first) {
		int64_t count = number_of(arg);

		r->keys_from = i + 1;
		r->keys_to = count > 0 ? r->keys_from + count : 0;
	} else if (cmd->keys == REDIS_KEYS_STREAMS && slice_caseeq(arg, "STREAMS")) {
		r->keys_from = i + 1;
		r->keys_to = r->keys_from + (r->argc - r->keys_from) / 2;
	} else if (cmd->effect == REDIS_CLIENT && i == 2 &&
		   slice_eq(slice_of(r->word.text, r->word.len), "REPLY")) {
		r->reply = slice_caseeq(arg, "OFF")    ? REPLY_OFF
			   : slice_caseeq(arg, "SKIP") ? REPLY_SKIP
						       : REPLY_ON;
		r->number = 1;
	} else if ((cmd->effect == REDIS_SELECT || cmd->effect == REDIS_HELLO) && i == 1) {
		r->number = number_of(arg);
	}
	if (cmd->procedure && i == 1) {
		struct redis_batch *b = &st->batch;

		b->procedure_len =
			(uint16_t)(arg.len < sizeof(b->procedure) ? arg.len : sizeof(b->procedure));
		memcpy(b->procedure, arg.data, b->procedure_len);
		b->has_procedure = true;
	}
}

/* Argument `i`, or the beginning of a long one. */
static void take_arg(struct redis_state *st, int64_t i, struct slice arg)
{
	struct redis_request *r = &st->request;
	bool shown = is_key(r, i);

	if (i == 0) {
		take_name(st, arg);
		return;
	}
	if (is_looked_at(r, i))
		look_at(st, i, arg);
	if (r->command && r->command->subcommand && i == 1 && redis_command_name_ok(arg)) {
		struct slice word = redis_command_upper(arg, r->word.text);

		r->word.len = (uint8_t)word.len;
		redis_batch_arg(st, true, word);
		return;
	}
	redis_batch_arg(st, shown, arg);
}

/* --- what commands mean --- */

/* The command gets no answer: it was counted as if it did. */
static void expect_no_answer(struct redis_state *st)
{
	st->due--;
	if (st->batch.ex)
		st->batch.ex->scratch[EX_DUE] = st->due;
}

static void apply_effect(struct redis_state *st, const struct redis_request *r)
{
	struct redis_special special = { .number = st->due - 1, .effect = r->command->effect };

	switch (r->command->effect) {
	case REDIS_SELECT:
		special.db = st->db;
		if (r->number >= 0)
			st->db = (int32_t)r->number;
		break;
	case REDIS_SUBSCRIBE:
		special.count = (uint32_t)(r->argc > 1 ? r->argc - 1 : 1);
		break;
	case REDIS_UNSUBSCRIBE:
		special.count = (uint32_t)(r->argc - 1);
		break;
	case REDIS_HELLO:
		if (r->number == 2)
			st->resp3 = false;
		return;
	case REDIS_EXEC:
	case REDIS_MONITOR:
	case REDIS_RESET:
		break;
	default:
		return;
	}
	redis_special_push(st, special);
}

/* CLIENT REPLY, and its consequence for this command. True when no answer comes. */
static bool apply_reply_mode(struct redis_state *st, const struct redis_request *r)
{
	bool sets = r->command && r->command->effect == REDIS_CLIENT && r->number == 1;
	enum reply_mode before = st->mode;

	if (r->command && r->command->effect == REDIS_RESET)
		st->mode = REPLY_ON;
	else if (sets)
		st->mode = r->reply == REPLY_SKIP && before == REPLY_OFF ? REPLY_OFF : r->reply;
	else if (before == REPLY_SKIP)
		st->mode = REPLY_ON;
	if (sets)
		return r->reply != REPLY_ON;
	return before == REPLY_SKIP || st->mode == REPLY_OFF;
}

/* STREAM_STOP when nothing more on this connection is commands. */
static int command_done(struct connection *c)
{
	struct redis_state *st = c->state;
	struct redis_request *r = &st->request;

	if (r->command && r->command->effect == REDIS_SYNC)
		return STREAM_STOP;
	redis_batch_command_done(c);
	if (apply_reply_mode(st, r))
		expect_no_answer(st);
	else if (r->command)
		apply_effect(st, r);
	*r = (struct redis_request){ 0 };
	return 0;
}

static int arg_done(struct connection *c)
{
	struct redis_request *r = &((struct redis_state *)c->state)->request;

	r->passing = false;
	return ++r->index == r->argc ? command_done(c) : 0;
}

/* --- reading --- */

static bool begin_command(struct connection *c, int64_t argc)
{
	struct redis_state *st = c->state;

	st->request = (struct redis_request){ .begun = true, .argc = argc };
	return redis_batch_begin(c);
}

/*
 * One argument. Gives back what it consumed, STREAM_MORE (nothing consumed), STREAM_BAD or
 * STREAM_STOP; what is not looked at is left to the stream's skip, then *ret_skipping is set.
 */
static ssize_t read_arg(struct connection *c, const uint8_t *data, size_t len, bool *ret_skipping)
{
	struct redis_state *st = c->state;
	struct redis_request *r = &st->request;
	struct stream *s = connection_stream(c, connection_request_dir(c));
	struct resp_header h;
	ssize_t used = resp_header_read(data, len, &h);
	size_t have, size;
	bool wanted;

	if (used <= 0)
		return used ? STREAM_BAD : STREAM_MORE;
	if (h.type != '$' || h.value < 0)
		return STREAM_BAD;
	have = len - (size_t)used;
	size = (size_t)h.value;
	wanted = r->index == 0 || is_key(r, r->index) || is_looked_at(r, r->index);
	if (have >= size + 2) {
		const uint8_t *end = data + used + size;

		if (end[0] != '\r' || end[1] != '\n')
			return STREAM_BAD;
		take_arg(st, r->index,
			 slice_of(data + used,
				  size < REDIS_ARG_MAX_BYTES ? size : REDIS_ARG_MAX_BYTES));
		used += (ssize_t)size + 2;
		return arg_done(c) ? STREAM_STOP : used;
	}
	if (wanted && !s->missing && have < REDIS_ARG_MAX_BYTES)
		return STREAM_MORE;
	have = have < size ? have : size;
	take_arg(st, r->index,
		 slice_of(data + used, have < REDIS_ARG_MAX_BYTES ? have : REDIS_ARG_MAX_BYTES));
	r->passing = true;
	s->skip = size + 2;
	*ret_skipping = true;
	return used;
}

/* The next word of an inline command; quotes keep white space together. */
static bool next_word(struct slice *line, struct slice *ret)
{
	uint8_t quote = 0;
	size_t n = 0;

	while (line->len && (line->data[0] == ' ' || line->data[0] == '\t')) {
		line->data++;
		line->len--;
	}
	if (!line->len)
		return false;
	while (n < line->len) {
		uint8_t c = line->data[n];

		if (quote && c == '\\' && n + 1 < line->len)
			n++;
		else if (quote && c == quote)
			quote = 0;
		else if (!quote && (c == '"' || c == '\''))
			quote = c;
		else if (!quote && (c == ' ' || c == '\t'))
			break;
		n++;
	}
	*ret = slice_of(line->data, n < line->len ? n : line->len);
	line->data += ret->len;
	line->len -= ret->len;
	return true;
}

static ssize_t read_inline(struct connection *c, const uint8_t *data, size_t len)
{
	struct redis_state *st = c->state;
	const uint8_t *lf = memchr(data, '\n', len);
	struct slice line, rest, word;
	int64_t argc = 0, i;

	if (!lf)
		return connection_stream(c, connection_request_dir(c))->missing ? unframe(c, len)
										: STREAM_MORE;
	line = slice_of(data, (size_t)(lf - data));
	if (line.len && line.data[line.len - 1] == '\r')
		line.len--;
	for (rest = line; next_word(&rest, &word);) {
		if (argc++ == 0 && !redis_command_name_ok(word))
			return STREAM_BAD;
	}
	if (argc) {
		st->by_inline |= !st->started;
		if (!begin_command(c, argc))
			return STREAM_BAD;
		for (i = 0, rest = line; i < argc && next_word(&rest, &word); i++) {
			take_arg(st, i,
				 word.len < REDIS_ARG_MAX_BYTES
					 ? word
					 : slice_of(word.data, REDIS_ARG_MAX_BYTES));
			if (arg_done(c))
				return STREAM_STOP;
		}
	}
	return lf - data + 1;
}

/* The header of a command: "*3". */
static ssize_t read_command(struct connection *c, const uint8_t *data, size_t len)
{
	struct redis_state *st = c->state;
	struct resp_header h;
	ssize_t used;

	if (data[0] != '*')
		return read_inline(c, data, len);
	/* The first byte counts: the span begins with it, even when the rest comes later. */
	if (!st->request.begun && !begin_command(c, 0))
		return STREAM_BAD;
	used = resp_header_read(data, len, &h);
	if (used == RESP_MORE)
		return connection_stream(c, connection_request_dir(c))->missing ? unframe(c, len)
										: STREAM_MORE;
	if (used < 0 || h.value < 1 || h.value > ARGC_MAX)
		return STREAM_BAD;
	st->request.argc = h.value;
	return used;
}

static ssize_t read_one(struct connection *c, const uint8_t *data, size_t len, bool *ret_skipping)
{
	struct redis_state *st = c->state;
	ssize_t used;

	if (!st->request.argc)
		return read_command(c, data, len);
	used = read_arg(c, data, len, ret_skipping);
	if (used == STREAM_MORE && connection_stream(c, connection_request_dir(c))->missing)
		return unframe(c, len);
	return used;
}

/* True when a command begins at `data`, the first bytes of an event; *ret_more when that can't be
 * told yet. */
static bool begins_command(struct connection *c, const uint8_t *data, size_t len, bool *ret_more)
{
	struct redis_request *r = &((struct redis_state *)c->state)->request;
	enum io_dir dir = connection_request_dir(c);
	struct stream *s = connection_stream(c, dir);
	enum protocol_match m = PROTOCOL_NO;

	if (r->chunk != s->chunk)
		r->at_start = true;
	r->chunk = s->chunk;
	if (r->at_start)
		m = redis_match(c, dir, data, len, len + s->missing);
	*ret_more = m == PROTOCOL_MAYBE && !s->missing;
	r->at_start = *ret_more;
	return m == PROTOCOL_REQUEST;
}

/* Is this more of a batch that was cut off? Nothing has been answered yet, so it may well be. */
static bool goes_on(struct connection *c)
{
	const struct redis_state *st = c->state;
	const struct exchange *ex = st->batch.ex;

	return ex && st->batch.cut && !ex->response_ns;
}

ssize_t redis_request_step(struct connection *c, const uint8_t *data, size_t len)
{
	struct redis_state *st = c->state;
	const struct stream *s = connection_stream(c, connection_request_dir(c));
	size_t used = 0;
	bool skipping = false, more = false;

	if (st->request.passing && arg_done(c))
		return STREAM_STOP;
	if (!len)
		return s->missing ? unframe(c, 0) : 0;
	if (st->request.unframed) {
		if (goes_on(c) || !begins_command(c, data, len, &more))
			return more ? STREAM_MORE
				    : redis_pass_event(c, connection_request_dir(c), len);
		st->request = (struct redis_request){ 0 };
	}
	if (st->lost && !st->request.begun) {
		redis_settle_all(c);
		if (st->reply.unframed)
			st->reply = (struct redis_reply){ 0 };
	}
	while (used < len && !skipping && !st->request.unframed) {
		ssize_t n = read_one(c, data + used, len - used, &skipping);

		if (n < 0)
			return n;
		if (n == STREAM_MORE)
			break;
		used += (size_t)n;
	}
	/* What follows was not captured, and nothing says how far it goes. */
	if (used == len && s->missing && !skipping)
		return unframe(c, len);
	return (ssize_t)used;
}
