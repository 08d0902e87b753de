#include "attach.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "discover/process.h"

enum { RULE_TEXT_BYTES = 256 };

void attach_free(struct attach *a)
{
	hash_free(&a->traced);
}

size_t attach_count(const struct attach *a)
{
	return a->traced.count;
}

int attach_is_traced(const struct attach *a, uint32_t pid)
{
	return hash_get(&a->traced, pid) != NULL;
}

static const char *exe_name(const struct process *p)
{
	const char *slash = p->exe ? strrchr(p->exe, '/') : NULL;

	return slash && slash[1] ? slash + 1 : p->comm;
}

static void announce(const struct attach *a, uint32_t pid, const struct select_rule *why)
{
	char rule[RULE_TEXT_BYTES] = "its parent is traced";
	struct process p;

	if (why)
		select_rule_describe(why, rule, sizeof(rule));
	if (process_read(a->selector->proc_fd, pid, PROCESS_EXE, &p))
		return;
	log_info("tracing process %u (%s): %s", pid, exe_name(&p), rule);
	process_free(&p);
}

/* True when it was not traced before and is now. */
static int trace(struct attach *a, uint32_t pid, uint32_t parent, const struct select_rule *why)
{
	int err;

	if (attach_is_traced(a, pid) || pid == a->selector->self_pid)
		return 0;
	err = probe_trace(a->probe, pid);
	if (err == -ESRCH)
		return 0;
	if (err) {
		log_warning("process %u can't be traced: %s%s", pid, strerror(-err),
			    err == -E2BIG ? " (raise --max-processes)" : "");
		return 0;
	}
	if (!hash_put(&a->traced, pid, a))
		log_warning("process %u can't be remembered: out of memory", pid);
	if (!a->quiet)
		announce(a, pid, why);
	a->on_trace(a->ctx, pid, parent, false);
	return 1;
}

/* One pass over /proc: traces every process whose parent is traced. Returns how many were new, or
 * -errno. */
static int trace_children(struct attach *a)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	int found = 0;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		struct process p;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		if (process_read(a->selector->proc_fd, (uint32_t)strtoul(entry->d_name, NULL, 10),
				 0, &p))
			continue;
		if (p.parent && attach_is_traced(a, p.parent))
			found += trace(a, p.pid, p.parent, NULL);
		process_free(&p);
	}
	closedir(dir);
	return found;
}

/* Children of the children too: /proc is in order of number, so a pass or two do. */
static int trace_descendants(struct attach *a)
{
	int found;

	do {
		found = trace_children(a);
	} while (found > 0);
	return found;
}

static void on_found(void *ctx, uint32_t pid, const struct select_rule *why)
{
	trace(ctx, pid, 0, why);
}

int attach_scan(struct attach *a)
{
	int err = select_scan(a->selector, on_found, a);

	return err ? err : trace_descendants(a);
}

/*
 * Exits that were lost are found by asking, new processes by a scan. Zombies count as gone: they
 * have no sockets.
 */
void attach_rescan(struct attach *a, void (*gone)(void *ctx, uint32_t pid), void *ctx)
{
	size_t pos = 0;
	uint64_t pid;
	void *value;

	while (hash_next(&a->traced, &pos, &pid, &value)) {
		struct process p;
		int err = process_read(a->selector->proc_fd, (uint32_t)pid, 0, &p);
		bool zombie = !err && p.zombie;

		if (!err)
			process_free(&p);
		if (!err && !zombie)
			continue;
		hash_remove_at(&a->traced, &pos);
		gone(ctx, (uint32_t)pid);
	}
	attach_scan(a);
}

void attach_on_fork(struct attach *a, uint32_t pid, uint32_t parent)
{
	if (!hash_put(&a->traced, pid, a))
		log_warning("process %u can't be remembered: out of memory", pid);
	if (log_get_level() >= LOG_LEVEL_DEBUG)
		announce(a, pid, NULL);
	a->on_trace(a->ctx, pid, parent, true);
}

void attach_on_exit(struct attach *a, uint32_t pid)
{
	hash_remove(&a->traced, pid);
}

void attach_on_change(struct attach *a, uint32_t pid)
{
	const struct select_rule *why;

	if (attach_is_traced(a, pid) || !select_process(a->selector, pid, &why))
		return;
	if (trace(a, pid, 0, why))
		trace_descendants(a);
}

void attach_on_listen(struct attach *a, uint32_t pid, uint16_t port)
{
	const struct select_rule *why;

	if (attach_is_traced(a, pid) || !select_port(a->selector, pid, port, &why))
		return;
	if (trace(a, pid, 0, why))
		trace_descendants(a);
}
