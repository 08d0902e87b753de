/* The text format of tools/replay, described in tests/golden/README.md: lines become events, bytes
 * and all. */
#ifndef TOOLS_REPLAY_SCRIPT_H
#define TOOLS_REPLAY_SCRIPT_H

#include <stdio.h>

#include "base/buf.h"
#include "base/io.h"
#include "trace/tracer.h"

enum { SCRIPT_MAX_EVENTS = 4096, SCRIPT_MAX_DEFINITIONS = 16, SCRIPT_MAX_WORDS = 64 };

/* One line of the input. */
enum script_kind {
	EV_OPEN,
	EV_IO,
	EV_CLOSE,
	EV_FAIL,
	EV_THREAD,
	EV_THREAD_EXIT,
	EV_EXIT,
	EV_LOST,
	EV_TICK,
	EV_RUNTIME,
	EV_CHANGED,
	EV_CONTEXT,
	EV_NATIVE,
	EV_REQUEST
};

struct script_event {
	enum script_kind kind;
	struct conn_info conn;
	struct io_event io;
	struct connect_failure fail;
	struct context_event context;
	struct native_span_event native;
	struct request_event request;
	struct runtime_site site;
	bool has_site;
	uint64_t route; /* number of its definition; 0: none */
	uint32_t parent_tid;
	uint64_t ts_ns;
	struct buf data;
};

/* What the addresses that a runtime gives stand for. */
struct script_code {
	uint64_t number;
	char *function, *file, *route;
	uint32_t line;
};

struct script {
	struct script_event events[SCRIPT_MAX_EVENTS];
	size_t count;
	bool nosplit; /* the case is about where events begin and end */
	bool has_ratio;
	double ratio; /* of the sampler */
	struct script_code codes[SCRIPT_MAX_DEFINITIONS], routes[SCRIPT_MAX_DEFINITIONS];
	size_t code_count, route_count;
	struct span_rule rules[SCRIPT_MAX_DEFINITIONS];
	size_t rule_count;
	char *lines[3 * SCRIPT_MAX_DEFINITIONS]; /* what the definitions point into */
	size_t line_count;
	bool no_code, no_route;
	bool keep_errors;
	bool tell_trust; /* what was told of it is printed */
	uint64_t keep_slow_ns;
	uint32_t silent_pid; /* it reports its own spans; 0: none does */
};

/* Reads up to a line "---" (true) or the end of the file (false). Leaves with a message and status
 * 2 on bad input. */
bool script_read(FILE *f, struct script *s);
void script_free(struct script *s);

/* replay_define.c */
/* Takes a line that is no event ("code 7 f app.py 3"): true, or false when it is none of these. The
 * words stay the caller's. */
bool script_define(struct script *s, char **words, size_t n);
void script_undefine(struct script *s);
const struct script_code *script_find(const struct script_code *list, size_t count,
				      uint64_t number);
/* What a runtime says at an event: "ctx=3", "span=0:100:1" …; false when the word is none of these.
 */
bool script_runtime_option(struct script_event *e, const char *word);

/* replay_request.c: the same of what the kernel side knows of requests. */
bool script_request_option(struct script_event *e, const char *word);

#endif
