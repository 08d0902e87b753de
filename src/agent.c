/*
 * The composition root: it alone knows every layer. One epoll loop takes records from the ring,
 * lets the tracer make spans of them, and drives the exporters; nothing in it blocks. It polls the
 * ring and is woken only when much has gathered, since waking costs the application more than
 * anything else we do.
 */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"
#include "base/log.h"
#include "base/stats.h"
#include "base/version.h"
#include "discover/resource_detect.h"
#include "discover/select.h"
#include "export/exporters.h"
#include "export/queue.h"
#include "probe/mounts.h"
#include "probe/probe.h"
#include "protocols/protocols.h"
#include "report.h"
#include "trace/tracer.h"

#define POLL_BUSY_NS 5000000ull  /* between two looks at the ring while there is traffic */
#define POLL_IDLE_NS 50000000ull /* and when there was none for a while */
#define FULL_NS 100000000ull     /* how long records wait in the ring for room in the queue */
#define HOUSEKEEPING_NS 1000000000ull

enum { RANDOM_POOL_BYTES = 4096, EPOLL_EVENTS = 16, PID_NS_INIT_INODE = 0xEFFFFFFCu };

struct agent {
	const struct options *options;
	struct stats stats;
	struct selector selector;
	struct resource_context resources;
	struct probe *probe;
	struct tracer *tracer;
	struct export_queue *queue;
	struct attach attach;
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

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* --- what the tracer asks for --- */

static void on_span(void *ctx, struct span *s)
{
	struct agent *a = ctx;

	export_queue_push(a->queue, s, a->now_ns);
	if (a->room && a->room != SIZE_MAX)
		a->room--;
}

static struct resource *on_resource(void *ctx, uint32_t pid)
{
	struct agent *a = ctx;

	return resource_detect(&a->resources, pid, NULL);
}

static void on_ignore(void *ctx, uint64_t conn_id)
{
	struct agent *a = ctx;

	probe_ignore(a->probe, conn_id);
}

static void on_random(void *ctx, uint8_t *data, size_t len)
{
	struct agent *a = ctx;

	if (a->random_used + len > sizeof(a->random)) {
		size_t have = 0;

		while (have < sizeof(a->random)) {
			ssize_t n = getrandom(a->random + have, sizeof(a->random) - have, 0);

			if (n > 0)
				have += (size_t)n;
		}
		a->random_used = 0;
	}
	memcpy(data, a->random + a->random_used, len);
	a->random_used += len;
}

/* --- what comes off the ring --- */

static void on_io(void *ctx, const struct io_event *ev)
{
	tracer_io(((struct agent *)ctx)->tracer, ev);
}

static void on_conn_open(void *ctx, const struct conn_info *info)
{
	tracer_conn_open(((struct agent *)ctx)->tracer, info);
}

static void on_conn_close(void *ctx, uint64_t conn_id, uint64_t ts_ns)
{
	tracer_conn_close(((struct agent *)ctx)->tracer, conn_id, ts_ns);
}

static void on_connect_failed(void *ctx, const struct connect_failure *f)
{
	tracer_connect_failed(((struct agent *)ctx)->tracer, f);
}

static void on_thread_start(void *ctx, uint32_t pid, uint32_t tid, uint32_t parent_tid,
			    uint64_t ts_ns)
{
	tracer_thread_start(((struct agent *)ctx)->tracer, pid, tid, parent_tid, ts_ns);
}

static void on_thread_exit(void *ctx, uint32_t pid, uint32_t tid, uint64_t ts_ns)
{
	tracer_thread_exit(((struct agent *)ctx)->tracer, pid, tid, ts_ns);
}

static void on_process_fork(void *ctx, uint32_t pid, uint32_t parent_pid)
{
	(void)parent_pid;
	attach_on_fork(&((struct agent *)ctx)->attach, pid);
}

static void on_process_exec(void *ctx, uint32_t pid)
{
	struct agent *a = ctx;

	tracer_process_changed(a->tracer, pid);
	attach_on_change(&a->attach, pid);
}

static void on_process_exit(void *ctx, uint32_t pid, uint64_t ts_ns)
{
	struct agent *a = ctx;

	tracer_process_exit(a->tracer, pid, ts_ns);
	attach_on_exit(&a->attach, pid);
}

static void on_process_cgroup(void *ctx, uint32_t pid)
{
	attach_on_change(&((struct agent *)ctx)->attach, pid);
}

static void on_listen(void *ctx, uint32_t pid, uint16_t port)
{
	attach_on_listen(&((struct agent *)ctx)->attach, pid, port);
}

static void on_lost(void *ctx, uint64_t ts_ns)
{
	(void)ts_ns;
	((struct agent *)ctx)->lost = true;
	tracer_lost(((struct agent *)ctx)->tracer);
}

static bool on_full(void *ctx)
{
	return ((struct agent *)ctx)->room == 0;
}

/* --- the loop --- */

static int watch(void *ctx, int fd, uint32_t events)
{
	struct agent *a = ctx;
	struct epoll_event ev = { .events = events, .data.fd = fd };
	uint64_t key = (uint64_t)(uint32_t)fd;

	if (!events) {
		hash_remove(&a->watched, key);
		return epoll_ctl(a->epoll_fd, EPOLL_CTL_DEL, fd, NULL) && errno != EBADF &&
				       errno != ENOENT
			       ? -errno
			       : 0;
	}
	/* A descriptor that was closed has left the set without a word: try the other way round
	 * then. */
	if (hash_get(&a->watched, key) && epoll_ctl(a->epoll_fd, EPOLL_CTL_MOD, fd, &ev) == 0)
		return 0;
	if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &ev) &&
	    (errno != EEXIST || epoll_ctl(a->epoll_fd, EPOLL_CTL_MOD, fd, &ev)))
		return -errno;
	return hash_put(&a->watched, key, a) ? 0 : -ENOMEM;
}

