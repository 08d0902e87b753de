/*
 * The agent's end of the BPF tests: a probe whose events are kept in a list, children that are
 * traced from a known moment on, and the checks. It refuses to interpret: each test says what the
 * events must be. Invariant: a child runs nothing of its test before the probe traces it.
 */
#ifndef TESTS_BPF_WATCH_H
#define TESTS_BPF_WATCH_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "event.h"
#include "probe/probe.h"

/* The agent's own defaults, so that what is tested is what runs. */
enum {
	WATCH_RING_BYTES = 8 << 20,
	WATCH_CAPTURE_BYTES = 8192,
	WATCH_PROCESSES = 4096,
	WATCH_CONNECTIONS = 16384,
	WATCH_CHILD_MS = 20000, /* a child that takes longer is killed, and has failed */
};

enum seen_type {
	SEEN_IO,
	SEEN_OPEN,
	SEEN_CLOSE,
	SEEN_CONNECT_FAILED,
	SEEN_THREAD_START,
	SEEN_THREAD_EXIT,
	SEEN_FORK,
	SEEN_EXEC,
	SEEN_EXIT,
	SEEN_CGROUP,
	SEEN_LISTEN,
	SEEN_LOST,
	SEEN_CONTEXT,
	SEEN_NATIVE,
	SEEN_UNKNOWN, /* code that nobody has classified */
};

struct seen {
	enum seen_type type;
	uint32_t pid, tid;
	uint32_t other; /* parent thread, parent process, port */
	int32_t error;  /* of a failed connect */
	uint64_t ts_ns, end_ns;
	uint64_t conn_id;
	struct io_event io; /* its data is our copy */
	struct conn_info conn;
	struct context_event context;
	struct native_span_event native;
	uint64_t code;
	struct runtime_site site; /* of io and context: a copy, to which these point */
	struct runtime_route route;
	char root_path[128];
	bool has_site, has_route;
};

