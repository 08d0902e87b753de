/*
 * The probe itself: holds the loaded programs, reads their ring and writes their maps. It knows
 * libbpf and nothing of protocols; every failure leaves with one message that says what to do.
 */
#include "probe/probe.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/fail.h"
#include "event.h"
#include "probe/hooks.h"
#include "probe/inject.h"
#include "probe/load.h"
#include "probe/option.h"
#include "probe/programs.h"
#include "probe/ring.h"
#include "probe/routes.h"
#include "probe/traced.h"
#include "spanloom.skel.h"

#define ROUTES_NS 50000000ull /* between two looks for attempts without a route */

struct probe {
	struct spanloom *skel;
	struct ring_buffer *ring;
	struct probe_sink sink;
	struct ring_reader reader;
	struct hooks *hooks;
	struct inject *inject;
	struct option *option;
	struct stats *stats;
	uint64_t *ignore; /* mmap of the ignore map */
	uint64_t *drop_scratch;
	uint64_t drops_seen[DROP_KERNEL_COUNT];
	int cpus;
	uint32_t agent_pid;
	struct program_choice choice;
	uint64_t next_routes_ns;
	int consumed; /* by this probe_consume() */
	bool has_more;
	uint32_t propagates; /* set of enum probe_propagate: what works */
	const char *propagates_why;
};

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

/* What is put into calls: whatever of it fails is left out. */
static int propagate(struct probe *p, char **ret_error)
{
	const char *why;

	if (inject_open(p->skel->obj, p->choice.propagate, &p->inject))
		return fail(ret_error, -ENOMEM, "out of memory");
	p->reader.inject = p->inject;
	p->propagates = inject_works(p->inject, &why);
	if (why)
		p->propagates_why = why;
	if (!(p->choice.propagate & PROBE_PROPAGATE_TCP))
		return 0;
	if (option_open(p->skel->obj, &p->option))
		return fail(ret_error, -ENOMEM, "out of memory");
	if (option_works(p->option, &why))
		p->propagates |= PROBE_PROPAGATE_TCP;
	if (why && !p->propagates_why)
		p->propagates_why = why;
	return 0;
}

int probe_open(const struct probe_options *options, const struct probe_sink *sink,
	       struct stats *stats, struct probe **ret, char **ret_error)
{
	struct probe *p;
	int err;

	p = calloc(1, sizeof(*p));
	if (!p)
		return fail(ret_error, -ENOMEM, "out of memory");
	p->sink = *sink;
	p->stats = stats;
	p->agent_pid = options->agent_pid;
	p->reader = (struct ring_reader){ .sink = &p->sink, .stats = stats };
	err = programs_load(options, &p->skel, &p->choice, &p->propagates_why, ret_error);
	if (!err) {
		p->reader.hooks = p->hooks = hooks_new(p->skel->obj, stats);
		if (!p->hooks)
			err = fail(ret_error, -ENOMEM, "out of memory");
	}
	if (!err)
		err = map_memory(p, ret_error);
	if (!err)
		err = programs_attach(p->skel, ret_error);
	if (!err)
		err = propagate(p, ret_error);
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
	inject_close(p->inject);
	option_close(p->option);
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
	if (p->choice.collector == PROBE_COLLECTOR_SOCK && now_ns >= p->next_routes_ns) {
		p->next_routes_ns = now_ns + ROUTES_NS;
		routes_collect(bpf_map__fd(p->skel->maps.unroutable), &p->sink, now_ns);
	}
	return err < 0 && !p->has_more ? err : p->consumed;
}

bool probe_has_more(const struct probe *p)
{
	return p->has_more;
}

static int traced_fd(const struct probe *p)
{
	return bpf_map__fd(p->skel->maps.traced);
}

int probe_trace(struct probe *p, uint32_t pid)
{
	uint32_t flags = TRACED | inject_flags(p->inject, pid);
	int err;

	if (pid == p->agent_pid)
		return -EINVAL;
	__atomic_store_n(&p->skel->bss->traced_hint[pid % TRACED_HINTS], 1, __ATOMIC_RELAXED);
	err = traced_add(traced_fd(p), pid, flags);
	if (err == -EEXIST)
		return 0;
	/* Its exit may have come before: then nobody would take it out, and its number be
	 * another's. */
	if (!err && kill((pid_t)pid, 0) && errno == ESRCH) {
		traced_remove(traced_fd(p), pid);
		return -ESRCH;
	}
	return err;
}

int probe_set_flags(struct probe *p, uint32_t pid, uint32_t flags)
{
	bool aside = flags & (PROBE_SILENT | PROBE_APART);
	uint32_t set = (flags & PROBE_TRUST_CONTEXTS ? TRACED_CONTEXTS : 0) |
		       (flags & PROBE_TRUST_THREADS ? TRACED_THREADS : 0) |
		       (flags & PROBE_SILENT ? TRACED_SILENT : 0) |
		       (flags & PROBE_APART ? TRACED_APART : 0) |
		       (aside ? 0 : inject_flags(p->inject, pid));

	return traced_change(traced_fd(p), pid,
			     TRACED_CONTEXTS | TRACED_THREADS | TRACED_SILENT | TRACED_APART |
				     TRACED_INJECT | TRACED_RINGS,
			     set);
}

int probe_set_service(struct probe *p, uint32_t pid, uint16_t service)
{
	return traced_change(traced_fd(p), pid, ~0u << TRACED_SERVICE_SHIFT,
			     (uint32_t)service << TRACED_SERVICE_SHIFT);
}

uint32_t probe_propagates(const struct probe *p, const char **ret_why)
{
	*ret_why = p->propagates_why;
	return p->propagates;
}

int probe_adopt(struct probe *p, uint32_t pid)
{
	int err = option_adopt(p->option, pid), n = inject_adopt(p->inject, pid);

	return n < 0 || !err ? n : err;
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
	return p->choice.collector == PROBE_COLLECTOR_SOCK ? "sock" : "syscall";
}

const char *const *probe_missing(const struct probe *p)
{
	return p->choice.missing;
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
