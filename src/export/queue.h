/*
 * The spans between the tracer and the exporters. It owns every span pushed until all exporters
 * have been given it, and the exporters themselves. A batch goes to them when it is full or its
 * oldest span has waited for the delay; none of them may hold up the others, so each keeps what it
 * can't pass on yet within OTEL_BSP_MAX_QUEUE_SIZE itself and counts what is too much
 * (DROP_QUEUE_FULL, DROP_CONSOLE_BUSY). Nothing here blocks.
 */
#ifndef EXPORT_QUEUE_H
#define EXPORT_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "export/exporter.h"

struct export_queue;

/* Limits and delays from `options` (OTEL_BSP_*); `loop` and `stats` are borrowed. NULL when out of
 * memory. */
struct export_queue *export_queue_new(const struct options *options,
				      const struct exporter_loop *loop, struct stats *stats);
/* Closes the exporters; spans still held are counted as DROP_EXPORT_FAILED. Takes NULL. */
void export_queue_free(struct export_queue *q);

/* Opens one more exporter. -EINVAL with *ret_error (malloc'd) when its open refuses, -ENOSPC when
 * there are too many. */
int export_queue_add(struct export_queue *q, const struct exporter *exporter,
		     const struct options *options, char **ret_error);

/* Takes the span over. `now_ns` everywhere is CLOCK_MONOTONIC. */
void export_queue_push(struct export_queue *q, struct span *s, uint64_t now_ns);
/*
 * How many more spans can be pushed before an exporter has to drop some that a little patience
 * would save; SIZE_MAX when none has a bound.
 */
size_t export_queue_room(const struct export_queue *q);
/* An fd passed to loop->watch has `events`. False: it is no exporter's. */
bool export_queue_ready(struct export_queue *q, int fd, uint32_t events, uint64_t now_ns);
void export_queue_tick(struct export_queue *q, uint64_t now_ns);
/* When tick must be called; UINT64_MAX: no need until a push. */
uint64_t export_queue_next_tick(const struct export_queue *q);
/* Shutdown: hands everything on. True when nothing is left anywhere; until then call ready, tick
 * and this again. */
bool export_queue_flush(struct export_queue *q, uint64_t now_ns);

#endif
