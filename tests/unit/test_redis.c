/* RESP syntax, the command table, and what is taken for Redis; every prefix up against a guard
 * page. */
#include "check.h"
#include "guard.h"
#include "protocols/redis.h"
#include "protocols/redis_commands.h"
#include "protocols/resp_parse.h"
#include "trace/connection.h"

/* The length of the first value in `text`; 0 when it is cut, -1 when it is bad. */
static ssize_t value_length(const uint8_t *data, size_t len)
{
	struct resp_walk w = { 0 };
	size_t at = 0;

	for (;;) {
		struct resp_header h;
		ssize_t used = resp_header_read(data + at, len - at, &h);

		if (used <= 0)
			return used;
		at += (size_t)used;
		if (resp_has_data(&h) && !(h.type == ';' && !h.value)) {
			if (len - at < (size_t)h.value + 2)
				return 0;
			at += (size_t)h.value + 2;
		}
		switch (resp_walk_element(&w, &h)) {
		case RESP_STEP_BAD:
			return -1;
		case RESP_STEP_DONE:
			return (ssize_t)at;
		case RESP_STEP_GOES_ON:
			break;
		}
	}
}

static void whole(const char *text)
{
	size_t len = strlen(text), i;

	check_count(value_length((const uint8_t *)text, len) == (ssize_t)len, __FILE__, __LINE__,
		    text);
	for (i = 0; i < len; i++)
		check_count(value_length(guard_copy(text, i), i) == 0, __FILE__, __LINE__, text);
}

static void bad(const char *text)
{
	check_count(value_length((const uint8_t *)text, strlen(text)) == -1, __FILE__, __LINE__,
		    text);
}

static void test_values(void)
{
	struct resp_header h;

	whole("+OK\r\n");
	whole("-ERR x\r\n");
	whole(":-12\r\n");
	whole("$0\r\n\r\n");
	whole("$5\r\na\r\nbc\r\n");
	whole("$-1\r\n");
	whole("*-1\r\n");
	whole("*0\r\n");
	whole("*2\r\n*1\r\n:1\r\n$1\r\na\r\n");
	whole("_\r\n");
	whole("#t\r\n");
	whole(",inf\r\n");
	whole("(123456789012345678901234567890\r\n");
	whole("!5\r\nERR x\r\n");
	whole("=7\r\ntxt:abc\r\n");
	whole("%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n");
	whole("~2\r\n:1\r\n:2\r\n");
	whole(">1\r\n+x\r\n");
	whole("|1\r\n+k\r\n+v\r\n:1\r\n");
	whole("|0\r\n:1\r\n");
	whole("*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n");
	whole("$?\r\n;3\r\nabc\r\n;0\r\n");
	whole("*?\r\n:1\r\n%?\r\n+a\r\n:1\r\n.\r\n.\r\n");
	bad("?\r\n");
	bad("$a\r\n");
	bad("$-2\r\n");
	bad("*1\r$");
	bad("$1234567890123456789\r\n");
	bad(".\r\n");
	bad(";1\r\na\r\n");
	bad("$?\r\n:1\r\n");
	bad(":1\n");
	CHECK(resp_header_read((const uint8_t *)"$123\r\n", 6, &h) == 6 && h.value == 123);
}

static void test_depth(void)
{
	char text[4 * (RESP_MAX_DEPTH + 1) + 8] = "";
	int i;

	for (i = 0; i < RESP_MAX_DEPTH; i++)
		strcat(text, "*1\r\n");
	strcat(text, ":1\r\n");
	CHECK(value_length((const uint8_t *)text, strlen(text)) == (ssize_t)strlen(text));
	text[0] = '\0';
	for (i = 0; i <= RESP_MAX_DEPTH; i++)
		strcat(text, "*1\r\n");
	CHECK(value_length((const uint8_t *)text, strlen(text)) == -1);
}

