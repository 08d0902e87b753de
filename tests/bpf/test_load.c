/*
 * Both collectors load and attach on this kernel in time, each program within its budget of
 * instructions (as the verifier counts what it walks), the maps within theirs; and nothing of it is
 * left in the kernel once the probe is closed or its process is killed.
 */
#include <bpf/bpf.h>
#include <dirent.h>

#include "watch.h"

enum {
	OPEN_MS_MAX = 1000,
	OPEN_SYSCALL_MS_MAX = 2500, /* its programs are thirteen, each with the walks in it */
	OPEN_TRIES = 8,             /* the machine may be busy */
	MAP_BYTES_MAX = 24 << 20,
	IDS_MAX = 128,
	GONE_MS_MAX = 5000,
	HOOK_PROGRAMS = 7 /* bpf/python.bpf.c */
};

/* Names as the kernel cuts them. Half again of what this kernel's verifier walks, or more: older
 * ones see more states than the newest, and the limit is a million. */
static const struct {
	const char *program;
	uint32_t instructions;
} budgets[] = {
	{ "process_fork", 54000 },     { "process_exec", 150 },       { "process_exit", 300 },
	{ "process_cgroup", 150 },     { "socket_state", 1500 },      { "socket_destroye", 300 },
	{ "sock_send_lengt", 140000 }, { "sock_recv_lengt", 100000 }, { "exit_read", 68000 },
	{ "exit_readv", 68000 },       { "exit_preadv2", 68000 },     { "exit_recvfrom", 102000 },
	{ "exit_recvmsg", 102000 },    { "exit_write", 126000 },      { "exit_writev", 126000 },
	{ "exit_pwritev2", 126000 },   { "exit_sendto", 124000 },     { "exit_sendmsg", 124000 },
	{ "exit_sendfile64", 113000 }, { "exit_recvmmsg", 140000 },   { "exit_sendmmsg", 145000 },
	{ "exit_connect", 1600 },      { "route_ipv4", 900 },         { "route_ipv6", 900 },
	{ "context_copied", 54000 },   { "context_in_rax", 54000 },   { "context_in_rbx", 54000 },
	{ "item_submitted", 54000 },   { "call_sending", 3000 },      { "inject_header", 40000 },
	{ "inject_socket", 500 },      { "late_write", 70000 },       { "native_entered", 900 },
	{ "native_left", 900 },
};

/* --- what of BPF this process holds ----------------------------------------------------------- */

enum kind { KIND_PROGRAM, KIND_MAP, KIND_LINK, KINDS };

static const struct {
	const char *descriptor; /* as /proc/self/fd shows it */
	const char *field;      /* in its fdinfo */
	int (*open)(__u32 id);
} kinds[KINDS] = {
	[KIND_PROGRAM] = { "anon_inode:bpf-prog", "prog_id:", bpf_prog_get_fd_by_id },
	[KIND_MAP] = { "anon_inode:bpf-map", "map_id:", bpf_map_get_fd_by_id },
	[KIND_LINK] = { "anon_inode:bpf_link", "link_id:", bpf_link_get_fd_by_id },
};

struct held {
	uint32_t count[KINDS];
	uint32_t ids[KINDS][IDS_MAX];
	int fds[KINDS][IDS_MAX];
	uint32_t descriptors; /* of any kind */
};

static uint32_t fdinfo_number(int fd, const char *field)
{
	char path[64], line[128];
	uint32_t value = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, field, strlen(field)) == 0)
			value = (uint32_t)strtoul(line + strlen(field), NULL, 10);
	}
	if (f)
		fclose(f);
	return value;
}

static void held_add(struct held *h, int fd, const char *target)
{
	int k;

	h->descriptors++;
	for (k = 0; k < KINDS; k++) {
		if (strcmp(target, kinds[k].descriptor) == 0 && h->count[k] < IDS_MAX) {
			h->fds[k][h->count[k]] = fd;
			h->ids[k][h->count[k]++] = fdinfo_number(fd, kinds[k].field);
		}
	}
}

static void held_now(struct held *h)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	memset(h, 0, sizeof(*h));
	while (dir && (e = readdir(dir))) {
		char path[300], target[64];
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%s", e->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		held_add(h, atoi(e->d_name), target);
	}
	if (dir)
		closedir(dir);
}

/* Whether the kernel still knows one of them; it frees them a moment after their last user. */
static bool held_anywhere(const struct held *h, int *ret_kind)
{
	uint32_t i;
	int k;

	for (k = 0; k < KINDS; k++) {
		for (i = 0; i < h->count[k]; i++) {
			int fd = kinds[k].open(h->ids[k][i]);

			if (fd < 0)
				continue;
			close(fd);
			*ret_kind = k;
			return true;
		}
	}
	return false;
}

static void check_gone(const struct held *h)
{
	uint64_t deadline = now_ns() + (uint64_t)GONE_MS_MAX * 1000000u;
	int kind = 0;
	bool left;

	while ((left = held_anywhere(h, &kind)) && now_ns() < deadline)
		sleep_ms(20);
	CHECK_SAY(!left, "left in the kernel: %s", kinds[kind].descriptor);
}

/* --- checks ----------------------------------------------------------------------------------- */

