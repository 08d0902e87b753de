/*
 * The agent's counters: what was seen, what was dropped and why. One struct, owned by the agent,
 * passed down to whoever counts. The reasons stand in include/drop_reason.h, the one header that
 * base shares with BPF.
 */
#ifndef BASE_STATS_H
#define BASE_STATS_H

#include <stdint.h>

#include "drop_reason.h"

#define STATS_FIGURES(X)                                                  \
	X(EVENTS, "events", "records taken from the ring buffer")         \
	X(CONNECTIONS, "connections", "connections seen")                 \
	X(SPANS, "spans", "spans completed")                              \
	X(LINKED, "linked", "client spans with a parent")                 \
	X(JOINED, "joined", "requests whose call was found on this host") \
	X(INJECTED, "injected", "calls that took our traceparent along")  \
	X(EXPORTED, "exported", "spans accepted by the collector")

#define STATS_ENUM(symbol, name, text) STATS_##symbol,
enum stats_figure { STATS_FIGURES(STATS_ENUM) STATS_FIGURE_COUNT };
#undef STATS_ENUM

struct stats {
	uint64_t figures[STATS_FIGURE_COUNT];
	uint64_t drops[DROP_REASON_COUNT];
};

static inline void stats_add(struct stats *s, enum stats_figure figure, uint64_t n)
{
	s->figures[figure] += n;
}

static inline void stats_drop(struct stats *s, enum drop_reason reason, uint64_t n)
{
	s->drops[reason] += n;
}

const char *stats_figure_name(enum stats_figure figure);
const char *drop_reason_name(enum drop_reason reason);
/* One sentence for people. */
const char *drop_reason_text(enum drop_reason reason);

#endif
