/*
 * For tests of what is put into calls: a probe that puts headers in, its requests kept in a list,
 * and a way to run as a program that gets headers on every kernel (see probe/inject_program.h).
 */
#ifndef TESTS_BPF_PROPAGATE_H
#define TESTS_BPF_PROPAGATE_H

#include <bpf/btf.h>
#include <fcntl.h>
#include <linux/limits.h>

#include "watch.h"

enum { REQUESTS_SEEN_MAX = 4096 };

/* What the kernel side said of requests, oldest first. */
static struct request_event requests_seen[REQUESTS_SEEN_MAX];
static size_t requests_at[REQUESTS_SEEN_MAX]; /* how many other events had come before */
static size_t requests_count;

static inline void on_request(void *ctx, const struct request_event *ev)
{
	const struct watch *w = ctx;

	if (requests_count == REQUESTS_SEEN_MAX)
		return;
	requests_at[requests_count] = w->count;
	requests_seen[requests_count++] = *ev;
}

static inline void propagate_reset(struct watch *w)
{
	watch_reset(w);
	requests_count = 0;
}

/* Does this kernel tell of sends before their bytes are queued (tcp_sendmsg_locked, 6.15)? */
static inline bool propagate_early(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	bool early = btf && btf__find_by_name_kind(btf, "btf_trace_tcp_sendmsg_locked",
						   BTF_KIND_TYPEDEF) > 0;

	btf__free(btf);
	return early;
}

/* The agent's defaults, with headers where they work. `sampler_root`: 0 all, 1 none. */
static inline void propagate_open(struct watch *w, enum probe_collector collector, int sampler_root,
				  bool headers)
{
	const struct probe_options options = {
		.collector = collector,
		.ring_bytes = WATCH_RING_BYTES,
		.capture_bytes = WATCH_CAPTURE_BYTES,
		.max_processes = WATCH_PROCESSES,
		.max_connections = WATCH_CONNECTIONS,
		.agent_pid = (uint32_t)getpid(),
		.sampler_root = sampler_root,
		.sampler_parent_based = true,
		.propagate = headers ? PROBE_PROPAGATE_HEADERS : 0,
	};
	struct probe_sink sink = watch_sink(w);
	char *error = NULL;
	const char *why;
	int err;

	memset(w, 0, sizeof(*w));
	sink.request = on_request;
	err = probe_open(&options, &sink, &w->stats, &w->probe, &error);
	if (err)
		check_skip(error ? error : strerror(-err));
	if (headers && !(probe_propagates(w->probe, &why) & PROBE_PROPAGATE_HEADERS))
		check_skip(why ? why : "headers do not work here");
}

/* Runs this program again, from a copy named curl. */
static inline void run_as_curl(char **argv)
{
	char dir[] = "/tmp/spanloom-test-XXXXXX", copy[PATH_MAX], self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1), n;
	char buf[1 << 16];
	int from, to;

	if (len > 0)
		self[len] = '\0';
	if (len > 5 && strcmp(self + len - 5, "/curl") == 0) {
		/* We are the copy: nothing of it stays. */
		unlink(self);
		self[len - 5] = '\0';
		rmdir(self);
		return;
	}
	if (len <= 0 || !mkdtemp(dir))
		exit(1);
	snprintf(copy, sizeof(copy), "%s/curl", dir);
	from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	to = open(copy, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
	while ((n = read(from, buf, sizeof(buf))) > 0) {
		if (write(to, buf, (size_t)n) != n)
			exit(1);
	}
	close(from);
	close(to);
	execv(copy, argv);
	perror(copy);
	exit(1);
}

#endif
