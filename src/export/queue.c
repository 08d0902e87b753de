/*
 * The batch that is being collected, in front of a few exporters. Each exporter asks for its file
 * descriptors through a loop of its own, so that an event goes to the one that watches it.
 * Invariant: a span is in the list or freed; `count` is the list's length and below max_batch
 * between calls.
 */
#include "export/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/hash.h"
#include "config/options.h"

enum { QUEUE_MAX_EXPORTERS = 8 };

/* A step of the system's clock shows as more than this; less is the noise of reading two clocks. */
static const int64_t CLOCK_STEP_NS = 1000000;

struct opened {
	const struct exporter *exporter;
	void *state;
	struct exporter_loop loop; /* what the exporter sees; ctx is this struct */
	struct export_queue *queue;
};

struct export_queue {
	struct exporter_loop outer;
	struct stats *stats;
	struct opened opened[QUEUE_MAX_EXPORTERS];
	size_t opened_count;
	struct hash by_fd; /* fd → struct opened */
	struct list spans;
	size_t count, max_batch;
	struct span **batch;          /* max_batch pointers */
	uint64_t delay_ns, oldest_ns; /* oldest_ns: when the first span of the list came */
	int64_t unix_offset_ns;
};

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* CLOCK_REALTIME - CLOCK_MONOTONIC, from the closest of a few readings. */
static int64_t read_unix_offset(void)
{
	int64_t best = 0, best_gap = INT64_MAX;
	int i;

	for (i = 0; i < 3; i++) {
		int64_t before = clock_ns(CLOCK_MONOTONIC);
		int64_t real = clock_ns(CLOCK_REALTIME);
		int64_t gap = clock_ns(CLOCK_MONOTONIC) - before;

		if (gap < best_gap) {
			best_gap = gap;
			best = real - before - gap / 2;
		}
	}
	return best;
}

struct export_queue *export_queue_new(const struct options *options,
				      const struct exporter_loop *loop, struct stats *stats)
{
	struct export_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->outer = *loop;
	q->stats = stats;
	q->max_batch = options->max_export_batch_size;
	if (!q->max_batch || q->max_batch > options->max_queue_size)
		q->max_batch = options->max_queue_size ? options->max_queue_size : 1;
	q->delay_ns = options->batch_delay_ms * 1000000;
	q->unix_offset_ns = read_unix_offset();
	list_init(&q->spans);
	q->batch = calloc(q->max_batch, sizeof(struct span *));
	if (!q->batch) {
		free(q);
		return NULL;
	}
	return q;
}

static struct span *pop(struct export_queue *q)
{
	struct span *s = list_entry(q->spans.next, struct span, node);

	list_remove(&s->node);
	q->count--;
	return s;
}

void export_queue_free(struct export_queue *q)
{
	size_t i;

	if (!q)
		return;
	if (q->opened_count)
		stats_drop(q->stats, DROP_EXPORT_FAILED, q->count);
	while (q->count)
		span_free(pop(q));
	for (i = 0; i < q->opened_count; i++)
		q->opened[i].exporter->close(q->opened[i].state);
	hash_free(&q->by_fd);
	free(q->batch);
	free(q);
}

static int watch(void *ctx, int fd, uint32_t events)
{
	struct opened *o = ctx;
	int err;

	if (events && !hash_put(&o->queue->by_fd, (uint64_t)fd, o))
		return -ENOMEM;
	err = o->queue->outer.watch(o->queue->outer.ctx, fd, events);
	if (!events || err)
		hash_remove(&o->queue->by_fd, (uint64_t)fd);
	return err;
}

int export_queue_add(struct export_queue *q, const struct exporter *exporter,
		     const struct options *options, char **ret_error)
{
	struct opened *o = &q->opened[q->opened_count];

	if (q->opened_count == QUEUE_MAX_EXPORTERS)
		return -ENOSPC;
	*o = (struct opened){ .exporter = exporter, .loop = { watch, o }, .queue = q };
	o->state = exporter->open(options, &o->loop, q->stats, ret_error);
	if (!o->state)
		return -EINVAL;
	q->opened_count++;
	return 0;
}

/* Hands the oldest spans, at most one batch of them, to every exporter. */
static void export_batch(struct export_queue *q, uint64_t now_ns)
{
	struct span_batch batch = { .spans = q->batch };
	int64_t offset = read_unix_offset();
	size_t i;

	/* Spans of one trace may go in several batches: their times keep one offset until the clock
	 * is stepped. */
	if (llabs(offset - q->unix_offset_ns) > CLOCK_STEP_NS)
		q->unix_offset_ns = offset;
	batch.unix_offset_ns = q->unix_offset_ns;
	while (q->count && batch.count < q->max_batch)
		q->batch[batch.count++] = pop(q);
	for (i = 0; i < q->opened_count; i++)
		q->opened[i].exporter->export(q->opened[i].state, &batch, now_ns);
	for (i = 0; i < batch.count; i++)
		span_free(q->batch[i]);
	q->oldest_ns = now_ns;
}

void export_queue_push(struct export_queue *q, struct span *s, uint64_t now_ns)
{
	if (!q->opened_count) {
		span_free(s);
		return;
	}
	if (!q->count)
		q->oldest_ns = now_ns;
	list_push(&q->spans, &s->node);
	q->count++;
	if (q->count >= q->max_batch)
		export_batch(q, now_ns);
}

size_t export_queue_room(const struct export_queue *q)
{
	size_t i, room = SIZE_MAX;

	for (i = 0; i < q->opened_count; i++) {
		const struct opened *o = &q->opened[i];
		size_t theirs = o->exporter->room ? o->exporter->room(o->state) : SIZE_MAX;

		if (theirs < room)
			room = theirs;
	}
	if (room == SIZE_MAX)
		return room;
	return room > q->count ? room - q->count : 0;
}

bool export_queue_ready(struct export_queue *q, int fd, uint32_t events, uint64_t now_ns)
{
	struct opened *o = hash_get(&q->by_fd, (uint64_t)fd);

	if (!o)
		return false;
	o->exporter->ready(o->state, fd, events, now_ns);
	return true;
}

void export_queue_tick(struct export_queue *q, uint64_t now_ns)
{
	size_t i;

	if (q->count && now_ns >= q->oldest_ns + q->delay_ns)
		export_batch(q, now_ns);
	for (i = 0; i < q->opened_count; i++) {
		const struct opened *o = &q->opened[i];

		if (o->exporter->tick &&
		    (!o->exporter->next_tick || o->exporter->next_tick(o->state) <= now_ns))
			o->exporter->tick(o->state, now_ns);
	}
}

uint64_t export_queue_next_tick(const struct export_queue *q)
{
	uint64_t next = q->count ? q->oldest_ns + q->delay_ns : UINT64_MAX;
	size_t i;

	for (i = 0; i < q->opened_count; i++) {
		const struct opened *o = &q->opened[i];
		uint64_t theirs =
			o->exporter->next_tick ? o->exporter->next_tick(o->state) : UINT64_MAX;

		if (theirs < next)
			next = theirs;
	}
	return next;
}

bool export_queue_flush(struct export_queue *q, uint64_t now_ns)
{
	bool done = true;
	size_t i;

	while (q->count)
		export_batch(q, now_ns);
	for (i = 0; i < q->opened_count; i++) {
		const struct opened *o = &q->opened[i];

		if (o->exporter->flush && !o->exporter->flush(o->state, now_ns))
			done = false;
	}
	return done;
}