/*
 * Takes what is in the ring, as much as the exporters can take: a burst waits there a moment rather
 * than being dropped behind it. Not for long, since a full ring loses more than spans.
 */
static void consume(struct agent *a)
{
	int n;

	a->room = export_queue_room(a->queue);
	if (a->room)
		a->full_ns = 0;
	else if (!a->full_ns)
		a->full_ns = a->now_ns;
	else if (a->now_ns - a->full_ns >= FULL_NS)
		a->room = SIZE_MAX;
	n = a->room ? probe_consume(a->probe, a->now_ns) : 0;
	if (n || a->full_ns)
		a->poll_ns = POLL_BUSY_NS;
	else if (a->poll_ns < POLL_IDLE_NS)
		a->poll_ns = a->poll_ns * 2 < POLL_IDLE_NS ? a->poll_ns * 2 : POLL_IDLE_NS;
}

static void on_signals(struct agent *a)
{
	struct signalfd_siginfo info;

	while (read(a->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGUSR1) {
			probe_collect_drops(a->probe);
			report_summary(&a->stats, "so far");
		} else if (a->stopping) {
			log_warning("stopped a second time: what is not exported yet is dropped");
			_exit(1);
		} else {
			a->stopping = true;
		}
	}
}

static int timeout_ms(const struct agent *a)
{
	uint64_t next = export_queue_next_tick(a->queue), wait_ns = a->poll_ns;

	if (next <= a->now_ns || (probe_has_more(a->probe) && !a->full_ns))
		return 0;
	if (next - a->now_ns < wait_ns)
		wait_ns = next - a->now_ns;
	return (int)((wait_ns + 999999) / 1000000);
}

/* Waits for what comes first, and passes on what did. False when the wait itself failed. */
static bool turn(struct agent *a, int wait_ms)
{
	struct epoll_event events[EPOLL_EVENTS];
	int i, n = epoll_wait(a->epoll_fd, events, EPOLL_EVENTS, wait_ms);

	if (n < 0 && errno != EINTR) {
		log_error("waiting for events failed: %s", strerror(errno));
		return false;
	}
	a->now_ns = monotonic_ns();
	for (i = 0; i < n; i++) {
		if (events[i].data.fd == a->signal_fd)
			on_signals(a);
		else if (events[i].data.fd != probe_fd(a->probe))
			export_queue_ready(a->queue, events[i].data.fd, events[i].events,
					   a->now_ns);
	}
	return true;
}

