/*
 * What an exporter is: a table of functions over its own state, driven by the agent's one epoll
 * loop. Nothing here may block: work that can't go on now goes on when its file descriptor or its
 * deadline comes. Spans are borrowed for the call; who needs them longer encodes them.
 */
#ifndef EXPORT_EXPORTER_H
#define EXPORT_EXPORTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"
#include "trace/span.h"

struct options;

struct span_batch {
	struct span *const *spans;
	size_t count;
	int64_t unix_offset_ns; /* add to a span's times for Unix time */
};

/* What an exporter may ask of the loop it runs in. */
struct exporter_loop {
	/* Calls exporter.ready when `fd` has `events` (EPOLLIN | EPOLLOUT; 0: no longer watched).
	 */
	int (*watch)(void *ctx, int fd, uint32_t events);
	void *ctx;
};

struct exporter {
	const char *name; /* "otlp", "console", "file" */
	/*
	 * NULL with a message in *ret_error (malloc'd, what, why and what to do) when the options
	 * can't be carried out. `now_ns` everywhere is CLOCK_MONOTONIC.
	 */
	void *(*open)(const struct options *options, const struct exporter_loop *loop,
		      struct stats *stats, char **ret_error);
	void (*export)(void *state, const struct span_batch *batch, uint64_t now_ns);
	/*
	 * How many more spans it can take before it has to drop some; SIZE_MAX when it knows no
	 * bound or waiting would not help. May be NULL: no bound.
	 */
	size_t (*room)(void *state);
	/* An fd it watches has `events`. May be NULL. */
	void (*ready)(void *state, int fd, uint32_t events, uint64_t now_ns);
	/* Called at or after the time it last asked for. May be NULL. */
	void (*tick)(void *state, uint64_t now_ns);
	/* The next time tick must be called; UINT64_MAX: no need. May be NULL. */
	uint64_t (*next_tick)(void *state);
	/* Shutdown: send what is there. True when nothing is left; called again after ready and
	 * tick until then. May be NULL. */
	bool (*flush)(void *state, uint64_t now_ns);
	void (*close)(void *state);
};

#endif
