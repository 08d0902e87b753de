/*
 * Redis connections: recognises them, and owns how what is in flight ends when bytes are lost or
 * the connection is gone. An answer that was not seen is never made up.
 */
#include "protocols/redis.h"

#include "protocols/redis_state.h"

/* "*<digits>\r\n$": the length of the part before '$'; 0 when it is cut; -1 when it is none. */
static int command_start(const uint8_t *data, size_t len)
{
	enum { DIGITS_MAX = 7 };
	size_t at = 1;

	if (data[0] != '*')
		return -1;
	while (at < len && at <= DIGITS_MAX && data[at] >= '0' && data[at] <= '9')
		at++;
	if (at == len)
		return 0;
	if (at == 1 || data[1] == '0' || data[at++] != '\r')
		return -1;
	if (at == len)
		return 0;
	if (data[at++] != '\n')
		return -1;
	if (at == len)
		return 0;
	return data[at] == '$' ? (int)at : -1;
}

static bool known_name(struct slice name)
{
	char text[REDIS_NAME_MAX_BYTES];

	return redis_command_name_ok(name) && redis_command_find(redis_command_upper(name, text));
}

/* Is the first bulk a known command's name? */
static enum protocol_match known_command(const uint8_t *data, size_t len)
{
	struct resp_header h;
	ssize_t used = resp_header_read(data, len, &h);

	if (used == RESP_MORE)
		return PROTOCOL_MAYBE;
	if (used < 0 || h.value < 1 || h.value > REDIS_NAME_MAX_BYTES)
		return PROTOCOL_NO;
	if (len - (size_t)used < (size_t)h.value)
		return PROTOCOL_MAYBE;
	return known_name(slice_of(data + used, (size_t)h.value)) ? PROTOCOL_REQUEST : PROTOCOL_NO;
}

/* Words that begin a line of memcached's as well; that protocol knows them in lower case only. */
static bool memcached_word(struct slice name)
{
	static const char *const words[] = {
		"get", "set", "append", "incr", "decr", "touch", "quit"
	};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (slice_eq(name, words[i]))
			return true;
	}
	return false;
}

/* "PING\r\n": a line whose first word is a known command. */
static enum protocol_match match_inline(const uint8_t *data, size_t len, bool known)
{
	size_t n = 0;

	while (n < len && n <= REDIS_NAME_MAX_BYTES && data[n] != ' ' && data[n] != '\r' &&
	       data[n] != '\n')
		n++;
	if (n == len)
		return redis_command_name_ok(slice_of(data, n)) ? PROTOCOL_MAYBE : PROTOCOL_NO;
	if (n > REDIS_NAME_MAX_BYTES || !known_name(slice_of(data, n)))
		return PROTOCOL_NO;
	if (!known && memcached_word(slice_of(data, n)))
		return PROTOCOL_NO;
	if (!memchr(data + n, '\n', len - n))
		return len < REDIS_ARG_MAX_BYTES ? PROTOCOL_MAYBE : PROTOCOL_NO;
	return PROTOCOL_REQUEST;
}

enum protocol_match redis_match(const struct connection *c, enum io_dir dir, const uint8_t *data,
				size_t len, size_t total)
{
	bool passive = c->info.flags & CONN_PASSIVE, active = c->info.flags & CONN_ACTIVE;
	enum protocol_match m;
	int start;

	if (!len)
		return total ? PROTOCOL_NO : PROTOCOL_MAYBE;
	if (c->protocol == &redis_protocol) {
		if (dir != connection_request_dir(c))
			return PROTOCOL_NO;
	} else if ((passive && dir == IO_SEND) || (active && dir == IO_RECV)) {
		return PROTOCOL_NO;
	}
	start = command_start(data, len);
	if (start < 0)
		m = passive && data[0] != '*'
			    ? match_inline(data, len, c->protocol == &redis_protocol)
			    : PROTOCOL_NO;
	else if (start == 0)
		m = PROTOCOL_MAYBE;
	else if (passive || active || c->protocol)
		m = PROTOCOL_REQUEST;
	else
		m = known_command(data + start, len - (size_t)start);
	return m == PROTOCOL_MAYBE && len < total ? PROTOCOL_NO : m;
}

static ssize_t redis_step(struct connection *c, enum io_dir dir, const uint8_t *data, size_t len)
{
	return dir == connection_request_dir(c) ? redis_request_step(c, data, len)
						: redis_reply_step(c, data, len);
}

static void redis_lost(struct connection *c, enum io_dir dir)
{
	struct redis_state *st = c->state;

	(void)dir;
	st->lost = true;
	st->request = (struct redis_request){ .unframed = true };
	st->reply = (struct redis_reply){ .unframed = true };
}

static void redis_settle_lost(struct connection *c)
{
	struct redis_state *st = c->state;

	redis_settle_all(c);
	st->lost = true; /* until the next command */
}

static void redis_quiet(struct connection *c)
{
	const struct redis_state *st = c->state;
	struct exchange *ex = exchange_first(c);

	if ((st->lost || st->reply.unframed) && ex && ex->response_ns)
		redis_settle(c, ex);
}

static void redis_end(struct connection *c, enum io_dir dir, int error)
{
	struct redis_state *st = c->state;
	bool gone = !c->event;
	struct exchange *ex;

	if (c->role == ROLE_SERVER && !error && !gone)
		return; /* a client that has closed its sending half still gets its answers */
	if (c->role == ROLE_CLIENT && dir == IO_SEND) {
		if (error && !st->error)
			st->error = error;
		return;
	}
	if (!error)
		error = st->error;
	if (st->started && !st->proven) {
		if (exchange_first(c))
			redis_disown(c);
		return;
	}
	redis_finish_unanswered(c);
	while ((ex = exchange_first(c))) {
		if (st->lost && !error) {
			redis_settle(c, ex);
			continue;
		}
		span_set_error(ex->span, net_error_type(error ? error : net_cut_off_error(c, ex)));
		redis_finish(c, ex, connection_now(c));
	}
}

static void redis_free(void *state)
{
	struct redis_state *st = state;

	buf_free(&st->batch.text);
	buf_free(&st->specials);
}

const struct protocol redis_protocol = {
	.name = "redis",
	.state_size = sizeof(struct redis_state),
	.match = redis_match,
	.step = redis_step,
	.lost = redis_lost,
	.settle = redis_settle_lost,
	.end = redis_end,
	.quiet = redis_quiet,
	.free = redis_free,
};