struct watch {
	struct probe *probe;
	struct stats stats;
	struct seen *seen;
	size_t count, room;
};

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void sleep_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* Zeroed, shared with the children made afterwards. Ends the program when there is none. */
static inline void *shared_memory(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

/* --- the sink --------------------------------------------------------------------------------- */

static inline struct seen *watch_add(struct watch *w, enum seen_type type)
{
	if (w->count == w->room) {
		w->room = w->room ? 2 * w->room : 1024;
		w->seen = realloc(w->seen, w->room * sizeof(*w->seen));
		if (!w->seen)
			abort();
	}
	memset(&w->seen[w->count], 0, sizeof(*w->seen));
	w->seen[w->count].type = type;
	return &w->seen[w->count++];
}

/* What is borrowed for the call is kept in `s`, whose place in memory changes: the flags say
 * whether it was there. */
static inline void watch_site(struct seen *s, const struct runtime_site *site)
{
	s->has_site = site != NULL;
	if (site)
		s->site = *site;
}

static inline void watch_route(struct seen *s, const struct runtime_route *route)
{
	s->has_route = route != NULL;
	if (!route)
		return;
	s->route = *route;
	s->route.root_path = NULL;
	memcpy(s->root_path, route->root_path, route->root_path_len);
}

static inline void on_io(void *ctx, const struct io_event *ev)
{
	struct seen *s = watch_add(ctx, SEEN_IO);

	s->io = *ev;
	s->pid = ev->pid;
	s->tid = ev->tid;
	s->ts_ns = ev->ts_ns;
	s->conn_id = ev->conn_id;
	watch_site(s, ev->site);
	watch_route(s, ev->route);
	s->io.site = NULL;
	s->io.route = NULL;
	s->io.data = NULL;
	if (ev->captured) {
		uint8_t *copy = malloc(ev->captured);

		if (!copy)
			abort();
		s->io.data = memcpy(copy, ev->data, ev->captured);
	}
}

static inline void on_conn_open(void *ctx, const struct conn_info *info)
{
	struct seen *s = watch_add(ctx, SEEN_OPEN);

	s->conn = *info;
	s->pid = info->pid;
	s->tid = info->tid;
	s->ts_ns = info->ts_ns;
	s->conn_id = info->conn_id;
}

static inline void on_conn_close(void *ctx, uint64_t conn_id, uint64_t ts_ns)
{
	struct seen *s = watch_add(ctx, SEEN_CLOSE);

	s->conn_id = conn_id;
	s->ts_ns = ts_ns;
}

static inline void on_connect_failed(void *ctx, const struct connect_failure *f)
{
	struct seen *s = watch_add(ctx, SEEN_CONNECT_FAILED);

	s->conn = f->conn;
	s->pid = f->conn.pid;
	s->tid = f->conn.tid;
	s->error = f->error;
	s->ts_ns = f->conn.ts_ns;
	s->end_ns = f->end_ns;
}

static inline void watch_task(struct watch *w, enum seen_type type, uint32_t pid, uint32_t tid,
			      uint32_t other, uint64_t ts_ns)
{
	struct seen *s = watch_add(w, type);

	s->pid = pid;
	s->tid = tid;
	s->other = other;
	s->ts_ns = ts_ns;
}

static inline void on_thread_start(void *ctx, uint32_t pid, uint32_t tid, uint32_t parent_tid,
				   uint64_t ts_ns)
{
	watch_task(ctx, SEEN_THREAD_START, pid, tid, parent_tid, ts_ns);
}

static inline void on_thread_exit(void *ctx, uint32_t pid, uint32_t tid, uint64_t ts_ns)
{
	watch_task(ctx, SEEN_THREAD_EXIT, pid, tid, 0, ts_ns);
}

static inline void on_process_fork(void *ctx, uint32_t pid, uint32_t parent_pid)
{
	watch_task(ctx, SEEN_FORK, pid, pid, parent_pid, 0);
}

static inline void on_process_exec(void *ctx, uint32_t pid)
{
	watch_task(ctx, SEEN_EXEC, pid, pid, 0, 0);
}

static inline void on_process_exit(void *ctx, uint32_t pid, uint64_t ts_ns)
{
	watch_task(ctx, SEEN_EXIT, pid, pid, 0, ts_ns);
}

static inline void on_process_cgroup(void *ctx, uint32_t pid)
{
	watch_task(ctx, SEEN_CGROUP, pid, pid, 0, 0);
}

static inline void on_listen(void *ctx, uint32_t pid, uint16_t port)
{
	watch_task(ctx, SEEN_LISTEN, pid, pid, port, 0);
}

static inline void on_lost(void *ctx, uint64_t ts_ns)
{
	watch_task(ctx, SEEN_LOST, 0, 0, 0, ts_ns);
}

static inline void on_context(void *ctx, const struct context_event *ev)
{
	struct seen *s = watch_add(ctx, SEEN_CONTEXT);

	s->pid = ev->pid;
	s->tid = ev->tid;
	s->ts_ns = ev->ts_ns;
	s->context = *ev;
	s->context.site = NULL;
	watch_site(s, ev->site);
}

static inline void on_native_span(void *ctx, const struct native_span_event *ev)
{
	struct seen *s = watch_add(ctx, SEEN_NATIVE);

	s->pid = ev->pid;
	s->tid = ev->tid;
	s->ts_ns = ev->ts_ns;
	s->native = *ev;
}

static inline void on_code_unknown(void *ctx, uint32_t pid, uint64_t code)
{
	struct seen *s = watch_add(ctx, SEEN_UNKNOWN);

	s->pid = pid;
	s->code = code;
}

/* --- the probe -------------------------------------------------------------------------------- */

static inline struct probe_sink watch_sink(struct watch *w)
{
	return (struct probe_sink){
		.io = on_io,
		.conn_open = on_conn_open,
		.conn_close = on_conn_close,
		.connect_failed = on_connect_failed,
		.thread_start = on_thread_start,
		.thread_exit = on_thread_exit,
		.process_fork = on_process_fork,
		.process_exec = on_process_exec,
		.process_exit = on_process_exit,
		.process_cgroup = on_process_cgroup,
		.listen = on_listen,
		.lost = on_lost,
		.context = on_context,
		.native_span = on_native_span,
		.code_unknown = on_code_unknown,
		.ctx = w,
	};
}

static inline const char *collector_text(enum probe_collector c)
{
	return c == PROBE_COLLECTOR_SOCK ? "sock" : "syscall";
}

/* Opens a probe with the agent's defaults but for the ring. Ends the program when it can't. */
static inline void watch_open(struct watch *w, enum probe_collector collector, uint32_t ring_bytes)
{
	const struct probe_options options = { .collector = collector,
					       .ring_bytes = ring_bytes,
					       .capture_bytes = WATCH_CAPTURE_BYTES,
					       .max_processes = WATCH_PROCESSES,
					       .max_connections = WATCH_CONNECTIONS,
					       .agent_pid = (uint32_t)getpid() };
	struct probe_sink sink = watch_sink(w);
	char *error = NULL;
	int err;

	memset(w, 0, sizeof(*w));
	err = probe_open(&options, &sink, &w->stats, &w->probe, &error);
	if (err)
		check_skip(error ? error : strerror(-err));
}

/* Forgets what was seen. */
static inline void watch_reset(struct watch *w)
{
	size_t i;

	probe_consume(w->probe, now_ns());
	for (i = 0; i < w->count; i++)
		free((void *)(uintptr_t)w->seen[i].io.data);
	w->count = 0;
	probe_collect_drops(w->probe);
	memset(&w->stats, 0, sizeof(w->stats));
}

static inline void watch_close(struct watch *w)
{
	watch_reset(w);
	free(w->seen);
	probe_close(w->probe);
}

/* Takes what is in the ring, and the kernel's counters. */
static inline void watch_take(struct watch *w)
{
	CHECK(probe_consume(w->probe, now_ns()) >= 0);
	probe_collect_drops(w->probe);
}

/* The first of a kind by `pid` (0: anyone) at or behind *at, which moves behind it; or NULL. */
static inline const struct seen *watch_next(const struct watch *w, enum seen_type type,
					    uint32_t pid, size_t *at)
{
	while (*at < w->count) {
		const struct seen *s = &w->seen[(*at)++];

		if (s->type == type && (!pid || s->pid == pid))
			return s;
	}
	return NULL;
}

static inline const struct seen *watch_first(const struct watch *w, enum seen_type type,
					     uint32_t pid)
{
	size_t at = 0;

	return watch_next(w, type, pid, &at);
}

static inline size_t watch_count(const struct watch *w, enum seen_type type, uint32_t pid)
{
	size_t at = 0, n = 0;

	while (watch_next(w, type, pid, &at))
		n++;
	return n;
}

/* --- children --------------------------------------------------------------------------------- */

struct child {
	pid_t pid;
	int go; /* closed: run */
	int at; /* readable when the child says so, see child_says() */
};

static int child_told = -1, child_hears = -1; /* in the child: its ends of the two pipes */

/* A child that waits for child_go(). Its exit code is what `run` returns. */
static inline struct child child_make(int (*run)(void *arg), void *arg)
{
	struct child c = { -1, -1, -1 };
	int go[2], at[2];

	if (pipe(go) || pipe(at) || (c.pid = fork()) < 0) {
		perror("child");
		exit(1);
	}
	if (!c.pid) {
		char byte;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGPIPE, SIG_IGN);
		close(go[1]);
		close(at[0]);
		child_hears = go[0];
		child_told = at[1];
		if (read(go[0], &byte, 1) != 1)
			_exit(99);
		_exit(run(arg));
	}
	close(go[0]);
	close(at[1]);
	c.go = go[1];
	c.at = at[0];
	return c;
}

