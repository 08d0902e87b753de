/*
 * What the kernel side is told of each traced process: how far its bindings are relied upon, which
 * service it is, and whether it reports spans of its own (an SDK), so that ours are left out. Signs
 * in /proc are looked for when it is traced and a few times after; its OTLP traffic is the proof.
 * Invariant: a process that is known to report its own spans is silent in the kernel until it runs
 * another program; one that only may be is silent in the tracer, so that its exports are seen.
 */
#ifndef AGENT_PROCESS_H
#define AGENT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/options.h"
#include "discover/resource_detect.h"
#include "probe/probe.h"

struct agent_processes;

enum agent_follow {
	AGENT_FOLLOW_NOT,
	AGENT_FOLLOW_THERE, /* it had been running, and so may have connections */
	AGENT_FOLLOW_CHILD, /* the same, and its parent is traced */
	AGENT_FOLLOW_BORN,  /* a traced process has just made it */
};

struct agent_process_ops {
	/* From now on it is followed (its runtime read, its connections taken over), or not. */
	void (*follow)(void *ctx, uint32_t pid, enum agent_follow how);
	void *ctx;
};

/* All borrowed. NULL when out of memory. */
struct agent_processes *agent_processes_new(const struct options *options, struct probe *probe,
					    const struct resource_context *resources,
					    const struct agent_process_ops *ops);
/* Takes NULL. */
void agent_processes_free(struct agent_processes *ps);

/*
 * `pid` is traced from now on; `parent`: because this one is, 0: by a rule; `born`: it was made
 * just now, with what its parent has. ops.follow is called unless its spans are left out. All times
 * are CLOCK_MONOTONIC.
 */
void agent_process_begin(struct agent_processes *ps, uint32_t pid, uint32_t parent, bool born,
			 uint64_t now_ns);
void agent_process_end(struct agent_processes *ps, uint32_t pid);
/* It runs another program, if it is one that was begun: looked at anew. */
void agent_process_changed(struct agent_processes *ps, uint32_t pid, uint64_t now_ns);
/* It serves now, so what it needs for that is loaded: looked at once more. */
void agent_process_listens(struct agent_processes *ps, uint32_t pid);
/* Looks again where it is time to, and gives up on SDKs that send nothing. Once a second is
 * enough. */
void agent_processes_tick(struct agent_processes *ps, uint64_t now_ns);

/* struct tracer_ops: `trust` is a set of PROBE_TRUST_*. */
void agent_process_trust(struct agent_processes *ps, uint32_t pid, uint32_t trust);
/* A span of it is complete: is it left out? */
bool agent_process_silent(struct agent_processes *ps, uint32_t pid, uint64_t now_ns);
/* It sends spans of its own. */
void agent_process_exports(struct agent_processes *ps, uint32_t pid);

/* How many report, or may be reporting, their own. */
size_t agent_processes_silent(const struct agent_processes *ps);
/* "TITLE: 2 processes report their own spans", one line of the log; nothing when there are none. */
void agent_processes_report(const struct agent_processes *ps, const char *title);

#endif
