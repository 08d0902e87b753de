/* What comes out of a script that is replayed. */
#ifndef TOOLS_REPLAY_RUN_H
#define TOOLS_REPLAY_RUN_H

#include "replay_script.h"
#include "trace/tracer.h"

enum { MAX_SPANS = 4096 };

struct run {
	const struct script *script;
	uint64_t next_id;
	struct span *spans[MAX_SPANS];
	size_t count;
	struct stats stats;
	struct buf told; /* what the tracer told of processes */
};

/* Appends the spans in the order of the array, what was dropped if `drops`, and what was told. */
void run_print(struct buf *out, const struct run *r, bool drops);

#endif
