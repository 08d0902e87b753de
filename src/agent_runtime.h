/*
 * The runtimes (interpreters) and native custom spans of traced processes: which process runs what,
 * where its probes are, what the kernel side and the tracer are told of it. It looks at a process
 * when it becomes traced, again while it starts, and now and then for what was loaded since.
 * Invariant: the tracer hears of a runtime only when every probe that its links need is in place;
 * nothing that is known of one program is used for another one of the same number.
 */
#ifndef AGENT_RUNTIME_H
#define AGENT_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/options.h"
#include "probe/probe.h"
#include "trace/tracer.h"

struct agent_runtime;
struct resource;

/* All borrowed, as is `proc_fd`, a handle of /proc. NULL when out of memory. */
struct agent_runtime *agent_runtime_new(const struct options *options, struct probe *probe,
					struct tracer *tracer, int proc_fd);
/* Takes NULL. Probes are left to probe_close(). */
void agent_runtime_free(struct agent_runtime *r);

/* How a process came to be traced. */
enum runtime_origin {
	RUNTIME_THERE,  /* it had been running */
	RUNTIME_FORKED, /* a traced one made it */
	RUNTIME_EXECED, /* it has just begun to run this program */
};

/* `pid` is traced from now on, or runs another program: what was known of it is forgotten. */
void agent_runtime_begin(struct agent_runtime *r, uint32_t pid, enum runtime_origin origin);
/* It is gone. */
void agent_runtime_end(struct agent_runtime *r, uint32_t pid);
/* It runs another program, if it is one that was begun. */
void agent_runtime_changed(struct agent_runtime *r, uint32_t pid);
/* It serves now, so what it needs for that is loaded: looks again soon. */
void agent_runtime_listens(struct agent_runtime *r, uint32_t pid);
/* Records were lost: makes sure of what each process runs. */
void agent_runtime_recheck(struct agent_runtime *r);

/* Looks at the processes whose turn it is, for a few milliseconds at most. */
void agent_runtime_tick(struct agent_runtime *r, uint64_t now_ns);
/* The same for all, at the start: within a second or so. Says on one line what was found. */
void agent_runtime_start(struct agent_runtime *r);
/* "TITLE: contexts of 3 python processes (3.11.2: 2, 3.13.0: 1)", one line of the log; nothing when
 * there are none. */
void agent_runtime_report(const struct agent_runtime *r, const char *title);

/* Names the custom spans of Python whose function was found in no process: for the end. */
void agent_runtime_report_spans(const struct agent_runtime *r);

/* Makes process.runtime.version in `resource` exact, where the runtime is known and what the
 * resource says by now is the beginning of its version or nothing. */
void agent_runtime_describe(const struct agent_runtime *r, uint32_t pid, struct resource *resource);
/* As in struct probe_sink and struct tracer_ops. */
void agent_runtime_code_unknown(struct agent_runtime *r, uint32_t pid, uint64_t code);
bool agent_runtime_code(struct agent_runtime *r, uint32_t pid, uint64_t code,
			struct code_info *ret);
bool agent_runtime_route(struct agent_runtime *r, uint32_t pid, const struct runtime_route *route,
			 struct route_info *ret);

#endif
