/*
 * The export queue and its exporters in a small epoll loop, as the agent drives them, with made-up
 * spans: what test_export.py runs against good and bad collectors. It reports, as JSON in --stats,
 * the counters and the longest time that any one call took, because none may block.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "config/options.h"
#include "export/exporters.h"
#include "trace/resource.h"

enum { MAX_HEADERS = 8, MAX_EVENTS = 16, SPANS_PER_TRACE = 3, MAX_SERVICES = 4 };

static const uint64_t MS = 1000000;

struct driver {
	struct options options;
	struct key_value headers[MAX_HEADERS];
	struct export_queue *queue;
	struct stats stats;
	struct hash watched; /* fd → non-NULL */
	int epoll;
	uint64_t spans, rounds, every_ms, run_ms, flush_ms, max_call_ns;
	bool odd;
	const char *stats_path;
	struct resource *services[MAX_SERVICES];
	uint64_t service_count, made;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void took(struct driver *d, uint64_t since_ns)
{
	uint64_t took_ns = now_ns() - since_ns;

	if (took_ns > d->max_call_ns)
		d->max_call_ns = took_ns;
}

static int watch(void *ctx, int fd, uint32_t events)
{
	struct driver *d = ctx;
	struct epoll_event ev = { .events = events, .data.fd = fd };
	bool known = hash_get(&d->watched, (uint64_t)fd);

	if (!events) {
		hash_remove(&d->watched, (uint64_t)fd);
		epoll_ctl(d->epoll, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if (!hash_put(&d->watched, (uint64_t)fd, d))
		return -ENOMEM;
	return epoll_ctl(d->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

static void fill_span(struct driver *d, struct span *s, uint64_t i)
{
	span_add_str(s, "http.request.method", slice_str("GET"));
	span_add_str(s, "url.path", slice_str("/items/7"));
	span_add_str(s, "server.address", slice_str("127.0.0.1"));
	span_add_int(s, "server.port", 8000);
	span_add_int(s, "sequence", (int64_t)i);
	if (d->odd) {
		span_add_str(s, "odd.utf8", slice_of("\xff\xfe ok \xc3", 7));
		span_add_str(s, "odd.control", slice_of("\033[31mred\a\0\n", 11));
		span_add_str(s, "odd.wide", slice_str("日本 é \xe2\x80\xae turned"));
		span_add_bool(s, "odd.flag", true);
		span_set_trace_state(s, slice_str("a=1"));
		s->dropped_attr_count = 2;
	}
}

/* One trace: a server span, below it a call that failed and one that did not. */
static void push_trace(struct driver *d, uint64_t count)
{
	static const char *const names[SPANS_PER_TRACE] = { "GET", "PIPELINE", "GET /items/{id}" };
	uint64_t now = now_ns(), i;
	uint8_t ids[TRACE_ID_BYTES + SPAN_ID_BYTES];

	if (getrandom(ids, sizeof(ids), 0) != (ssize_t)sizeof(ids))
		exit(1);
	for (i = 0; i < count; i++) {
		bool root = i == count - 1;
		struct span *s = span_new(root ? SPAN_SERVER : SPAN_CLIENT);
		uint64_t start;

		if (!s)
			exit(1);
		memcpy(s->trace_id, ids, TRACE_ID_BYTES);
		memcpy(s->span_id, ids + TRACE_ID_BYTES, SPAN_ID_BYTES);
		memcpy(s->parent_span_id, s->span_id, SPAN_ID_BYTES);
		s->span_id[0] ^= (uint8_t)(root ? 0 : i + 1);
		s->has_parent = !root;
		s->trace_flags = 1;
		s->start_ns = now - 20 * MS + (root ? 0 : (i + 1) * 3 * MS);
		s->end_ns = root ? now : s->start_ns + 4 * MS;
		s->resource = resource_get(d->services[d->made % d->service_count]);
		span_set_name(s, slice_str(d->odd && root ? "GET /\033]0;title\a\xff"
							  : names[root ? 2 : i]));
		fill_span(d, s, d->made++);
		if (i == 1)
			span_set_error(s, slice_str("connection_reset"));
		else
			span_add_int(s, "http.response.status_code", 200);
		start = now_ns();
		export_queue_push(d->queue, s, start);
		took(d, start);
	}
}

static void push_round(struct driver *d)
{
	uint64_t left = d->spans;

	while (left) {
		uint64_t count = left < SPANS_PER_TRACE ? left : SPANS_PER_TRACE;

		push_trace(d, count);
		left -= count;
	}
}

/* One turn of the loop, until `until_ns` at the latest. */
static void turn(struct driver *d, uint64_t until_ns)
{
	uint64_t next = export_queue_next_tick(d->queue), now = now_ns();
	struct epoll_event events[MAX_EVENTS];
	int i, n;

	next = next < until_ns ? next : until_ns;
	n = epoll_wait(d->epoll, events, MAX_EVENTS, next > now ? (int)((next - now) / MS) + 1 : 0);
	for (i = 0; i < n; i++) {
		now = now_ns();
		export_queue_ready(d->queue, events[i].data.fd, events[i].events, now);
		took(d, now);
	}
	now = now_ns();
	export_queue_tick(d->queue, now);
	took(d, now);
}

static void run(struct driver *d)
{
	uint64_t start = now_ns(), due = start, end;

	while (d->rounds || now_ns() < start + d->run_ms * MS) {
		uint64_t until = start + d->run_ms * MS;

		if (d->rounds && now_ns() >= due) {
			push_round(d);
			d->rounds--;
			due += d->every_ms * MS;
		}
		if (d->rounds && due < until)
			until = due;
		turn(d, d->rounds ? due : until);
	}
	end = now_ns() + d->flush_ms * MS;
	while (!export_queue_flush(d->queue, now_ns()) && now_ns() < end)
		turn(d, now_ns() + 20 * MS < end ? now_ns() + 20 * MS : end);
}

static void write_stats(const struct driver *d, uint64_t flush_took_ms)
{
	FILE *f = fopen(d->stats_path, "w");
	int i;

	if (!f)
		exit(1);
	fprintf(f, "{\"made\": %" PRIu64 ", \"max_call_us\": %" PRIu64 ", \"took_ms\": %" PRIu64,
		d->made, d->max_call_ns / 1000, flush_took_ms);
	for (i = 0; i < STATS_FIGURE_COUNT; i++)
		fprintf(f, ", \"%s\": %" PRIu64, stats_figure_name((enum stats_figure)i),
			d->stats.figures[i]);
	for (i = 0; i < DROP_REASON_COUNT; i++)
		fprintf(f, ", \"%s\": %" PRIu64, drop_reason_name((enum drop_reason)i),
			d->stats.drops[i]);
	fprintf(f, "}\n");
	fclose(f);
}

static void add_header(struct driver *d, char *text)
{
	char *value = strchr(text, '=');

	if (!value || d->options.otlp_header_count == MAX_HEADERS)
		exit(2);
	*value = '\0';
	d->headers[d->options.otlp_header_count++] = (struct key_value){ text, value + 1 };
}

static void parse(struct driver *d, int argc, char **argv)
{
	static const struct option names[] = {
		{ "protocol", 1, NULL, 'p' }, { "endpoint", 1, NULL, 'e' },
		{ "gzip", 0, NULL, 'g' },     { "timeout", 1, NULL, 't' },
		{ "batch", 1, NULL, 'b' },    { "queue", 1, NULL, 'q' },
		{ "delay", 1, NULL, 'd' },    { "export-timeout", 1, NULL, 'x' },
		{ "ca", 1, NULL, 'A' },       { "key", 1, NULL, 'K' },
		{ "cert", 1, NULL, 'C' },     { "header", 1, NULL, 'H' },
		{ "file", 1, NULL, 'f' },     { "console", 1, NULL, 'c' },
		{ "spans", 1, NULL, 'n' },    { "rounds", 1, NULL, 'r' },
		{ "every", 1, NULL, 'v' },    { "run", 1, NULL, 'R' },
		{ "flush", 1, NULL, 'F' },    { "stats", 1, NULL, 's' },
		{ "odd", 0, NULL, 'o' },      { "services", 1, NULL, 'S' },
		{ NULL, 0, NULL, 0 },
	};
	struct options *o = &d->options;
	int opt;

	while ((opt = getopt_long(argc, argv, "", names, NULL)) != -1) {
		uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (opt) {
		case 'p':
			o->otlp_protocol =
				strcmp(optarg, "grpc") == 0 ? OTLP_GRPC : OTLP_HTTP_PROTOBUF;
			break;
		case 'e':
			o->otlp_endpoint = optarg;
			o->export_otlp = true;
			break;
		case 'g':
			o->otlp_gzip = true;
			break;
		case 't':
			o->otlp_timeout_ms = number;
			break;
		case 'b':
			o->max_export_batch_size = (uint32_t)number;
			break;
		case 'q':
			o->max_queue_size = (uint32_t)number;
			break;
		case 'd':
			o->batch_delay_ms = number;
			break;
		case 'x':
			o->export_timeout_ms = number;
			break;
		case 'A':
			o->otlp_certificate = optarg;
			break;
		case 'K':
			o->otlp_client_key = optarg;
			break;
		case 'C':
			o->otlp_client_certificate = optarg;
			break;
		case 'H':
			add_header(d, optarg);
			break;
		case 'f':
			o->file = optarg;
			break;
		case 'c':
			o->console = strcmp(optarg, "json") == 0 ? CONSOLE_JSON : CONSOLE_TREE;
			break;
		case 'n':
			d->spans = number;
			break;
		case 'r':
			d->rounds = number;
			break;
		case 'v':
			d->every_ms = number;
			break;
		case 'R':
			d->run_ms = number;
			break;
		case 'F':
			d->flush_ms = number;
			break;
		case 's':
			d->stats_path = optarg;
			break;
		case 'o':
			d->odd = true;
			break;
		case 'S':
			d->service_count = number < MAX_SERVICES ? number : MAX_SERVICES;
			break;
		default:
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	static struct driver d = {
		.options = { .console = CONSOLE_OFF,
			     .otlp_timeout_ms = 10000,
			     .export_timeout_ms = 30000,
			     .batch_delay_ms = 100,
			     .max_queue_size = 2048,
			     .max_export_batch_size = 512 },
		.spans = 3,
		.rounds = 1,
		.flush_ms = 2000,
		.service_count = 1,
		.stats_path = "/dev/null",
	};
	struct exporter_loop loop = { watch, &d };
	char *error = NULL, name[32];
	uint64_t start, i;

	signal(SIGPIPE, SIG_IGN);
	d.options.otlp_headers = d.headers;
	parse(&d, argc, argv);
	d.epoll = epoll_create1(EPOLL_CLOEXEC);
	d.queue = export_queue_new(&d.options, &loop, &d.stats);
	if (d.epoll < 0 || !d.queue)
		return 1;
	for (i = 0; i < d.service_count; i++) {
		snprintf(name, sizeof(name), "service-%" PRIu64, i);
		d.services[i] = resource_new((uint32_t)i + 1);
		resource_set(d.services[i], "service.name", name);
		resource_set_int(d.services[i], "process.pid", (int64_t)i + 1);
	}
	if (exporters_open(&d.options, d.queue, &error)) {
		log_error("%s", error);
		free(error);
		export_queue_free(d.queue);
		return 1;
	}
	start = now_ns();
	run(&d);
	export_queue_free(d.queue);
	write_stats(&d, (now_ns() - start) / MS);
	for (i = 0; i < d.service_count; i++)
		resource_put(d.services[i]);
	hash_free(&d.watched);
	close(d.epoll);
	return 0;
}
