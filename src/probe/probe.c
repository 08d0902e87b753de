/*
 * Loads the skeleton, decides which programs this kernel can have, attaches them, and reads the
 * ring. It knows libbpf and nothing of protocols; every failure leaves with one message that says
 * what to do.
 */
#include "probe/probe.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "event.h"
#include "probe/hooks.h"
#include "probe/mounts.h"
#include "probe/ring.h"
#include "probe/routes.h"
#include "spanloom.skel.h"

enum {
	MISSING_MAX = 8,
	RUN_BYTES = 16384,
	TAIL_BYTES = 128,
	LIBBPF_LOG_BYTES = 1536,
	FILES_TO_LOAD = 128, /* descriptors; about 60 are used */
};

#define ROUTES_NS 50000000ull /* between two looks for attempts without a route */

struct probe {
	struct spanloom *skel;
	struct ring_buffer *ring;
	struct probe_sink sink;
	struct ring_reader reader;
	struct hooks *hooks;
	struct stats *stats;
	uint64_t *ignore; /* mmap of the ignore map */
	uint64_t *drop_scratch;
	uint64_t drops_seen[DROP_KERNEL_COUNT];
	int cpus;
	uint32_t agent_pid;
	enum probe_collector collector;
	uint64_t next_routes_ns;
	int consumed; /* by this probe_consume() */
	bool has_more;
	const char *missing[MISSING_MAX + 1];
	size_t missing_count;
};

/* The end of what libbpf said, for the message when loading fails. */
static char libbpf_log[LIBBPF_LOG_BYTES];

static int __attribute__((format(printf, 2, 0)))
keep_log(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	size_t have = strlen(libbpf_log), len, room = sizeof(libbpf_log) - 1;
	const char *tail;
	char *text;

	if (level == LIBBPF_DEBUG || vasprintf(&text, fmt, ap) < 0)
		return 0;
	len = strlen(text);
	/* A verifier's log is long and ends with the reason. */
	tail = len > room ? text + len - room : text;
	len = strlen(tail);
	if (have + len > room) {
		memmove(libbpf_log, libbpf_log + have + len - room, room - len);
		have = room - len;
	}
	memcpy(libbpf_log + have, tail, len + 1);
	free(text);
	return 0;
}

/* What libbpf said, without the line's end behind it. */
static const char *libbpf_said(void)
{
	size_t len = strlen(libbpf_log);

	while (len && libbpf_log[len - 1] == '\n')
		libbpf_log[--len] = '\0';
	return libbpf_log;
}

static int __attribute__((format(printf, 3, 4)))
fail(char **ret_error, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(ret_error, fmt, ap) < 0)
		*ret_error = NULL;
	va_end(ap);
	return err;
}

static int check_prerequisites(char **ret_error)
{
	if (geteuid() != 0)
		return fail(ret_error, -EPERM,
			    "loading BPF programs needs root: run it with sudo, or give it "
			    "CAP_BPF, CAP_PERFMON, "
			    "CAP_SYS_PTRACE and CAP_SYS_RESOURCE as root of a container");
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		return fail(ret_error, -ENOENT,
			    "this kernel has no type information (/sys/kernel/btf/vmlinux: %s): it "
			    "must be built "
			    "with CONFIG_DEBUG_INFO_BTF=y, as the kernels of Debian 11, Ubuntu "
			    "20.10, RHEL 8.2 and later are; in a "
			    "container, mount /sys read-only",
			    strerror(errno));
	return 0;
}

/* Is the kernel's tracepoint `name` there? Its BTF names a type btf_trace_<name>. */
static bool has_tracepoint(const struct btf *btf, const char *name)
{
	char type[128];

	snprintf(type, sizeof(type), "btf_trace_%s", name);
	return btf__find_by_name_kind(btf, type, BTF_KIND_TYPEDEF) > 0;
}

static void add_missing(struct probe *p, const char *sentence)
{
	if (p->missing_count < MISSING_MAX)
		p->missing[p->missing_count++] = sentence;
}

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/*
 * Which collector a program belongs to, by its name; AUTO: to both. With the sock collector no
 * tracepoint of system calls may be attached: that would make every system call of the machine
 * slower.
 */