static void on_gone(void *ctx, uint32_t pid)
{
	struct agent *a = ctx;

	tracer_process_exit(a->tracer, pid, a->now_ns);
}

static void housekeeping(struct agent *a)
{
	if (a->now_ns < a->next_housekeeping_ns)
		return;
	a->next_housekeeping_ns = a->now_ns + HOUSEKEEPING_NS;
	probe_collect_drops(a->probe);
	if (a->lost) {
		a->lost = false;
		attach_rescan(&a->attach, on_gone, a);
	}
}

static void loop(struct agent *a)
{
	while (!a->stopping && turn(a, timeout_ms(a))) {
		consume(a);
		tracer_tick(a->tracer, a->now_ns);
		export_queue_tick(a->queue, a->now_ns);
		housekeeping(a);
	}
}

/* What has been seen is handed on, within the time limit. */
static void drain(struct agent *a)
{
	uint64_t deadline = monotonic_ns() + a->options->shutdown_timeout_ms * 1000000ull;

	a->now_ns = monotonic_ns();
	/* What happens from here on is not ours any more. */
	epoll_ctl(a->epoll_fd, EPOLL_CTL_DEL, probe_fd(a->probe), NULL);
	a->room = SIZE_MAX;
	probe_consume(a->probe, a->now_ns);
	tracer_flush(a->tracer, a->now_ns);
	while (!export_queue_flush(a->queue, a->now_ns) && a->now_ns < deadline) {
		uint64_t next = export_queue_next_tick(a->queue);
		uint64_t until = next < deadline ? next : deadline;

		if (!turn(a, until > a->now_ns ? (int)((until - a->now_ns + 999999) / 1000000) : 0))
			break;
		export_queue_tick(a->queue, a->now_ns);
	}
	if (a->now_ns >= deadline)
		log_warning("not everything could be exported within %llu ms (--shutdown-timeout)",
			    (unsigned long long)a->options->shutdown_timeout_ms);
	probe_collect_drops(a->probe);
}

/* --- start --- */

/* Says what went wrong; always 1, the exit status. */
static int refuse(char *error, const char *otherwise)
{
	log_error("%s", error ? error : otherwise);
	free(error);
	return 1;
}

static int start_loop(struct agent *a)
{
	struct epoll_event ev = { .events = EPOLLIN };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ev.data.fd = a->signal_fd;
	if (a->epoll_fd < 0 || a->signal_fd < 0 ||
	    epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, a->signal_fd, &ev))
		return refuse(NULL, "making the event loop failed");
	return 0;
}

static int start_selection(struct agent *a)
{
	const struct options *o = a->options;
	char *error = NULL;
	int err = selector_init(&a->selector, o->rules, o->rule_count, NULL);

	if (err)
		return refuse(NULL, "/proc can't be read: is it mounted?");
	err = select_check(&a->selector, &error);
	if (err == -ENODEV && mounts_cgroup2() == 0) {
		free(error);
		error = NULL;
		selector_free(&a->selector);
		if (selector_init(&a->selector, o->rules, o->rule_count, NULL))
			return refuse(NULL, "/proc can't be read: is it mounted?");
		err = select_check(&a->selector, &error);
	}
	return err ? refuse(error, strerror(-err)) : 0;
}

static int start_export(struct agent *a)
{
	const struct exporter_loop exporter_loop = { .watch = watch, .ctx = a };
	char *error = NULL;

	if (resource_context_init(&a->resources, a->options, SPANLOOM_VERSION))
		return refuse(NULL, "/proc can't be read: is it mounted?");
	a->queue = export_queue_new(a->options, &exporter_loop, &a->stats);
	if (!a->queue)
		return refuse(NULL, "out of memory");
	return exporters_open(a->options, a->queue, &error)
		       ? refuse(error, "opening the exporters failed")
		       : 0;
}

static int start_tracer(struct agent *a)
{
	const struct options *o = a->options;
	const struct tracer_options options = {
		.sampler = { .root = (enum sampler_root)o->sampler_root,
			     .parent_based = o->sampler_parent_based,
			     .ratio = o->sampler_ratio },
		.protocols = protocols_all,
		.max_connections = o->max_connections,
	};
	const struct tracer_ops ops = { on_span, on_resource, on_ignore, on_random, a };

	a->random_used = sizeof(a->random);
	a->tracer = tracer_new(&options, &ops, &a->stats);
	return a->tracer ? 0 : refuse(NULL, "out of memory");
}

