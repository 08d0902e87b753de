/*
 * The queue with an exporter of the test's own: when batches go out, how large they are, that every
 * span comes exactly once and is freed (the sanitizers see), that an fd's events reach who watches
 * it.
 */
#include "export/queue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config/options.h"

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			exit(1);                                                   \
		}                                                                  \
	} while (0)

static const uint64_t MS = 1000000;

/* What the last exporters that were opened saw. */
static struct fake {
	const struct exporter_loop *loop;
	size_t batches, spans, largest;
	int ready_fd, ticks, closed;
	uint64_t next_tick;
	int64_t offset;
	int flushes_left;
} fakes[2];
static int opened;
static int watched_fd = -1;
static uint32_t watched_events;

static void *fake_open(const struct options *options, const struct exporter_loop *loop,
		       struct stats *stats, char **ret_error)
{
	struct fake *f = &fakes[opened];

	(void)stats;
	if (options->file) {
		*ret_error = strdup("no");
		return NULL;
	}
	*f = (struct fake){ .loop = loop, .ready_fd = -1, .next_tick = UINT64_MAX };
	opened++;
	return f;
}

static void fake_export(void *state, const struct span_batch *batch, uint64_t now_ns)
{
	struct fake *f = state;

	(void)now_ns;
	CHECK(batch->count > 0);
	f->batches++;
	f->spans += batch->count;
	f->largest = batch->count > f->largest ? batch->count : f->largest;
	f->offset = batch->unix_offset_ns;
}

static void fake_ready(void *state, int fd, uint32_t events, uint64_t now_ns)
{
	(void)events, (void)now_ns;
	((struct fake *)state)->ready_fd = fd;
}

static void fake_tick(void *state, uint64_t now_ns)
{
	(void)now_ns;
	((struct fake *)state)->ticks++;
}

static uint64_t fake_next_tick(void *state)
{
	return ((struct fake *)state)->next_tick;
}

static bool fake_flush(void *state, uint64_t now_ns)
{
	(void)now_ns;
	return ((struct fake *)state)->flushes_left-- <= 0;
}

static void fake_close(void *state)
{
	((struct fake *)state)->closed++;
}

static size_t fake_left = SIZE_MAX;

static size_t fake_room(void *state)
{
	(void)state;
	return fake_left;
}

static const struct exporter fake_exporter = {
	.name = "fake",
	.open = fake_open,
	.export = fake_export,
	.room = fake_room,
	.ready = fake_ready,
	.tick = fake_tick,
	.next_tick = fake_next_tick,
	.flush = fake_flush,
	.close = fake_close,
};

static int watch(void *ctx, int fd, uint32_t events)
{
	(void)ctx;
	watched_fd = fd;
	watched_events = events;
	return 0;
}

static struct stats stats;

static struct export_queue *make(uint32_t batch, uint64_t delay_ms, int exporters)
{
	struct options options = { .max_queue_size = 100,
				   .max_export_batch_size = batch,
				   .batch_delay_ms = delay_ms };
	struct exporter_loop loop = { watch, NULL };
	struct export_queue *q = export_queue_new(&options, &loop, &stats);
	char *error = NULL;

	CHECK(q);
	opened = 0;
	while (exporters--)
		CHECK(export_queue_add(q, &fake_exporter, &options, &error) == 0);
	return q;
}

static void push(struct export_queue *q, size_t count, uint64_t now_ns)
{
	while (count--) {
		struct span *s = span_new(SPAN_SERVER);

		CHECK(s);
		export_queue_push(q, s, now_ns);
	}
}

static void test_batches(void)
{
	struct export_queue *q = make(10, 200, 2);
	struct timespec real, mono;

	CHECK(export_queue_next_tick(q) == UINT64_MAX);
	push(q, 25, 1000 * MS);
	CHECK(fakes[0].batches == 2 && fakes[0].spans == 20 && fakes[0].largest == 10 &&
	      fakes[1].spans == 20);
	push(q, 1, 1100 * MS);
	CHECK(export_queue_next_tick(q) == 1200 * MS);
	export_queue_tick(q, 1199 * MS);
	CHECK(fakes[0].batches == 2);
	export_queue_tick(q, 1200 * MS);
	CHECK(fakes[0].batches == 3 && fakes[0].spans == 26 && fakes[1].spans == 26);
	CHECK(export_queue_next_tick(q) == UINT64_MAX);
	clock_gettime(CLOCK_REALTIME, &real);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	CHECK(llabs((real.tv_sec - mono.tv_sec) * 1000000000LL + real.tv_nsec - mono.tv_nsec -
		    fakes[0].offset) < 2000000000LL);
	push(q, 3, 1300 * MS);
	fakes[0].flushes_left = 1;
	CHECK(!export_queue_flush(q, 1300 * MS) && fakes[0].spans == 29);
	CHECK(export_queue_flush(q, 1300 * MS));
	push(q, 4, 1400 * MS);
	export_queue_free(q);
	CHECK(stats.drops[DROP_EXPORT_FAILED] == 4 && fakes[0].closed == 1 && fakes[1].closed == 1);
}

static void test_events(void)
{
	struct export_queue *q = make(10, 200, 2);

	CHECK(fakes[0].loop->watch(fakes[0].loop->ctx, 7, 1) == 0 && watched_fd == 7 &&
	      watched_events == 1);
	CHECK(fakes[1].loop->watch(fakes[1].loop->ctx, 8, 4) == 0);
	CHECK(export_queue_ready(q, 8, 4, 0) && fakes[1].ready_fd == 8 && fakes[0].ready_fd == -1);
	CHECK(export_queue_ready(q, 7, 1, 0) && fakes[0].ready_fd == 7);
	CHECK(fakes[0].loop->watch(fakes[0].loop->ctx, 7, 0) == 0 && watched_events == 0);
	CHECK(!export_queue_ready(q, 7, 1, 0));
	fakes[1].next_tick = 50;
	CHECK(export_queue_next_tick(q) == 50);
	export_queue_tick(q, 49);
	CHECK(fakes[1].ticks == 0);
	export_queue_tick(q, 50);
	CHECK(fakes[1].ticks == 1 && fakes[0].ticks == 0);
	export_queue_free(q);
}

static void test_room(void)
{
	struct export_queue *q = make(10, 200, 1);

	fake_left = SIZE_MAX;
	CHECK(export_queue_room(q) == SIZE_MAX);
	fake_left = 12;
	push(q, 5, 0); /* they will be the exporter's too */
	CHECK(export_queue_room(q) == 7);
	fake_left = 3;
	CHECK(export_queue_room(q) == 0);
	fake_left = SIZE_MAX;
	export_queue_free(q);
}

static void test_refused(void)
{
	struct options options = { .file = (char[]){ "x" } };
	struct export_queue *q = make(10, 0, 0);
	char *error = NULL;

	CHECK(export_queue_add(q, &fake_exporter, &options, &error) == -EINVAL && error);
	push(q, 30, 0); /* nobody wants them: freed, not counted */
	CHECK(export_queue_flush(q, 0));
	export_queue_free(q);
	free(error);
}

int main(void)
{
	test_batches();
	test_events();
	test_room();
	test_refused();
	return 0;
}