static enum probe_collector collector_of(const char *program)
{
	if (starts_with(program, "exit_"))
		return PROBE_COLLECTOR_SYSCALL;
	if (starts_with(program, "sock_") || starts_with(program, "route_"))
		return PROBE_COLLECTOR_SOCK;
	return PROBE_COLLECTOR_AUTO;
}

static int choose_collector(struct probe *p, enum probe_collector wanted, bool has_sock,
			    char **ret_error)
{
	if (wanted == PROBE_COLLECTOR_SOCK && !has_sock)
		return fail(ret_error, -EOPNOTSUPP,
			    "--collector=sock needs the tracepoints sock_send_length and "
			    "sock_recv_length, which kernels have "
			    "from 6.3 on: use --collector=auto");
	p->collector = wanted != PROBE_COLLECTOR_AUTO ? wanted
		       : has_sock                     ? PROBE_COLLECTOR_SOCK
						      : PROBE_COLLECTOR_SYSCALL;
	/* The other needs no tracefs: nothing is mounted for it. */
	if (p->collector == PROBE_COLLECTOR_SYSCALL && mounts_tracefs())
		return fail(ret_error, -ENOENT,
			    "the syscall collector needs tracefs, which is not mounted and could "
			    "not be: mount it with "
			    "`mount -t tracefs tracefs /sys/kernel/tracing` (in a container: mount "
			    "the host's /sys/kernel/tracing)");
	return 0;
}

/* Leaves out what this kernel can't have or the chosen collector doesn't need. */
static int choose_programs(struct probe *p, const struct probe_options *o, char **ret_error)
{
	struct btf *btf = btf__load_vmlinux_btf();
	struct bpf_program *prog;
	bool has_sock;
	int err;

	if (!btf)
		return fail(ret_error, -errno,
			    "reading the kernel's type information (/sys/kernel/btf/vmlinux) "
			    "failed: %s",
			    strerror(errno));
	has_sock =
		has_tracepoint(btf, "sock_send_length") && has_tracepoint(btf, "sock_recv_length");
	err = choose_collector(p, o->collector, has_sock, ret_error);
	if (!err && !has_tracepoint(btf, "inet_sock_set_state"))
		add_missing(p, "the kernel has no tracepoint inet_sock_set_state: failed "
			       "connection attempts and new listeners are not seen");
	bpf_object__for_each_program(prog, p->skel->obj)
	{
		const char *name = bpf_program__name(prog),
			   *section = bpf_program__section_name(prog);
		enum probe_collector owner;
		bool load = true;

		if (starts_with(section, "tp_btf/"))
			load = has_tracepoint(btf, section + strlen("tp_btf/"));
		else if (hooks_own(prog))
			load = hooks_prepare(prog, btf);
		owner = collector_of(name);
		load = load && (owner == PROBE_COLLECTOR_AUTO || owner == p->collector);
		bpf_program__set_autoload(prog, load);
	}
	btf__free(btf);
	return err;
}

/* Out of descriptors libbpf may take what it tries for something that the kernel lacks. */
static bool too_few_files(int err)
{
	struct rlimit limit;

	return err == -EMFILE || (err == -EINVAL && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
				  limit.rlim_cur < FILES_TO_LOAD);
}

static int load_failure(int err, char **ret_error)
{
	if (err == -EPERM || err == -EACCES)
		return fail(ret_error, err,
			    "the kernel refuses to load BPF programs (%s): run as root with "
			    "CAP_BPF and CAP_PERFMON (or "
			    "CAP_SYS_ADMIN), outside of a seccomp filter that forbids bpf(2), and "
			    "without lockdown=confidentiality; the "
			    "kernel said: %s",
			    strerror(-err), libbpf_said());
	if (too_few_files(err))
		return fail(ret_error, err,
			    "loading the BPF programs needs more open files than the limit "
			    "allows: raise it, as with `ulimit -n 1024` (systemd: LimitNOFILE)");
	return fail(ret_error, err,
		    "loading the BPF programs failed (%s); please report it with `uname -r` and "
		    "this output: %s",
		    strerror(-err), libbpf_said());
}