/* Process numbers from BPF are those of the first PID namespace; in another one they would name
 * other processes. */
static int check_pid_namespace(void)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st) == 0 && st.st_ino != PID_NS_INIT_INODE)
		return refuse(NULL,
			      "spanloom runs in a PID namespace of its own and can't tell the "
			      "host's processes apart: "
			      "start its container with --pid=host (Kubernetes: hostPID: true)");
	return 0;
}

static int start_probe(struct agent *a)
{
	const struct options *o = a->options;
	const struct probe_options options = {
		.collector = (enum probe_collector)o->collector,
		.ring_bytes = o->ring_bytes,
		.capture_bytes = o->capture_bytes,
		.max_processes = o->max_processes,
		.max_connections = o->max_connections,
		.agent_pid = (uint32_t)getpid(),
	};
	const struct probe_sink sink = {
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
		.full = on_full,
		.ctx = a,
	};
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	char *error = NULL;

	if (probe_open(&options, &sink, &a->stats, &a->probe, &error))
		return refuse(error, "loading the BPF programs failed");
	ev.data.fd = probe_fd(a->probe);
	if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, ev.data.fd, &ev))
		return refuse(NULL, "watching the ring buffer failed");
	a->attach = (struct attach){ .selector = &a->selector, .probe = a->probe, .quiet = 1 };
	return 0;
}

static void say_ready(struct agent *a)
{
	const char *const *missing;
	char what[512], where[512];
	size_t n = attach_count(&a->attach);

	for (missing = probe_missing(a->probe); *missing; missing++)
		log_warning("%s", *missing);
	report_selection(a->options, what, sizeof(what));
	report_destination(a->options, where, sizeof(where));
	if (!n)
		log_info("no process matches %s yet: waiting for one to start", what);
	log_info("ready: tracing %zu process%s (%s), collector %s, spans to %s", n,
		 n == 1 ? "" : "es", what, probe_collector_name(a->probe), where);
}

static int start(struct agent *a)
{
	int err;

	if (check_pid_namespace() || start_loop(a) || start_selection(a) || start_export(a) ||
	    start_tracer(a) || start_probe(a))
		return 1;
	err = attach_scan(&a->attach);
	if (err < 0)
		return refuse(NULL, "reading /proc failed");
	a->attach.quiet = 0;
	/* Only what the kernel itself forbids makes this fail, and nothing depends on it. */
	if (a->options->nice && setpriority(PRIO_PROCESS, 0, a->options->nice))
		log_warning("the agent keeps its priority: --nice %d: %s", a->options->nice,
			    strerror(errno));
	say_ready(a);
	return 0;
}

static void stop(struct agent *a)
{
	tracer_free(a->tracer);
	probe_close(a->probe);
	export_queue_free(a->queue);
	attach_free(&a->attach);
	selector_free(&a->selector);
	resource_context_free(&a->resources);
	hash_free(&a->watched);
	if (a->epoll_fd > 0)
		close(a->epoll_fd);
	if (a->signal_fd > 0)
		close(a->signal_fd);
}

/* OTEL_ENABLED=false: be there, do nothing. */
static int run_disabled(void)
{
	sigset_t set;
	int signo;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	log_info("ready: tracing is switched off (OTEL_ENABLED=false or OTEL_SDK_DISABLED=true): "
		 "nothing is attached");
	sigwait(&set, &signo);
	return 0;
}

int agent_run(const struct options *options)
{
	struct agent *a;
	int status;

	log_set_level((enum log_level)options->log_level);
	if (!options->enabled)
		return run_disabled();
	a = calloc(1, sizeof(*a));
	if (!a)
		return refuse(NULL, "out of memory");
	a->options = options;
	a->poll_ns = POLL_BUSY_NS;
	a->selector.proc_fd = a->resources.proc_fd = -1;
	status = start(a);
	if (!status) {
		loop(a);
		drain(a);
		report_summary(&a->stats, "summary");
	}
	stop(a);
	free(a);
	return status;
}
