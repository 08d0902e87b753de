/* Reads the text format of tools/replay. A mistake in it ends the program: there is nothing to go
 * on with. */
#include "replay_script.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	int error;
} errors[] = {
	{ "ECONNRESET", ECONNRESET },
	{ "EPIPE", EPIPE },
	{ "ETIMEDOUT", ETIMEDOUT },
	{ "ECONNREFUSED", ECONNREFUSED },
	{ "EHOSTUNREACH", EHOSTUNREACH },
	{ "ENETUNREACH", ENETUNREACH },
	{ "ECANCELED", ECANCELED },
	{ "ENOENT", ENOENT },
	{ "EACCES", EACCES },
};

static _Noreturn void fail_line(size_t line, const char *what)
{
	fprintf(stderr, "replay: line %zu: %s\n", line, what);
	exit(2);
}

static uint64_t number(size_t line, const char *text)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 0);

	if (*end || end == text)
		fail_line(line, "a number was expected");
	return v;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'                     ? c - '0'
	       : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
							: -1;
}

/* "…" with C escapes, then perhaps *N; gives back where it ends. */
static char *read_bytes(size_t line, char *p, struct buf *out)
{
	size_t start = out->len, len, times = 1;

	for (p++; *p && *p != '"'; p++) {
		if (*p != '\\') {
			buf_append_char(out, *p);
			continue;
		}
		p++;
		if (*p == 'x' && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0) {
			buf_append_char(out, (char)(hex_digit(p[1]) << 4 | hex_digit(p[2])));
			p += 2;
		} else {
			buf_append_char(out, *p == 'r'   ? '\r'
					     : *p == 'n' ? '\n'
					     : *p == 't' ? '\t'
					     : *p == '0' ? '\0'
							 : *p);
		}
	}
	if (*p++ != '"')
		fail_line(line, "a string has no end");
	len = out->len - start;
	if (*p == '*')
		times = strtoul(p + 1, &p, 10);
	if (!buf_reserve(out, len * times + 1))
		fail_line(line, "out of memory");
	while (times-- > 1)
		buf_append(out, out->data + start, len);
	return p;
}

/* Splits at white space; strings are appended to `data` and no words. */
static size_t split_line(size_t line, char *p, char **words, struct buf *data)
{
	size_t n = 0;

	for (;;) {
		while (isspace((unsigned char)*p))
			*p++ = '\0';
		if (!*p || *p == '#')
			break;
		if (*p == '"') {
			p = read_bytes(line, p, data);
			continue;
		}
		if (n == SCRIPT_MAX_WORDS)
			fail_line(line, "too many words");
		words[n++] = p;
		while (*p && !isspace((unsigned char)*p))
			p++;
	}
	return n;
}

/* 10.0.0.1:80, [::1]:80 */
static void read_address(size_t line, char *text, struct conn_info *c, uint8_t *address,
			 uint16_t *port)
{
	char *colon = strrchr(text, ':'), *host = text;

	if (!colon)
		fail_line(line, "an address needs a port");
	*colon = '\0';
	c->family = *text == '[' ? CONN_INET6 : CONN_INET;
	if (*text == '[') {
		host++;
		colon[-1] = '\0';
	}
	if (inet_pton(c->family == CONN_INET ? AF_INET : AF_INET6, host, address) != 1)
		fail_line(line, "no such address");
	*port = (uint16_t)number(line, colon + 1);
}

static int read_error(size_t line, const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (strcmp(errors[i].name, name) == 0)
			return -errors[i].error;
	}
	fail_line(line, "no such error");
}

/* One of key=value, flags and addresses, for all kinds of lines. */
static size_t read_option(size_t line, struct script_event *e, char **words, size_t i, size_t n)
{
	char *w = words[i];

	if (strncmp(w, "pid=", 4) == 0) {
		e->conn.pid = e->io.pid = (uint32_t)number(line, w + 4);
		e->conn.tid = e->io.tid = e->conn.pid;
	} else if (strncmp(w, "tid=", 4) == 0) {
		e->conn.tid = e->io.tid = (uint32_t)number(line, w + 4);
	} else if (strncmp(w, "turn=", 5) == 0) {
		e->conn.turn = e->io.turn = (uint32_t)number(line, w + 5);
	} else if (strncmp(w, "connect-turn=", 13) == 0) {
		e->conn.connect_turn = (uint32_t)number(line, w + 13);
	} else if (strncmp(w, "parent=", 7) == 0) {
		e->parent_tid = (uint32_t)number(line, w + 7);
	} else if (strncmp(w, "more=", 5) == 0) {
		e->io.length = (uint32_t)number(line, w + 5);
	} else if (strncmp(w, "lost=", 5) == 0) {
		e->io.length = (uint32_t)number(line, w + 5);
		e->io.flags |= IO_LOST;
	} else if (strncmp(w, "error=", 6) == 0) {
		e->io.error = e->fail.error = read_error(line, w + 6);
	} else if (strncmp(w, "end=", 4) == 0) {
		e->fail.end_ns = number(line, w + 4);
	} else if (strcmp(w, "active") == 0) {
		e->conn.flags |= CONN_ACTIVE;
	} else if (strcmp(w, "passive") == 0) {
		e->conn.flags |= CONN_PASSIVE;
	} else if (strcmp(w, "fresh") == 0) {
		e->conn.flags |= CONN_FRESH;
	} else if (strcmp(w, "nonblock") == 0) {
		e->io.flags |= IO_NONBLOCK;
	} else if (strcmp(w, "same") == 0) {
		e->io.flags |= IO_SAME_CALL;
	} else if (strcmp(w, "tcp") == 0 && i + 2 < n) {
		read_address(line, words[i + 1], &e->conn, e->conn.local, &e->conn.local_port);
		read_address(line, words[i + 2], &e->conn, e->conn.peer, &e->conn.peer_port);
		return i + 3;
	} else if (strcmp(w, "unix") == 0 && i + 1 < n) {
		e->conn.family = CONN_UNIX;
		snprintf(e->conn.path, sizeof(e->conn.path), "%s", words[i + 1]);
		return i + 2;
	} else if (!script_runtime_option(e, w) && !script_request_option(e, w)) {
		fail_line(line, "no such word");
	}
	return i + 1;
}

