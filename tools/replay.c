/*
 * Runs the pure core on events written as text and prints the spans that come out, in a readable
 * and stable form: for golden tests (--golden: events, a line "---", the spans expected; --split:
 * again with every transfer cut in two at every byte, and byte by byte) and to look at a case by
 * hand. The format is described in tests/golden/README.md.
 */
#include <stdlib.h>

#include "protocols/protocols.h"
#include "replay_run.h"
#include "replay_script.h"
#include "trace/resource.h"
#include "trace/tracer.h"

enum { NO_SPLIT = -1, BYTEWISE = -2 };

/* --- running --- */

static void on_span(void *ctx, struct span *s)
{
	struct run *r = ctx;

	if (r->count < MAX_SPANS)
		r->spans[r->count++] = s;
	else
		span_free(s);
}

static struct resource *on_resource(void *ctx, uint32_t pid)
{
	(void)ctx;
	return resource_new(pid);
}

/* Ids that count: the order in which spans began. */
static void on_random(void *ctx, uint8_t *data, size_t len)
{
	struct run *r = ctx;
	uint64_t id = ++r->next_id;

	while (len) {
		data[--len] = (uint8_t)id;
		id >>= 8;
	}
}

static struct slice text(const char *s)
{
	return s ? slice_str(s) : slice_of(NULL, 0);
}

static struct code_info code_info(const struct script_code *c)
{
	return (struct code_info){ text(c->function), text(c->file), c->line };
}

static bool on_code(void *ctx, uint32_t pid, uint64_t code, struct code_info *ret)
{
	const struct run *r = ctx;
	const struct script_code *c = script_find(r->script->codes, r->script->code_count, code);

	(void)pid;
	if (c)
		*ret = code_info(c);
	return c;
}

static bool on_route(void *ctx, uint32_t pid, const struct runtime_route *route,
		     struct route_info *ret)
{
	const struct run *r = ctx;
	const struct script_code *c =
		script_find(r->script->routes, r->script->route_count, route->route);

	(void)pid;
	if (c)
		*ret = (struct route_info){ text(c->route), code_info(c) };
	return c;
}

static void on_trust(void *ctx, uint32_t pid, uint32_t trust)
{
	struct run *r = ctx;

	if (!r->script->tell_trust)
		return;
	buf_printf(&r->told, "trust pid %u%s%s%s\n", pid,
		   trust & TRACER_TRUST_CONTEXTS ? " contexts" : "",
		   trust & TRACER_TRUST_THREADS ? " threads" : "", trust ? "" : " none");
}

static void on_handlers(void *ctx, uint32_t pid, const uint64_t *contexts)
{
	struct run *r = ctx;
	size_t i;

	if (!r->script->tell_trust)
		return;
	buf_printf(&r->told, "handlers pid %u", pid);
	for (i = 0; i < TRACER_HANDLERS_MAX; i++) {
		if (contexts[i])
			buf_printf(&r->told, " %llu", (unsigned long long)contexts[i]);
	}
	buf_printf(&r->told, "\n");
}

static bool on_silent(void *ctx, uint32_t pid)
{
	return ((struct run *)ctx)->script->silent_pid == pid;
}

static void on_exports(void *ctx, uint32_t pid)
{
	buf_printf(&((struct run *)ctx)->told, "exports pid %u\n", pid);
}

/* Feeds a transfer in two parts, cut at `at`, or byte by byte. */
static void run_io(struct tracer *t, const struct io_event *io, const uint8_t *data, long at)
{
	struct io_event part = *io;
	uint32_t done = 0;

	while (done < io->captured || (io->captured == 0 && done == 0)) {
		uint32_t n = io->captured - done;

		if (at == BYTEWISE && n > 1)
			n = 1;
		else if (at >= 0 && done == 0 && (uint32_t)at < n)
			n = (uint32_t)at;
		part.data = data + done;
		part.captured = n;
		part.length = done + n == io->captured ? io->length - done : n;
		tracer_io(t, &part);
		if (!io->captured)
			break;
		part.flags |= IO_SAME_CALL;
		if (io->tcp_seq || io->tcp_peer_seq)
			part.tcp_seq += n;
		done += n;
	}
}

static void run_transfer(struct tracer *t, const struct script_event *e, long split)
{
	struct runtime_route route = { .route = e->route };
	struct io_event io = e->io;

	io.site = e->has_site ? &e->site : NULL;
	io.route = e->route ? &route : NULL;
	run_io(t, &io, e->data.data ? e->data.data : (const uint8_t *)"", split);
}

static void run_context(struct tracer *t, const struct script_event *e)
{
	struct context_event ev = e->context;

	ev.site = e->has_site ? &e->site : NULL;
	tracer_context(t, &ev);
}

static void run_event(struct tracer *t, const struct script_event *e, long split)
{
	switch (e->kind) {
	case EV_OPEN:
		tracer_conn_open(t, &e->conn);
		break;
	case EV_IO:
		run_transfer(t, e, split);
		break;
	case EV_CLOSE:
		tracer_conn_close(t, e->conn.conn_id, e->ts_ns);
		break;
	case EV_FAIL:
		tracer_connect_failed(t, &e->fail);
		break;
	case EV_THREAD:
		tracer_thread_start(t, e->conn.pid, e->conn.tid, e->parent_tid, e->ts_ns);
		break;
	case EV_THREAD_EXIT:
		tracer_thread_exit(t, e->conn.pid, e->conn.tid, e->ts_ns);
		break;
	case EV_EXIT:
		tracer_process_exit(t, e->conn.pid, e->ts_ns);
		break;
	case EV_LOST:
		tracer_lost(t);
		break;
	case EV_TICK:
		tracer_tick(t, e->ts_ns);
		break;
	case EV_RUNTIME:
		tracer_runtime(t, e->conn.pid);
		break;
	case EV_CHANGED:
		tracer_process_changed(t, e->conn.pid);
		break;
	case EV_CONTEXT:
		run_context(t, e);
		break;
	case EV_NATIVE:
		tracer_native_span(t, &e->native);
		break;
	case EV_REQUEST:
		tracer_request(t, &e->request);
		break;
	}
}

