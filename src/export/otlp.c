/*
 * The exporter "otlp": batches are encoded when they come and wait, as bytes, for their turn to be
 * sent. It decides what is tried again, when, and what is given up, and keeps within its bound
 * whatever the collector does. Invariant: waiting_spans is what the waiting batches and those in
 * flight hold, and every span that came in ends in exactly one of exported, queue_full,
 * export_failed, export_rejected, no_memory.
 */
#include "export/exporters.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "config/options.h"
#include "export/gzip.h"
#include "export/otlp_encode.h"
#include "export/otlp_health.h"
#include "export/otlp_transport.h"

static const uint64_t MS = 1000000;

enum {
	RETRY_FIRST_MS = 500,
	RETRY_MAX_MS = 5000,
	RETRY_FLUSH_MS = 100, /* at shutdown there is no time to be patient */
	RETRY_FLUSH_TRIES = 3
};

struct otlp_batch {
	struct list node;
	struct buf body;
	size_t spans;
	uint64_t deadline_ns; /* when it is given up; 0 until it was first sent */
};

struct otlp {
	const struct otlp_variant *variant;
	struct stats *stats;
	struct otlp_transport *transport;
	struct otlp_encoder *encoder;
	struct gzip *gzip;          /* NULL: not compressed */
	struct buf message, packed; /* scratch */
	struct list waiting, in_flight;
	size_t waiting_spans, max_spans;
	uint64_t give_up_ns;    /* how long a batch is tried */
	uint64_t not_before_ns; /* back-off */
	unsigned int failures;  /* in a row */
	bool flushing;
	struct otlp_health health;
};

static void batch_free(struct otlp *o, struct otlp_batch *b)
{
	o->waiting_spans -= b->spans;
	list_remove(&b->node);
	buf_free(&b->body);
	free(b);
}

static struct otlp_batch *first(struct list *head)
{
	return list_empty(head) ? NULL : list_entry(head->next, struct otlp_batch, node);
}

static void drop(struct otlp *o, struct otlp_batch *b, enum drop_reason reason)
{
	stats_drop(o->stats, reason, b->spans);
	batch_free(o, b);
}

/* Drops the batches that are to be given up by `now_ns`; UINT64_MAX: all of them. */
static void drop_expired(struct otlp *o, struct list *head, uint64_t now_ns)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, head) {
		struct otlp_batch *b = list_entry(it, struct otlp_batch, node);

		if (now_ns == UINT64_MAX || (b->deadline_ns && now_ns >= b->deadline_ns))
			drop(o, b, DROP_EXPORT_FAILED);
	}
}

/* Between half of `ms` and all of it, so that many agents don't come back at once. */
static uint64_t jitter(uint64_t ms)
{
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = 0;
	return ms / 2 + random % (ms / 2 + 1);
}

static uint64_t back_off_ms(const struct otlp *o, const struct otlp_verdict *verdict)
{
	unsigned int doublings = o->failures > 8 ? 8 : o->failures - 1;
	uint64_t ms = (uint64_t)RETRY_FIRST_MS << doublings;

	if (o->flushing)
		return RETRY_FLUSH_MS;
	if (verdict->retry_after_ms)
		return verdict->retry_after_ms;
	return jitter(ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS);
}

static void retry(struct otlp *o, struct otlp_batch *b, const struct otlp_verdict *verdict,
		  uint64_t now_ns)
{
	o->failures++;
	o->not_before_ns = now_ns + back_off_ms(o, verdict) * MS;
	if (o->not_before_ns >= b->deadline_ns ||
	    (o->flushing && o->failures >= RETRY_FLUSH_TRIES)) {
		drop(o, b, DROP_EXPORT_FAILED);
		return;
	}
	/* Back to the front: it is the oldest. */
	list_remove(&b->node);
	list_push(o->waiting.next, &b->node);
}

static void on_done(void *ctx, void *tag, const struct otlp_answer *answer, uint64_t now_ns)
{
	struct otlp *o = ctx;
	struct otlp_batch *b = tag;
	struct otlp_verdict verdict;
	uint64_t rejected;

	o->variant->judge(answer, &verdict);
	otlp_health_note(&o->health, &verdict, now_ns);
	switch (verdict.outcome) {
	case OTLP_ACCEPTED:
		rejected = verdict.rejected_spans < b->spans ? verdict.rejected_spans : b->spans;
		stats_add(o->stats, STATS_EXPORTED, b->spans - rejected);
		stats_drop(o->stats, DROP_EXPORT_REJECTED, rejected);
		o->failures = 0;
		o->not_before_ns = 0;
		batch_free(o, b);
		break;
	case OTLP_UNREACHABLE:
	case OTLP_BUSY:
		retry(o, b, &verdict, now_ns);
		break;
	case OTLP_REFUSED:
		/* One batch may be bad; when the next fares no better, there is no hurry with the
		 * others. */
		if (++o->failures > 1)
			o->not_before_ns = now_ns + back_off_ms(o, &verdict) * MS;
		drop(o, b, DROP_EXPORT_REJECTED);
		break;
	}
}

static void pump(struct otlp *o, uint64_t now_ns)
{
	struct otlp_batch *b;

	/* While there is trouble one request at a time finds out whether it is over. */
	while ((b = first(&o->waiting)) && now_ns >= o->not_before_ns &&
	       !otlp_transport_full(o->transport) &&
	       !(o->failures && otlp_transport_in_flight(o->transport))) {
		if (!b->deadline_ns)
			b->deadline_ns = now_ns + o->give_up_ns;
		if (!otlp_transport_send(o->transport, slice_of(b->body.data, b->body.len), b,
					 now_ns)) {
			o->not_before_ns = now_ns + RETRY_FIRST_MS * MS;
			return;
		}
		list_remove(&b->node);
		list_push(&o->in_flight, &b->node);
	}
}