static inline void child_go(const struct child *c)
{
	if (write(c->go, "", 1) != 1)
		perror("child_go");
}

/* In the child: tells the parent that a point is reached, and waits for its child_go(). */
static inline void child_says(void)
{
	char byte;

	if (write(child_told, "", 1) != 1 || read(child_hears, &byte, 1) != 1)
		_exit(98);
}

/* In the parent: until child_says(). */
static inline bool child_wait(const struct child *c)
{
	struct pollfd p = { .fd = c->at, .events = POLLIN };
	char byte;

	return poll(&p, 1, WATCH_CHILD_MS) == 1 && read(c->at, &byte, 1) == 1;
}

/* Reads the ring until the child is gone. Its exit code, or -1. */
static inline int child_end(struct watch *w, struct child *c)
{
	uint64_t deadline = now_ns() + (uint64_t)WATCH_CHILD_MS * 1000000u;
	int status = 0;

	while (waitpid(c->pid, &status, WNOHANG) == 0) {
		if (now_ns() > deadline) {
			kill(c->pid, SIGKILL);
			waitpid(c->pid, &status, 0);
			break;
		}
		probe_consume(w->probe, now_ns());
		sleep_ms(2);
	}
	close(c->go);
	close(c->at);
	watch_take(w);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A child traced from the start, and its end. Returns its pid; its exit code must be 0. */
static inline uint32_t watch_run(struct watch *w, int (*run)(void *arg), void *arg)
{
	struct child c = child_make(run, arg);
	int code;

	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	code = child_end(w, &c);
	CHECK_SAY(code == 0, "the child ended with %d", code);
	return (uint32_t)c.pid;
}

#endif
