/*
 * Both collectors load and attach on this kernel, each program stays within its instruction budget
 * (what the verifier walks, as it counts it), and nothing is held any more once the probe is
 * closed.
 */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe/probe.h"

enum {
	INSN_BUDGET = 100000, /* of the kernel's million; older verifiers see more states than the
				 newest */
	RING_BYTES = 1 << 20,
	MAX_PROGRAMS = 128,
};

static unsigned int passed, failed;

static void result(bool good, const char *collector, const char *what, const char *detail)
{
	if (good)
		passed++;
	else
		failed++;
	printf("%s %s: %s%s%s\n", good ? "ok" : "FAILED", collector, what, *detail ? ": " : "",
	       detail);
}

/* The file descriptors of ours that are BPF programs; how many. */
static int programs_held(int fds[MAX_PROGRAMS])
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	int count = 0;

	while (dir && (e = readdir(dir)) && count < MAX_PROGRAMS) {
		char path[300], target[64];
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		if (strcmp(target, "anon_inode:bpf-prog") == 0)
			fds[count++] = atoi(e->d_name);
	}
	if (dir)
		closedir(dir);
	return count;
}

static void check_budget(const char *collector, int fd)
{
	struct bpf_prog_info info = { 0 };
	__u32 len = sizeof(info);
	char detail[64];

	if (bpf_obj_get_info_by_fd(fd, &info, &len)) {
		result(false, collector, "bpf_obj_get_info_by_fd", strerror(errno));
		return;
	}
	snprintf(detail, sizeof(detail), "%u instructions verified", info.verified_insns);
	result(info.verified_insns <= INSN_BUDGET, collector, info.name, detail);
}

static void check_collector(enum probe_collector kind, const char *name)
{
	struct probe_options options = { .collector = kind,
					 .ring_bytes = RING_BYTES,
					 .capture_bytes = 4096,
					 .max_processes = 64,
					 .max_connections = 256,
					 .agent_pid = (uint32_t)getpid() };
	struct probe_sink sink = { 0 };
	struct stats stats = { 0 };
	struct probe *probe = NULL;
	int fds[MAX_PROGRAMS], count, i;
	char *error = NULL;
	int err = probe_open(&options, &sink, &stats, &probe, &error);

	result(err == 0, name, "loads and attaches", err ? (error ? error : strerror(-err)) : "");
	free(error);
	if (err)
		return;
	result(strcmp(probe_collector_name(probe), name) == 0, name,
	       "is the collector that was asked for", "");
	count = programs_held(fds);
	result(count > 0, name, "holds programs", "");
	for (i = 0; i < count; i++)
		check_budget(name, fds[i]);
	result(probe_trace(probe, options.agent_pid) != 0, name, "refuses to trace the agent", "");
	probe_close(probe);
	result(programs_held(fds) == 0, name, "holds nothing after it is closed", "");
}

int main(void)
{
	if (geteuid() != 0) {
		printf("needs root\n0 passed, 1 failed\n");
		return 1;
	}
	check_collector(PROBE_COLLECTOR_SOCK, "sock");
	check_collector(PROBE_COLLECTOR_SYSCALL, "syscall");
	printf("%u passed, %u failed\n", passed, failed);
	return failed != 0;
}