static bool build_body(struct otlp *o, const struct span_batch *batch, struct buf *body)
{
	struct slice message;

	buf_reset(&o->message);
	buf_reset(&o->packed);
	if (!otlp_encode(o->encoder, batch, &o->message))
		return false;
	message = slice_of(o->message.data, o->message.len);
	if (o->gzip) {
		if (!gzip_append(o->gzip, message, &o->packed))
			return false;
		message = slice_of(o->packed.data, o->packed.len);
	}
	o->variant->frame(message, o->gzip != NULL, body);
	return !body->failed;
}

static void otlp_export(void *state, const struct span_batch *batch, uint64_t now_ns)
{
	struct otlp *o = state;
	struct otlp_batch *b;

	if (!batch->count)
		return;
	if (o->waiting_spans && o->waiting_spans + batch->count > o->max_spans) {
		stats_drop(o->stats, DROP_QUEUE_FULL, batch->count);
		return;
	}
	b = calloc(1, sizeof(*b));
	if (!b || !build_body(o, batch, &b->body)) {
		stats_drop(o->stats, DROP_NO_MEMORY, batch->count);
		if (b)
			buf_free(&b->body);
		free(b);
		return;
	}
	b->spans = batch->count;
	o->waiting_spans += b->spans;
	list_init(&b->node);
	list_push(&o->waiting, &b->node);
	pump(o, now_ns);
	/* cppcheck-suppress memleak ; the list has it */
}

static size_t otlp_room(void *state)
{
	const struct otlp *o = state;

	/* While the collector is in trouble no patience of ours makes room. */
	if (o->failures)
		return SIZE_MAX;
	return o->waiting_spans < o->max_spans ? o->max_spans - o->waiting_spans : 0;
}

static void otlp_ready(void *state, int fd, uint32_t events, uint64_t now_ns)
{
	struct otlp *o = state;

	otlp_transport_ready(o->transport, fd, events, now_ns);
	pump(o, now_ns);
}

static void otlp_tick(void *state, uint64_t now_ns)
{
	struct otlp *o = state;

	otlp_transport_tick(o->transport, now_ns);
	drop_expired(o, &o->waiting, now_ns);
	pump(o, now_ns);
}

static uint64_t otlp_next_tick(void *state)
{
	struct otlp *o = state;
	uint64_t next = otlp_transport_next_tick(o->transport);
	const struct otlp_batch *b = first(&o->waiting);

	if (!b || otlp_transport_in_flight(o->transport))
		return next;
	if (o->not_before_ns < next)
		next = o->not_before_ns;
	return b->deadline_ns && b->deadline_ns < next ? b->deadline_ns : next;
}

static bool otlp_flush(void *state, uint64_t now_ns)
{
	struct otlp *o = state;

	if (!o->flushing) {
		o->flushing = true;
		o->failures = 0;
		o->not_before_ns = 0;
	}
	if (o->failures >= RETRY_FLUSH_TRIES)
		drop_expired(o, &o->waiting, UINT64_MAX);
	pump(o, now_ns);
	return list_empty(&o->waiting) && list_empty(&o->in_flight);
}

static void otlp_close(void *state)
{
	struct otlp *o = state;

	otlp_transport_free(
		o->transport); /* cuts off what is in flight, so that the bodies may go */
	if (o->waiting_spans)
		log_warning("%zu spans had not reached the collector at %s when time was up",
			    o->waiting_spans, o->health.url);
	drop_expired(o, &o->waiting, UINT64_MAX);
	drop_expired(o, &o->in_flight, UINT64_MAX);
	otlp_encoder_free(o->encoder);
	gzip_free(o->gzip);
	otlp_health_free(&o->health);
	buf_free(&o->message);
	buf_free(&o->packed);
	free(o);
}

static void *otlp_open(const struct options *options, const struct exporter_loop *loop,
		       struct stats *stats, char **ret_error)
{
	struct otlp *o = calloc(1, sizeof(*o));

	if (!o)
		goto no_memory;
	o->variant = options->otlp_protocol == OTLP_GRPC ? &otlp_grpc_variant : &otlp_http_variant;
	o->stats = stats;
	o->max_spans = options->max_queue_size;
	o->give_up_ns = options->export_timeout_ms * MS;
	list_init(&o->waiting);
	list_init(&o->in_flight);
	o->transport = otlp_transport_new(options, o->variant, loop, on_done, o, ret_error);
	if (!o->transport) {
		free(o);
		return NULL;
	}
	o->encoder = otlp_encoder_new();
	if (options->otlp_gzip)
		o->gzip = gzip_new();
	if (otlp_health_init(&o->health, stats, otlp_transport_url(o->transport), o->max_spans,
			     o->variant->speaks) &&
	    o->encoder && (o->gzip || !options->otlp_gzip))
		return o;
	otlp_close(o);
no_memory:
	*ret_error = strdup("otlp exporter: out of memory");
	return NULL;
}

const struct exporter otlp_exporter = {
	.name = "otlp",
	.open = otlp_open,
	.export = otlp_export,
	.room = otlp_room,
	.ready = otlp_ready,
	.tick = otlp_tick,
	.next_tick = otlp_next_tick,
	.flush = otlp_flush,
	.close = otlp_close,
};
