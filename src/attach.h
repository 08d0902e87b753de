/*
 * Who is traced right now: applies the user's rules to the processes that are there and to those
 * that come, follows children, and tells the kernel side. It refuses the agent itself.
 */
#ifndef ATTACH_H
#define ATTACH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "discover/select.h"
#include "probe/probe.h"

struct attach {
	const struct selector *selector; /* borrowed */
	struct probe *probe;             /* borrowed */
	struct hash traced;              /* pid → this struct (any value that is not NULL) */
	int quiet;                       /* the first scan is summed up in one line by the caller */
	/* From now on `pid` is traced; `parent`: because this one is, 0: by a rule; `born`: that
	 * one has made it just now. */
	void (*on_trace)(void *ctx, uint32_t pid, uint32_t parent, bool born);
	void *ctx;
};

void attach_free(struct attach *a);
/* All processes that match now, and their descendants. 0 or -errno. */
int attach_scan(struct attach *a);
size_t attach_count(const struct attach *a);
int attach_is_traced(const struct attach *a, uint32_t pid);

/* Events were lost: drops who is gone (telling `gone`) and scans anew. */
void attach_rescan(struct attach *a, void (*gone)(void *ctx, uint32_t pid), void *ctx);

/* Events of the kernel side. */
void attach_on_fork(struct attach *a, uint32_t pid, uint32_t parent);
void attach_on_exit(struct attach *a, uint32_t pid);
/* A program was started or a process moved to another cgroup: does a rule want it? */
void attach_on_change(struct attach *a, uint32_t pid);
void attach_on_listen(struct attach *a, uint32_t pid, uint16_t port);

#endif