static int by_start(const void *a, const void *b)
{
	const struct span *x = *(struct span *const *)a, *y = *(struct span *const *)b;

	if (x->start_ns != y->start_ns)
		return x->start_ns < y->start_ns ? -1 : 1;
	return memcmp(x->span_id, y->span_id, SPAN_ID_BYTES);
}

/* Runs the script; event `which` (or all, if it is the count) is cut at `at`. */
static void run_script(const struct script *s, struct run *r, size_t which, long at)
{
	struct tracer_options options = { .protocols = protocols_all,
					  .sampler = { .root = s->has_ratio ? SAMPLER_TRACE_ID_RATIO
									    : SAMPLER_ALWAYS_ON,
						       .ratio = s->ratio,
						       .parent_based = true },
					  .span_rules = s->rules,
					  .span_rule_count = s->rule_count,
					  .keep_errors = s->keep_errors,
					  .keep_slow_ns = s->keep_slow_ns,
					  .no_code = s->no_code,
					  .no_route = s->no_route };
	struct tracer_ops ops = {
		.span = on_span,
		.resource = on_resource,
		.random = on_random,
		.code = on_code,
		.route = on_route,
		.trust = on_trust,
		.handlers = on_handlers,
		.silent = on_silent,
		.exports = on_exports,
		.ctx = r,
	};
	struct tracer *t;
	uint64_t last = 0;
	size_t i;

	*r = (struct run){ .script = s };
	t = tracer_new(&options, &ops, &r->stats);
	if (!t)
		exit(2);
	for (i = 0; i < s->count; i++) {
		run_event(t, &s->events[i], i == which || which == s->count ? at : NO_SPLIT);
		last = s->events[i].ts_ns > last ? s->events[i].ts_ns : last;
	}
	tracer_flush(t, last);
	tracer_free(t);
	qsort(r->spans, r->count, sizeof(r->spans[0]), by_start);
}

static void run_free(struct run *r)
{
	size_t i;

	for (i = 0; i < r->count; i++)
		span_free(r->spans[i]);
	r->count = 0;
	buf_free(&r->told);
}

/* --- golden --- */

static struct script script;
static struct run run;
static unsigned int passed, failed;

static void check(const struct buf *expected, size_t which, long at, bool drops, const char *what)
{
	struct buf got = { 0 };

	run_script(&script, &run, which, at);
	run_print(&got, &run, drops);
	run_free(&run);
	if (got.len == expected->len &&
	    (!got.len || memcmp(got.data, expected->data, got.len) == 0)) {
		passed++;
	} else {
		failed++;
		printf("%s: event %zu, byte %ld: other spans:\n%s", what, which + 1, at,
		       buf_cstr(&got));
	}
	buf_free(&got);
}

static void check_splits(const char *path)
{
	struct buf expected = { 0 };
	size_t i;
	long at;

	run_script(&script, &run, script.count, NO_SPLIT);
	run_print(&expected, &run, false);
	run_free(&run);
	for (i = 0; i < script.count && !failed; i++) {
		if (script.events[i].kind != EV_IO)
			continue;
		for (at = 1; (uint32_t)at < script.events[i].io.captured; at++)
			check(&expected, i, at, false, path);
	}
	check(&expected, script.count, BYTEWISE, false, path);
	buf_free(&expected);
}

static void read_rest(FILE *f, struct buf *out)
{
	char chunk[4096];
	size_t n;

	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_append(out, chunk, n);
}

/* One golden file. */
static void golden(const char *path, bool split)
{
	struct buf expected = { 0 };
	FILE *f = fopen(path, "r");

	if (!f || !script_read(f, &script)) {
		printf("%s: %s\n", path, f ? "no line \"---\"" : "cannot be opened");
		failed++;
	} else {
		read_rest(f, &expected);
		check(&expected, script.count, NO_SPLIT, true, path);
		if (split && !script.nosplit)
			check_splits(path);
	}
	if (f)
		fclose(f);
	buf_free(&expected);
	script_free(&script);
}

int main(int argc, char **argv)
{
	bool is_golden = false, split = false;
	struct buf out = { 0 };
	FILE *f = stdin;
	int i;

	for (i = 1; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
		if (strcmp(argv[i], "--golden") == 0) {
			is_golden = true;
		} else if (strcmp(argv[i], "--split") == 0) {
			split = true;
		} else {
			fprintf(stderr,
				"usage: replay [FILE] | replay --golden [--split] FILE...\n");
			return 2;
		}
	}
	if (is_golden) {
		for (; i < argc; i++)
			golden(argv[i], split);
		printf("%u passed, %u failed\n", passed, failed);
		return failed ? 1 : 0;
	}
	if (i < argc)
		f = fopen(argv[i], "r");
	if (!f) {
		fprintf(stderr, "replay: cannot open %s\n", argv[i]);
		return 2;
	}
	script_read(f, &script);
	run_script(&script, &run, script.count, NO_SPLIT);
	run_print(&out, &run, true);
	fputs(buf_cstr(&out), stdout);
	run_free(&run);
	buf_free(&out);
	script_free(&script);
	if (f != stdin)
		fclose(f);
	return 0;
}
