/*
 * The words of tools/replay's format that tell what the kernel side knows of requests: their ids,
 * where they stand in their TCP streams, which ends of unix sockets belong together.
 */
#include <stdlib.h>
#include <string.h>

#include "replay_script.h"

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 0);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* Fewer digits stand at the end. */
static void read_id(const char *hex, uint8_t *id, size_t size)
{
	size_t digits = strlen(hex), i;

	memset(id, 0, size);
	for (i = 0; i < digits && i < 2 * size; i++) {
		size_t at = 2 * size - 1 - i;

		id[at / 2] |= (uint8_t)(hex_digit(hex[digits - 1 - i]) << (at % 2 ? 0 : 4));
	}
}

static bool flag(struct request_event *r, const char *w)
{
	static const struct {
		const char *name;
		uint32_t flag;
	} flags[] = {
		{ "server", REQUEST_EVENT_SERVER },   { "call", 0 },
		{ "sampled", REQUEST_EVENT_SAMPLED }, { "remote", REQUEST_EVENT_REMOTE },
		{ "joined", REQUEST_EVENT_JOINED },   { "bound", REQUEST_EVENT_BOUND },
		{ "fixed", REQUEST_EVENT_FIXED },     { "injected", REQUEST_EVENT_INJECTED },
		{ "own", REQUEST_EVENT_OWN },
	};
	size_t i;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (strcmp(w, flags[i].name) == 0) {
			r->flags |= flags[i].flag;
			return true;
		}
	}
	return false;
}

bool script_request_option(struct script_event *e, const char *w)
{
	struct request_event *r = &e->request;

	if (strncmp(w, "seq=", 4) == 0)
		e->io.tcp_seq = r->tcp_seq = (uint32_t)number(w + 4);
	else if (strncmp(w, "peer=", 5) == 0)
		e->io.tcp_peer_seq = r->tcp_peer_seq = (uint32_t)number(w + 5);
	else if (strncmp(w, "socket=", 7) == 0)
		e->conn.socket = number(w + 7);
	else if (strncmp(w, "peer-socket=", 12) == 0)
		e->conn.peer_socket = number(w + 12);
	else if (strncmp(w, "root-of=", 8) == 0)
		e->context.root_of = number(w + 8);
	else if (strcmp(w, "bound") == 0 && e->kind != EV_REQUEST)
		e->context.bound = true;
	else if (e->kind != EV_REQUEST)
		return false;
	else if (strncmp(w, "trace-id=", 9) == 0)
		read_id(w + 9, r->trace_id, sizeof(r->trace_id));
	else if (strncmp(w, "span-id=", 8) == 0)
		read_id(w + 8, r->span_id, sizeof(r->span_id));
	else if (strncmp(w, "parent-id=", 10) == 0)
		read_id(w + 10, r->parent_span_id, sizeof(r->parent_span_id));
	else if (strncmp(w, "trace-flags=", 12) == 0)
		r->trace_flags = (uint8_t)number(w + 12);
	else if (strncmp(w, "added=", 6) == 0)
		r->added = (uint32_t)number(w + 6);
	else
		return flag(r, w);
	return true;
}