static int load(struct probe *p, const struct probe_options *o, char **ret_error)
{
	struct probe_constants *c;
	int err;

	p->skel = spanloom__open();
	if (!p->skel)
		return fail(ret_error, -errno, "opening the BPF object failed: %s",
			    strerror(errno));
	err = choose_programs(p, o, ret_error);
	if (err)
		return err;
	c = (struct probe_constants *)&p->skel->rodata->constants;
	c->capture_bytes = o->capture_bytes;
	c->run_bytes = RUN_BYTES > o->capture_bytes ? RUN_BYTES : o->capture_bytes;
	c->tail_bytes = TAIL_BYTES;
	c->syscall_exits = p->collector == PROBE_COLLECTOR_SYSCALL;
	c->wake_bytes = o->ring_bytes / 4;
	bpf_map__set_max_entries(p->skel->maps.ring, o->ring_bytes);
	bpf_map__set_max_entries(p->skel->maps.traced, o->max_processes);
	bpf_map__set_max_entries(p->skel->maps.conns, o->max_connections);
	err = spanloom__load(p->skel);
	return err ? load_failure(err, ret_error) : 0;
}

static int attach(struct probe *p, char **ret_error)
{
	struct bpf_program *prog;
	int i;

	for (i = 0; i < p->skel->skeleton->prog_cnt; i++) {
		const struct bpf_prog_skeleton *s = &p->skel->skeleton->progs[i];

		prog = *s->prog;
		if (!bpf_program__autoload(prog) || hooks_own(prog))
			continue;
		*s->link = bpf_program__attach(prog);
		if (!*s->link) {
			int err = -errno;

			return fail(ret_error, err,
				    "attaching the BPF program %s (%s) failed: %s; does a seccomp "
				    "filter or perf_event_paranoid forbid perf_event_open(2), or "
				    "is /sys/kernel/tracing not there? libbpf says: %s",
				    bpf_program__name(prog), bpf_program__section_name(prog),
				    strerror(-err), libbpf_log[0] ? libbpf_said() : "nothing");
		}
	}
	return 0;
}

static int on_record(void *ctx, void *data, size_t size)
{
	struct probe *p = ctx;

	ring_record(&p->reader, data, size);
	p->consumed++;
	if (!p->sink.full || !p->sink.full(p->sink.ctx))
		return 0;
	p->has_more = true;
	return -ECANCELED; /* libbpf stops behind this record */
}

static int map_memory(struct probe *p, char **ret_error)
{
	size_t bytes = IGNORE_SLOTS * sizeof(uint64_t);
	int fd = bpf_map__fd(p->skel->maps.ignore);

	p->ignore = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p->ignore == MAP_FAILED) {
		p->ignore = NULL;
		return fail(ret_error, -errno, "mapping the BPF ignore map failed: %s",
			    strerror(errno));
	}
	p->cpus = libbpf_num_possible_cpus();
	p->drop_scratch = p->cpus > 0 ? calloc((size_t)p->cpus, sizeof(uint64_t)) : NULL;
	p->ring = ring_buffer__new(bpf_map__fd(p->skel->maps.ring), on_record, p, NULL);
	if (!p->ring || !p->drop_scratch)
		return fail(ret_error, -ENOMEM,
			    "mapping the ring buffer failed: %s (is --ring-size too large?)",
			    strerror(errno));
	return 0;
}

int probe_open(const struct probe_options *options, const struct probe_sink *sink,
	       struct stats *stats, struct probe **ret, char **ret_error)
{
	struct probe *p;
	int err = check_prerequisites(ret_error);

	if (err)
		return err;
	libbpf_log[0] = '\0';
	libbpf_set_print(keep_log);
	p = calloc(1, sizeof(*p));
	if (!p)
		return fail(ret_error, -ENOMEM, "out of memory");
	p->sink = *sink;
	p->stats = stats;
	p->agent_pid = options->agent_pid;
	p->reader = (struct ring_reader){ .sink = &p->sink, .stats = stats };
	err = load(p, options, ret_error);
	if (!err) {
		p->reader.hooks = p->hooks = hooks_new(p->skel->obj, stats);
		if (!p->hooks)
			err = fail(ret_error, -ENOMEM, "out of memory");
	}
	if (!err)
		err = map_memory(p, ret_error);
	if (!err)
		err = attach(p, ret_error);
	if (err) {
		probe_close(p);
		return err;
	}
	*ret = p;
	return 0;
}

