/*
 * The pure core: events in, finished spans out. It owns connections, exchanges, threads and what
 * links them; it reads no clock, does no I/O and needs no kernel, so tools/replay, the golden tests
 * and the fuzzers run the very code the agent runs.
 */
#ifndef TRACE_TRACER_H
#define TRACE_TRACER_H

#include "base/io.h"
#include "base/stats.h"
#include "trace/protocol.h"
#include "trace/sample.h"
#include "trace/span.h"

struct tracer;

/* A custom span of the configuration; everything borrowed from it. */
struct span_attribute {
	const char *key, *value;
};
struct span_rule {
	const char *name;
	const struct span_attribute *attributes;
	size_t attribute_count;
};

/* Where code is. Borrowed until the next call into the one who gave it; empty: not known. */
struct code_info {
	struct slice function; /* code.function.name, with its module: app.main.read_item */
	struct slice file;     /* code.file.path */
	uint32_t line;         /* code.line.number; 0: not known */
};

struct route_info {
	struct slice route; /* http.route; empty: none matched */
	struct code_info endpoint;
};

enum { TRACER_HANDLERS_MAX = 4 };

struct tracer_ops {
	/* A finished, linked and sampled span; the receiver owns it. */
	void (*span)(void *ctx, struct span *s);
	/* The resource of a process, a reference for the tracer (NULL: none). Asked once per
	 * process. */
	struct resource *(*resource)(void *ctx, uint32_t pid);
	/* Nothing of this connection is of interest: the kernel need not send more. May be NULL. */
	void (*ignore)(void *ctx, uint64_t conn_id);
	/* `len` random bytes for trace and span ids. */
	void (*random)(void *ctx, uint8_t *data, size_t len);
	/* What the address of a runtime's code object stands for. False: not known. May be NULL. */
	bool (*code)(void *ctx, uint32_t pid, uint64_t code, struct code_info *ret);
	bool (*route)(void *ctx, uint32_t pid, const struct runtime_route *route,
		      struct route_info *ret);
	/* How far what the kernel side binds calls to may be relied upon in this process: a set of
	 * enum tracer_trust. Told whenever it changes. May be NULL. */
	void (*trust)(void *ctx, uint32_t pid, uint32_t trust);
	/* The contexts out of which the roots of its requests come where they are read in none (0:
	 * none): instead of what was told before. May be NULL. */
	void (*handlers)(void *ctx, uint32_t pid, const uint64_t contexts[TRACER_HANDLERS_MAX]);
	/* Whether the process reports its own spans: ours are left out then. May be NULL. */
	bool (*silent)(void *ctx, uint32_t pid);
	/* The process sends spans of its own to a collector (OTLP). May be NULL. */
	void (*exports)(void *ctx, uint32_t pid);
	void *ctx;
};

enum tracer_trust {
	TRACER_TRUST_CONTEXTS =
		1, /* its contexts: the roots that the kernel side found were right */
	TRACER_TRUST_THREADS = 2, /* threads that read a request from a blocking socket answer it */
};

struct tracer_options {
	struct sampler sampler;
	const struct protocol *const *protocols; /* NULL-terminated, borrowed */
	uint32_t max_connections;                /* 0: the default */
	const struct span_rule *span_rules;      /* borrowed */
	size_t span_rule_count;
	bool no_code;          /* code.* is left out of client and server spans */
	bool no_route;         /* http.route is */
	bool keep_errors;      /* server spans that failed are kept although not sampled */
	uint64_t keep_slow_ns; /* and those that took at least this long; 0: not so */
};

/* `stats` is borrowed. NULL when out of memory. */
struct tracer *tracer_new(const struct tracer_options *options, const struct tracer_ops *ops,
			  struct stats *stats);
/* Ends nothing: spans in flight are dropped. Takes NULL. */
void tracer_free(struct tracer *t);

void tracer_conn_open(struct tracer *t, const struct conn_info *info);
/* Ids for the request that begins next on its connection. */
void tracer_request(struct tracer *t, const struct request_event *ev);
void tracer_io(struct tracer *t, const struct io_event *ev);
void tracer_conn_close(struct tracer *t, uint64_t conn_id, uint64_t ts_ns);
void tracer_connect_failed(struct tracer *t, const struct connect_failure *f);
/* `parent_tid` of the same process made the thread `tid`. */
void tracer_thread_start(struct tracer *t, uint32_t pid, uint32_t tid, uint32_t parent_tid,
			 uint64_t ts_ns);
void tracer_thread_exit(struct tracer *t, uint32_t pid, uint32_t tid, uint64_t ts_ns);
/* The runtime of the process is watched from now on, whole: its contexts tell which request work
 * belongs to. */
void tracer_runtime(struct tracer *t, uint32_t pid);
void tracer_context(struct tracer *t, const struct context_event *ev);
void tracer_native_span(struct tracer *t, const struct native_span_event *ev);
/* Its connections are closed, its spans in flight ended as cut off. */
void tracer_process_exit(struct tracer *t, uint32_t pid, uint64_t ts_ns);
/* It runs another program now: what its spans say of it is asked anew. */
void tracer_process_changed(struct tracer *t, uint32_t pid);
/* Events are missing from here on back: nothing that is open now can be trusted to be seen whole.
 */
void tracer_lost(struct tracer *t);
/* Lets time pass: decides what was waiting. Call a few times a second. */
void tracer_tick(struct tracer *t, uint64_t now_ns);
/* At shutdown: everything that waits for a decision is decided now; exchanges in flight are
 * dropped, counted. */
void tracer_flush(struct tracer *t, uint64_t now_ns);

#endif