static void test_commands(void)
{
	const struct redis_command *cmd, *before = NULL;
	char upper[REDIS_NAME_MAX_BYTES];
	size_t i;

	for (i = 0; (cmd = redis_command_at(i)); i++, before = cmd) {
		bool ok = redis_command_find(slice_str(cmd->name)) == cmd &&
			  (cmd->keys != REDIS_KEYS_RANGE || cmd->step > 0);

		check_count(ok && (!before || strcmp(before->name, cmd->name) < 0), __FILE__,
			    __LINE__, cmd->name);
	}
	CHECK(i > 200);
	CHECK(!redis_command_find(slice_str("GE")) && !redis_command_find(slice_str("GETX")));
	CHECK(!redis_command_find(slice_str("")) && !redis_command_find(slice_str("ZZZ")));
	CHECK(slice_eq(redis_command_upper(slice_str("json.get"), upper), "JSON.GET"));
	CHECK(redis_command_name_ok(slice_str("a-b_c.D9")) &&
	      !redis_command_name_ok(slice_str("")));
	CHECK(!redis_command_name_ok(slice_str("a b")) &&
	      !redis_command_name_ok(slice_str("\xc3\xa4")));
	CHECK(!redis_command_name_ok(slice_str("abcdefghijklmnopqrstuvwxyzabcdefg")));
}

static enum protocol_match match(uint32_t flags, enum io_dir dir, const char *text)
{
	struct connection c = { .info.flags = flags };
	size_t len = strlen(text);

	return redis_protocol.match(&c, dir, guard_copy(text, len), len, len);
}

static void test_match(void)
{
	static const char get[] = "*2\r\n$3\r\nGET\r\n$1\r\na\r\n";

	CHECK(match(CONN_ACTIVE, IO_SEND, get) == PROTOCOL_REQUEST);
	CHECK(match(CONN_PASSIVE, IO_RECV, get) == PROTOCOL_REQUEST);
	CHECK(match(CONN_PASSIVE, IO_SEND, get) == PROTOCOL_NO);
	CHECK(match(CONN_ACTIVE, IO_RECV, get) == PROTOCOL_NO);
	CHECK(match(0, IO_SEND, get) == PROTOCOL_REQUEST &&
	      match(0, IO_RECV, get) == PROTOCOL_REQUEST);
	CHECK(match(0, IO_SEND, "*2\r\n$5\r\nhallo\r\n") == PROTOCOL_NO);
	CHECK(match(0, IO_SEND, "*2\r\n$3\r\nGE") == PROTOCOL_MAYBE);
	CHECK(match(CONN_ACTIVE, IO_SEND, "*") == PROTOCOL_MAYBE);
	CHECK(match(CONN_ACTIVE, IO_SEND, "*12\r") == PROTOCOL_MAYBE);
	CHECK(match(CONN_ACTIVE, IO_SEND, "*1\r\n:") == PROTOCOL_NO);
	CHECK(match(CONN_ACTIVE, IO_SEND, "*x") == PROTOCOL_NO &&
	      match(CONN_ACTIVE, IO_SEND, "*0\r\n$") == PROTOCOL_NO);
	CHECK(match(CONN_PASSIVE, IO_RECV, "PING\r\n") == PROTOCOL_REQUEST);
	CHECK(match(CONN_PASSIVE, IO_RECV, "SET a b\n") == PROTOCOL_REQUEST);
	CHECK(match(CONN_PASSIVE, IO_RECV, "ping\r\n") == PROTOCOL_REQUEST);
	/* memcached's */
	CHECK(match(CONN_PASSIVE, IO_RECV, "set a 0 0 1\r\n") == PROTOCOL_NO);
	CHECK(match(CONN_PASSIVE, IO_RECV, "get a\r\n") == PROTOCOL_NO);
	CHECK(match(CONN_PASSIVE, IO_RECV, "EHLO x\r\n") == PROTOCOL_NO);
	CHECK(match(CONN_ACTIVE, IO_SEND, "PING\r\n") == PROTOCOL_NO);
	CHECK(match(CONN_PASSIVE, IO_RECV, "PIN") == PROTOCOL_MAYBE);
}

int main(void)
{
	test_values();
	test_depth();
	test_commands();
	test_match();
	return check_result();
}
