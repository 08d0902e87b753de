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
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "agent_internal.h"
#include "base/log.h"
#include "report.h"

#define POLL_BUSY_NS 5000000ull  /* between two looks at the ring while there is traffic */
#define POLL_IDLE_NS 50000000ull /* and when there was none for a while */
#define FULL_NS 100000000ull     /* how long records wait in the ring for room in the queue */
#define HOUSEKEEPING_NS 1000000000ull

enum { EPOLL_EVENTS = 16 };

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
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
			agent_processes_report(a->processes, "so far");
			agent_runtime_report(a->runtime, "so far");
			agent_runtime_report_spans(a->runtime);
		} else if (a->stopping) {
			log_warning("stopped a second time: what is not exported yet is dropped");
			_exit(1);
		} else {
			a->stopping = true;
		}
	}
}

/* Never shorter than asked for, so that what is due then is due. */
static int wait_ms(uint64_t wait_ns)
{
	return (int)((wait_ns + 999999) / 1000000);
}

static int timeout_ms(const struct agent *a)
{
	uint64_t next = export_queue_next_tick(a->queue), wait_ns = a->poll_ns;

	if (next <= a->now_ns || (probe_has_more(a->probe) && !a->full_ns))
		return 0;
	if (next - a->now_ns < wait_ns)
		wait_ns = next - a->now_ns;
	return wait_ms(wait_ns);
}

/* Waits for what comes first, and passes on what did. False when the wait itself failed. */
static bool turn(struct agent *a, int limit_ms)
{
	struct epoll_event events[EPOLL_EVENTS];
	int i, n = epoll_wait(a->epoll_fd, events, EPOLL_EVENTS, limit_ms);

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
	agent_runtime_end(a->runtime, pid);
	agent_process_end(a->processes, pid);
}

static void housekeeping(struct agent *a)
{
	if (a->now_ns < a->next_housekeeping_ns)
		return;
	a->next_housekeeping_ns = a->now_ns + HOUSEKEEPING_NS;
	probe_collect_drops(a->probe);
	agent_processes_tick(a->processes, a->now_ns);
	if (a->lost) {
		a->lost = false;
		attach_rescan(&a->attach, on_gone, a);
		agent_runtime_recheck(a->runtime);
	}
}

static void loop(struct agent *a)
{
	while (!a->stopping && turn(a, timeout_ms(a))) {
		consume(a);
		tracer_tick(a->tracer, a->now_ns);
		agent_runtime_tick(a->runtime, a->now_ns);
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

		if (!turn(a, until > a->now_ns ? wait_ms(until - a->now_ns) : 0))
			break;
		export_queue_tick(a->queue, a->now_ns);
	}
	if (a->now_ns >= deadline)
		log_warning("not everything could be exported within %llu ms (--shutdown-timeout)",
			    (unsigned long long)a->options->shutdown_timeout_ms);
	probe_collect_drops(a->probe);
}

static void stop(struct agent *a)
{
	agent_runtime_free(a->runtime);
	agent_processes_free(a->processes);
	tracer_free(a->tracer);
	agent_span_rules_free(a);
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
	if (!a) {
		log_error("out of memory");
		return 1;
	}
	a->options = options;
	a->poll_ns = POLL_BUSY_NS;
	a->selector.proc_fd = a->resources.proc_fd = -1;
	a->now_ns = monotonic_ns();
	status = agent_start(a);
	if (!status) {
		loop(a);
		drain(a);
		report_summary(&a->stats, "summary");
		agent_processes_report(a->processes, "summary");
		agent_runtime_report_spans(a->runtime);
	}
	stop(a);
	free(a);
	return status;
}