static void check_budget(int fd)
{
	struct bpf_prog_info info = { 0 };
	__u32 len = sizeof(info), budget = 0;
	size_t i;

	if (bpf_obj_get_info_by_fd(fd, &info, &len)) {
		CHECK_SAY(false, "bpf_obj_get_info_by_fd: %s", strerror(errno));
		return;
	}
	for (i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
		if (strcmp(budgets[i].program, info.name) == 0)
			budget = budgets[i].instructions;
	}
	printf("  %-16s %6u of %6u instructions\n", info.name, info.verified_insns, budget);
	CHECK_SAY(info.verified_insns <= budget, "%s: %u instructions, %u are allowed", info.name,
		  info.verified_insns, budget);
}

static void check_missing(const struct probe *probe)
{
	const char *const *missing = probe_missing(probe);

	for (; *missing; missing++)
		CHECK_SAY(false, "missing: %s", *missing);
	CHECK(!*probe_missing(probe));
}

/* CPU time: what else runs on the machine doesn't count. */
static uint64_t cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static uint64_t watch_open_ms(struct watch *w, enum probe_collector collector)
{
	uint64_t begin = cpu_ms();

	watch_open(w, collector, WATCH_RING_BYTES);
	return cpu_ms() - begin;
}

static void check_collector(enum probe_collector collector)
{
	uint64_t ms, limit = collector == PROBE_COLLECTOR_SOCK ? OPEN_MS_MAX : OPEN_SYSCALL_MS_MAX;
	struct held before, during, after;
	struct watch w;
	size_t bytes;
	uint32_t i;

	check_scene = collector_text(collector);
	printf("%s:\n", check_scene);
	held_now(&before);
	ms = watch_open_ms(&w, collector);
	for (i = 1; i < OPEN_TRIES && ms >= limit; i++) {
		watch_close(&w);
		ms = watch_open_ms(&w, collector);
	}
	CHECK_SAY(ms < limit, "probe_open took %llu ms", (unsigned long long)ms);
	CHECK(strcmp(probe_collector_name(w.probe), check_scene) == 0);
	check_missing(w.probe);
	bytes = probe_map_bytes(w.probe);
	CHECK_SAY(bytes > WATCH_RING_BYTES && bytes < MAP_BYTES_MAX, "%zu bytes of maps", bytes);
	held_now(&during);
	CHECK(during.count[KIND_PROGRAM] && during.count[KIND_MAP] && during.count[KIND_LINK]);
	/* The others are attached when a process needs them. */
	CHECK(during.count[KIND_PROGRAM] == during.count[KIND_LINK] + HOOK_PROGRAMS);
	for (i = 0; i < during.count[KIND_PROGRAM]; i++)
		check_budget(during.fds[KIND_PROGRAM][i]);
	printf("  open in %llu ms, %zu KiB of maps\n", (unsigned long long)ms, bytes >> 10);
	watch_close(&w);
	held_now(&after);
	CHECK_SAY(after.descriptors == before.descriptors, "%u descriptors, %u before",
		  after.descriptors, before.descriptors);
	check_gone(&during);
}

/* The process that holds everything is killed. */
static void check_killed(enum probe_collector collector)
{
	struct held *held = shared_memory(sizeof(*held));
	int status, ready[2];
	pid_t pid;
	char byte;

	check_scene = "killed";
	if (pipe(ready) || (pid = fork()) < 0) {
		CHECK_SAY(false, "%s", strerror(errno));
		return;
	}
	if (!pid) {
		struct watch w;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		watch_open(&w, collector, WATCH_RING_BYTES);
		held_now(held);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	CHECK(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	CHECK(held->count[KIND_PROGRAM] > 0);
	check_gone(held);
	munmap(held, sizeof(*held));
}

/* What can't be is refused with a sentence. */
static void check_refusals(void)
{
	struct probe_options options = { .collector = PROBE_COLLECTOR_SOCK,
					 .ring_bytes = 64 << 10,
					 .capture_bytes = WATCH_CAPTURE_BYTES,
					 .max_processes = 0, /* no map can be as small */
					 .max_connections = 16 };
	struct watch w = { 0 };
	struct probe_sink sink = watch_sink(&w);
	char *error = NULL;

	check_scene = "refusals";
	CHECK(probe_open(&options, &sink, &w.stats, &w.probe, &error) < 0);
	CHECK(!w.probe && error && error[0]);
	free(error);
	error = NULL;
	options.max_processes = 2;
	options.agent_pid = (uint32_t)getpid();
	if (probe_open(&options, &sink, &w.stats, &w.probe, &error)) {
		CHECK_SAY(false, "%s", error ? error : "no memory");
		free(error);
		return;
	}
	CHECK(probe_trace(w.probe, options.agent_pid) == -EINVAL);
	CHECK(probe_trace(w.probe, 1) == 0 && probe_trace(w.probe, 1) == 0);
	CHECK(probe_trace(w.probe, 2) == 0);
	CHECK(probe_trace(w.probe, 3) == -E2BIG);
	watch_close(&w);
	probe_close(NULL);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	check_killed(PROBE_COLLECTOR_AUTO);
	check_refusals();
	return check_result();
}