static const struct {
	const char *name;
	enum script_kind kind;
	bool has_conn;
} kinds[] = {
	{ "open", EV_OPEN, true },        { "send", EV_IO, true },
	{ "recv", EV_IO, true },          { "eof", EV_IO, true },
	{ "close", EV_CLOSE, true },      { "fail", EV_FAIL, false },
	{ "thread", EV_THREAD, false },   { "thread-exit", EV_THREAD_EXIT, false },
	{ "exit", EV_EXIT, false },       { "lost", EV_LOST, false },
	{ "tick", EV_TICK, false },       { "runtime", EV_RUNTIME, false },
	{ "exec", EV_CHANGED, false },    { "copy", EV_CONTEXT, false },
	{ "submit", EV_CONTEXT, false },  { "born", EV_CONTEXT, false },
	{ "unknown", EV_CONTEXT, false }, { "enter", EV_NATIVE, false },
	{ "leave", EV_NATIVE, false },    { "request", EV_REQUEST, true },
};

/* What an event of a runtime shares with the others. */
static void fill_runtime(struct script_event *e, const char *word)
{
	e->context.kind = *word == 'c'   ? CONTEXT_EVENT_COPIED
			  : *word == 's' ? CONTEXT_EVENT_SUBMITTED
			  : *word == 'u' ? CONTEXT_EVENT_UNKNOWN
					 : CONTEXT_EVENT_BORN;
	e->context.ts_ns = e->native.ts_ns = e->ts_ns;
	e->context.pid = e->native.pid = e->conn.pid;
	e->context.tid = e->native.tid = e->conn.tid;
	e->context.turn = e->native.turn = e->conn.turn;
	e->native.left = *word == 'l';
}

static void read_event(struct script *s, size_t line, char **words, size_t n, struct buf *data)
{
	struct script_event *e = &s->events[s->count];
	size_t k, i = 1;

	if (s->count == SCRIPT_MAX_EVENTS)
		fail_line(line, "too many events");
	for (k = 0; k < sizeof(kinds) / sizeof(kinds[0]) && strcmp(kinds[k].name, words[0]) != 0;
	     k++)
		;
	if (k == sizeof(kinds) / sizeof(kinds[0]) || n < (kinds[k].has_conn ? 3u : 2u))
		fail_line(line, "no such event, or too short");
	*e = (struct script_event){ .kind = kinds[k].kind, .data = *data };
	*data = (struct buf){ 0 };
	if (kinds[k].has_conn)
		e->io.conn_id = e->conn.conn_id = number(line, words[i++]);
	e->ts_ns = e->io.ts_ns = e->conn.ts_ns = number(line, words[i++]);
	e->io.dir = *words[0] == 's' ? IO_SEND : IO_RECV;
	/* A connection's process goes for its events, until they say otherwise. */
	for (k = s->count; e->kind != EV_OPEN && k-- > 0;) {
		if (s->events[k].kind == EV_OPEN && s->events[k].conn.conn_id == e->conn.conn_id) {
			e->io.pid = s->events[k].conn.pid;
			e->io.tid = s->events[k].conn.tid;
			break;
		}
	}
	while (i < n)
		i = read_option(line, e, words, i, n);
	fill_runtime(e, words[0]);
	e->request.ts_ns = e->ts_ns;
	e->request.conn_id = e->conn.conn_id;
	e->request.pid = e->io.pid;
	e->request.tid = e->io.tid;
	e->fail.conn = e->conn;
	e->io.captured = (uint32_t)e->data.len;
	e->io.length += e->io.captured;
	s->count++;
}

bool script_read(FILE *f, struct script *s)
{
	char *text = NULL, *words[SCRIPT_MAX_WORDS];
	size_t cap = 0, line = 0;
	bool more = false;

	while (!more && getline(&text, &cap, f) >= 0) {
		struct buf data = { 0 };
		size_t n;

		line++;
		if (strcmp(text, "---\n") == 0) {
			more = true;
			continue;
		}
		n = split_line(line, text, words, &data);
		if (n && strcmp(words[0], "nosplit") == 0) {
			s->nosplit = true;
		} else if (n == 2 && strcmp(words[0], "ratio") == 0) {
			s->has_ratio = true;
			s->ratio = strtod(words[1], NULL);
		} else if (n && !script_define(s, words, n)) {
			read_event(s, line, words, n, &data);
		}
		buf_free(&data);
	}
	free(text);
	return more;
}

void script_free(struct script *s)
{
	size_t i;

	for (i = 0; i < s->count; i++)
		buf_free(&s->events[i].data);
	s->count = 0;
	script_undefine(s);
}
