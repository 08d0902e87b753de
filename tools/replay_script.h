/* The text format of tools/replay, described in tests/golden/README.md: lines become events, bytes
 * and all. */
#ifndef TOOLS_REPLAY_SCRIPT_H
#define TOOLS_REPLAY_SCRIPT_H

#include <stdio.h>

#include "base/buf.h"
#include "base/io.h"

enum { SCRIPT_MAX_EVENTS = 4096 };

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
	EV_TICK
};

struct script_event {
	enum script_kind kind;
	struct conn_info conn;
	struct io_event io;
	struct connect_failure fail;
	uint32_t parent_tid;
	uint64_t ts_ns;
	struct buf data;
};

struct script {
	struct script_event events[SCRIPT_MAX_EVENTS];
	size_t count;
	bool nosplit; /* the case is about where events begin and end */
	bool has_ratio;
	double ratio; /* of the sampler */
};

/* Reads up to a line "---" (true) or the end of the file (false). Leaves with a message and status
 * 2 on bad input. */
bool script_read(FILE *f, struct script *s);
void script_free(struct script *s);

#endif
