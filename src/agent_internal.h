/* What the files of the agent share: its whole state. */
#ifndef AGENT_INTERNAL_H
#define AGENT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent_process.h"
#include "agent_runtime.h"
#include "attach.h"
#include "base/hash.h"
#include "base/stats.h"
#include "config/options.h"
#include "discover/resource_detect.h"
#include "discover/select.h"
#include "export/queue.h"
#include "probe/probe.h"
#include "trace/tracer.h"

enum { RANDOM_POOL_BYTES = 4096 };

struct agent {
	const struct options *options;
	struct stats stats;
	struct selector selector;
	struct resource_context resources;
	struct probe *probe;
	struct tracer *tracer;
	struct export_queue *queue;
	struct attach attach;
	struct agent_runtime *runtime;
	struct agent_processes *processes;
	struct span_rule *span_rules;           /* one for each of options->spans */
	struct span_attribute *span_attributes; /* of all of them */
	struct hash watched; /* fd → this struct: what the exporters have in the epoll set */
	int epoll_fd, signal_fd;
	size_t room;      /* spans that the exporters can take now */
	uint64_t full_ns; /* since when they can take none; 0: they can */
	uint64_t poll_ns, next_housekeeping_ns, now_ns;
	bool stopping;
	bool lost; /* records went missing since the last housekeeping */
	uint8_t random[RANDOM_POOL_BYTES];
	size_t random_used;
};

/* agent_events.c: what the ring brings, and what the tracer asks for; both tables have the agent as
 * their ctx. */
struct probe_sink agent_sink(struct agent *a);
struct tracer_ops agent_tracer_ops(struct agent *a);
struct agent_process_ops agent_process_ops(struct agent *a);

/* agent_start.c: everything made and attached, or the exit status 1 and the reason said. */
int agent_start(struct agent *a);
void agent_span_rules_free(struct agent *a);
/* An exporter's descriptor in the loop's epoll set: struct exporter_loop. */
int agent_watch(void *ctx, int fd, uint32_t events);

#endif