void probe_close(struct probe *p)
{
	if (!p)
		return;
	ring_buffer__free(p->ring);
	if (p->ignore)
		munmap(p->ignore, IGNORE_SLOTS * sizeof(uint64_t));
	ring_reader_free(&p->reader);
	hooks_free(p->hooks);
	spanloom__destroy(p->skel);
	free(p->drop_scratch);
	free(p);
}

int probe_fd(const struct probe *p)
{
	return bpf_map__fd(p->skel->maps.ring);
}

struct hooks *probe_hooks(struct probe *p)
{
	return p->hooks;
}

int probe_consume(struct probe *p, uint64_t now_ns)
{
	int err;

	/* Before the records are taken: what comes after may wake us again. */
	__atomic_store_n(&p->skel->bss->wake_pending, 0, __ATOMIC_RELEASE);
	p->has_more = false;
	p->consumed = 0;
	err = ring_buffer__consume(p->ring);
	if (p->collector == PROBE_COLLECTOR_SOCK && now_ns >= p->next_routes_ns) {
		p->next_routes_ns = now_ns + ROUTES_NS;
		routes_collect(bpf_map__fd(p->skel->maps.unroutable), &p->sink, now_ns);
	}
	return err < 0 && !p->has_more ? err : p->consumed;
}

bool probe_has_more(const struct probe *p)
{
	return p->has_more;
}

int probe_trace(struct probe *p, uint32_t pid)
{
	uint32_t one = 1;
	int err;

	if (pid == p->agent_pid)
		return -EINVAL;
	__atomic_store_n(&p->skel->bss->traced_hint[pid % TRACED_HINTS], 1, __ATOMIC_RELAXED);
	err = bpf_map__update_elem(p->skel->maps.traced, &pid, sizeof(pid), &one, sizeof(one),
				   BPF_NOEXIST);
	if (err == -EEXIST)
		return 0;
	/* Its exit may have come before: then nobody would take it out, and its number be
	 * another's. */
	if (!err && kill((pid_t)pid, 0) && errno == ESRCH) {
		bpf_map__delete_elem(p->skel->maps.traced, &pid, sizeof(pid), 0);
		return -ESRCH;
	}
	return err;
}

void probe_ignore(struct probe *p, uint64_t conn_id)
{
	__atomic_store_n(&p->ignore[conn_id % IGNORE_SLOTS], conn_id, __ATOMIC_RELAXED);
}

void probe_collect_drops(struct probe *p)
{
	uint32_t reason;

	for (reason = 0; reason < DROP_KERNEL_COUNT; reason++) {
		uint64_t sum = 0;
		int cpu;

		if (bpf_map__lookup_elem(p->skel->maps.drops, &reason, sizeof(reason),
					 p->drop_scratch, (size_t)p->cpus * sizeof(uint64_t), 0))
			continue;
		for (cpu = 0; cpu < p->cpus; cpu++)
			sum += p->drop_scratch[cpu];
		stats_drop(p->stats, reason, sum - p->drops_seen[reason]);
		p->drops_seen[reason] = sum;
	}
}

const char *probe_collector_name(const struct probe *p)
{
	return p->collector == PROBE_COLLECTOR_SOCK ? "sock" : "syscall";
}

const char *const *probe_missing(const struct probe *p)
{
	return p->missing;
}

/* bytes_memlock of a map, as the kernel accounts it; 0 when it doesn't say. */
static size_t map_memlock(int fd)
{
	char path[64], line[128];
	unsigned long bytes = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "memlock: %lu", &bytes) == 1)
			break;
	}
	fclose(f);
	return bytes;
}

size_t probe_map_bytes(const struct probe *p)
{
	struct bpf_map *map;
	size_t bytes = 0;

	bpf_object__for_each_map(map, p->skel->obj) bytes += map_memlock(bpf_map__fd(map));
	return bytes;
}
