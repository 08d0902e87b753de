/*
 * The agent's start, in order: loop, selection, exporters, tracer, kernel side, first scan. Each
 * step says itself what is wrong with it, why and what to do, and gives back the exit status.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent_internal.h"
#include "base/log.h"
#include "base/version.h"
#include "export/exporters.h"
#include "probe/mounts.h"
#include "protocols/protocols.h"
#include "report.h"

enum { PID_NS_INIT_INODE = 0xEFFFFFFCu };

int agent_watch(void *ctx, int fd, uint32_t events)
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

/* Says what went wrong; always 1, the exit status. */
static int refuse(char *error, const char *otherwise)
{
	log_error("%s", error ? error : otherwise);
	free(error);
	return 1;
}

/* Each probe in a traced process is a descriptor or two of ours. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int start_loop(struct agent *a)
{
	struct epoll_event ev = { .events = EPOLLIN };
	sigset_t set;

	raise_descriptors();

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
	const struct exporter_loop exporter_loop = { .watch = agent_watch, .ctx = a };
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

void agent_span_rules_free(struct agent *a)
{
	free(a->span_rules);
	free(a->span_attributes);
}

/* The tracer's view of --span; texts stay the options'. */
static int make_span_rules(struct agent *a)
{
	const struct options *o = a->options;
	struct span_attribute *next;
	size_t attributes = 0;

	for (size_t i = 0; i < o->span_count; i++)
		attributes += o->spans[i].attribute_count;
	a->span_rules = calloc(o->span_count + 1, sizeof(*a->span_rules));
	a->span_attributes = next = calloc(attributes + 1, sizeof(*next));
	if (!a->span_rules || !next)
		return -ENOMEM;
	for (size_t i = 0; i < o->span_count; i++) {
		const struct span_option *s = &o->spans[i];

		a->span_rules[i] = (struct span_rule){ s->name, next, s->attribute_count };
		for (size_t k = 0; k < s->attribute_count; k++)
			*next++ = (struct span_attribute){ s->attributes[k].key,
							   s->attributes[k].value };
	}
	return 0;
}

static int start_tracer(struct agent *a)
{
	const struct options *o = a->options;
	struct tracer_options options = {
		.sampler = { .root = (enum sampler_root)o->sampler_root,
			     .parent_based = o->sampler_parent_based,
			     .ratio = o->sampler_ratio },
		.protocols = protocols_all,
		.max_connections = o->max_connections,
		.span_rule_count = o->span_count,
		.no_code = !o->code,
		.no_route = !o->route,
		.keep_errors = o->keep_errors,
		.keep_slow_ns = o->keep_slow_ms * 1000000ull,
	};
	const struct tracer_ops ops = agent_tracer_ops(a);

	if (make_span_rules(a))
		return refuse(NULL, "out of memory");
	options.span_rules = a->span_rules;
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

static void on_trace(void *ctx, uint32_t pid, uint32_t parent, bool born)
{
	struct agent *a = ctx;

	agent_process_begin(a->processes, pid, parent, born, a->now_ns);
}

/* A wish for headers that is not certain to come true is no reason to stop. */
static uint32_t propagate_wanted(const struct options *o)
{
	return (o->propagate & (PROPAGATE_HEADERS | PROPAGATE_AUTO) ? PROBE_PROPAGATE_HEADERS
								    : 0u) |
	       (o->propagate & PROPAGATE_TCP ? PROBE_PROPAGATE_TCP : 0u);
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
		.sampler_root = o->sampler_root,
		.sampler_parent_based = o->sampler_parent_based,
		.sampler_ratio = o->sampler_ratio,
		.root_limit = o->root_limit,
		.report_unsampled = o->keep_errors || o->keep_slow_ms,
		.propagate = propagate_wanted(o),
	};
	const struct agent_process_ops process_ops = agent_process_ops(a);
	const struct probe_sink sink = agent_sink(a);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	char *error = NULL;

	if (probe_open(&options, &sink, &a->stats, &a->probe, &error))
		return refuse(error, "loading the BPF programs failed");
	ev.data.fd = probe_fd(a->probe);
	if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, ev.data.fd, &ev))
		return refuse(NULL, "watching the ring buffer failed");
	a->attach = (struct attach){ .selector = &a->selector,
				     .probe = a->probe,
				     .quiet = 1,
				     .on_trace = on_trace,
				     .ctx = a };
	a->runtime = agent_runtime_new(o, a->probe, a->tracer, a->selector.proc_fd);
	a->processes = agent_processes_new(o, a->probe, &a->resources, &process_ops);
	return a->runtime && a->processes ? 0 : refuse(NULL, "out of memory");
}

/* What was asked for by name is missed when it doesn't work; what works may work differently. */
static void warn_of_propagation(const struct options *o, uint32_t works, const char *why)
{
	bool whole = works == propagate_wanted(o);

	if (why && whole)
		log_warning("%s", why);
	else if (why && !(o->propagate & PROPAGATE_AUTO))
		log_warning("--propagate: not all of it works here: %s", why);
}

static void say_ready(struct agent *a)
{
	char what[512], where[512], propagation[512], sampling[256];
	size_t n = attach_count(&a->attach);
	const char *const *missing;
	const char *why;
	uint32_t works = probe_propagates(a->probe, &why);

	for (missing = probe_missing(a->probe); *missing; missing++)
		log_warning("%s", *missing);
	warn_of_propagation(a->options, works, why);
	report_selection(a->options, what, sizeof(what));
	report_destination(a->options, where, sizeof(where));
	report_propagation(a->options, works & PROBE_PROPAGATE_HEADERS, works & PROBE_PROPAGATE_TCP,
			   why, propagation, sizeof(propagation));
	report_sampling(a->options, sampling, sizeof(sampling));
	if (!n)
		log_info("no process matches %s yet: waiting for one to start", what);
	log_info("ready: tracing %zu process%s (%s), collector %s, %s, sampling %s, spans to %s", n,
		 n == 1 ? "" : "es", what, probe_collector_name(a->probe), propagation, sampling,
		 where);
}

int agent_start(struct agent *a)
{
	int err;

	if (check_pid_namespace() || start_loop(a) || start_selection(a) || start_export(a) ||
	    start_tracer(a) || start_probe(a))
		return 1;
	err = attach_scan(&a->attach);
	if (err < 0)
		return refuse(NULL, "reading /proc failed");
	a->attach.quiet = 0;
	agent_runtime_start(a->runtime);
	/* Only what the kernel itself forbids makes this fail, and nothing depends on it. */
	if (a->options->nice && setpriority(PRIO_PROCESS, 0, a->options->nice))
		log_warning("the agent keeps its priority: --nice %d: %s", a->options->nice,
			    strerror(errno));
	say_ready(a);
	return 0;
}
