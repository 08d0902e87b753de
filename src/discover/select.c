/*
 * Which processes are traced. The rules' own questions are in select_rule.c, pure; here are /proc,
 * our own pid and the start-up checks. Never selected: kernel threads, zombies, ourselves, and pid
 * 1 through a port rule.
 */
#include "discover/select.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/log.h"
#include "discover/file.h"
#include "discover/listen.h"

enum { OWN_MOUNTINFO_MAX_BYTES = 4 << 20 };

static int resolve_cgroups(struct selector *s)
{
	size_t i;

	s->cgroups = calloc(s->rule_count ? s->rule_count : 1, sizeof(*s->cgroups));
	if (!s->cgroups)
		return -ENOMEM;
	for (i = 0; i < s->rule_count; i++) {
		s->has_port_rules |= s->rules[i].kind == SELECT_PORT;
		if (s->rules[i].kind != SELECT_CGROUP)
			continue;
		s->cgroups[i] = select_cgroup_path(s->cgroup_mount, s->rules[i].text);
		if (!s->cgroups[i])
			return -ENOMEM;
	}
	return 0;
}

int selector_init(struct selector *s, const struct select_rule *rules, size_t rule_count,
		  const char *cgroup_mount)
{
	char *mounts;

	*s = (struct selector){ .rules = rules, .proc_fd = -1, .self_pid = (uint32_t)getpid() };
	s->proc_fd = process_open_proc();
	if (s->proc_fd < 0)
		return s->proc_fd;
	s->rule_count = rule_count;
	if (cgroup_mount) {
		s->cgroup_mount = strdup(cgroup_mount);
		if (!s->cgroup_mount)
			return -ENOMEM;
	} else if (file_read_at(s->proc_fd, "self/mountinfo", OWN_MOUNTINFO_MAX_BYTES, &mounts,
				NULL) == 0) {
		s->cgroup_mount = select_cgroup_mount(mounts);
		free(mounts);
	}
	return resolve_cgroups(s);
}

void selector_free(struct selector *s)
{
	for (size_t i = 0; s->cgroups && i < s->rule_count; i++)
		free(s->cgroups[i]);
	free(s->cgroups);
	free(s->cgroup_mount);
	if (s->proc_fd >= 0)
		close(s->proc_fd);
	*s = (struct selector){ .proc_fd = -1 };
}

static int check_pid(const struct selector *s, uint32_t pid, char **ret_error)
{
	struct process p;
	uint32_t tgid;
	int err = process_thread_group(s->proc_fd, pid, &tgid);

	if (!err)
		err = process_read(s->proc_fd, pid, 0, &p);
	if (err == -ESRCH || (!err && p.zombie))
		return fail(ret_error, -ESRCH, "no process %u", pid);
	if (err)
		return fail(ret_error, err, "cannot look at process %u: %s", pid, strerror(-err));
	if (tgid != pid)
		return fail(ret_error, -EINVAL, "%u is a thread of process %u: use --pid %u", pid,
			    tgid, tgid);
	if (pid == s->self_pid)
		return fail(ret_error, -EINVAL,
			    "--pid %u is spanloom itself, which it never traces", pid);
	if (p.kernel_thread)
		return fail(ret_error, -EINVAL,
			    "process %u (%s) is a kernel thread: there is nothing to trace", pid,
			    p.comm);
	return 0;
}

static bool is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int check_cgroup(const struct selector *s, size_t index, char **ret_error)
{
	const char *given = s->rules[index].text;
	char *full;
	bool exists;

	if (!s->cgroup_mount)
		return fail(ret_error, -ENODEV,
			    "--cgroup %s needs cgroup v2, which is mounted nowhere: mount -t "
			    "cgroup2 none "
			    "/sys/fs/cgroup/unified (or another directory) and start again",
			    given);
	if (asprintf(&full, "%s%s", s->cgroup_mount, s->cgroups[index]) < 0)
		return fail(ret_error, -ENOMEM, "out of memory");
	exists = is_directory(full);
	free(full);
	if (exists)
		return 0;
	if (given[0] == '/' && is_directory(given))
		return fail(
			ret_error, -EINVAL,
			"--cgroup %s is not in the cgroup v2 hierarchy, which is mounted at %s; "
			"the v2 path of a process stands in /proc/PID/cgroup behind 0::",
			given, s->cgroup_mount);
	log_warning("no cgroup %s below %s yet: its processes are traced when it is made",
		    s->cgroups[index], s->cgroup_mount);
	return 0;
}

int select_check(const struct selector *s, char **ret_error)
{
	for (size_t i = 0; i < s->rule_count; i++) {
		int err = 0;

		if (s->rules[i].kind == SELECT_PID)
			err = check_pid(s, s->rules[i].pid, ret_error);
		else if (s->rules[i].kind == SELECT_CGROUP)
			err = check_cgroup(s, i, ret_error);
		if (err)
			return err;
	}
	return 0;
}

static unsigned int needed_parts(const struct selector *s)
{
	unsigned int parts = 0;

	for (size_t i = 0; i < s->rule_count; i++) {
		if (s->rules[i].kind == SELECT_EXE)
			parts |= PROCESS_EXE | PROCESS_ARGV0;
		else if (s->rules[i].kind == SELECT_CGROUP)
			parts |= PROCESS_CGROUP;
	}
	return parts;
}

struct port_question {
	const struct selector *selector;
	uint32_t pid;
	const struct select_rule *why;
};

static bool port_wanted(void *ctx, uint16_t port)
{
	struct port_question *q = ctx;

	return select_port(q->selector, q->pid, port, &q->why);
}

static const struct select_rule *find_rule(const struct selector *s, uint32_t pid,
					   unsigned int parts, struct listeners *listeners)
{
	struct port_question question = { .selector = s, .pid = pid };
	const struct select_rule *why = NULL;
	struct process p;

	if (pid == s->self_pid || process_read(s->proc_fd, pid, parts, &p))
		return NULL;
	if (p.kernel_thread || p.zombie) {
		process_free(&p);
		return NULL;
	}
	for (size_t i = 0; i < s->rule_count && !why; i++) {
		if (select_rule_matches(&s->rules[i], s->cgroups[i], &p))
			why = &s->rules[i];
	}
	process_free(&p);
	if (!why && s->has_port_rules && pid != 1 &&
	    listeners_any(listeners, s->proc_fd, pid, port_wanted, &question))
		why = question.why;
	return why;
}

int select_scan(const struct selector *s,
		void (*found)(void *ctx, uint32_t pid, const struct select_rule *why), void *ctx)
{
	int fd = openat(s->proc_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned int parts = needed_parts(s);
	struct listeners listeners = { 0 };
	struct dirent *entry;
	DIR *dir;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		int err = -errno;

		close(fd);
		return err;
	}
	while ((entry = readdir(dir))) {
		const struct select_rule *why;
		unsigned long pid;
		char *end;

		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		pid = strtoul(entry->d_name, &end, 10);
		if (*end)
			continue;
		why = find_rule(s, (uint32_t)pid, parts, &listeners);
		if (why)
			found(ctx, (uint32_t)pid, why);
	}
	closedir(dir);
	listeners_free(&listeners);
	return 0;
}

bool select_process(const struct selector *s, uint32_t pid, const struct select_rule **ret_why)
{
	struct listeners listeners = { 0 };
	const struct select_rule *why = find_rule(s, pid, needed_parts(s), &listeners);

	listeners_free(&listeners);
	if (why && ret_why)
		*ret_why = why;
	return why != NULL;
}

bool select_port(const struct selector *s, uint32_t pid, uint16_t port,
		 const struct select_rule **ret_why)
{
	if (pid == 1 || pid == s->self_pid)
		return false;
	for (size_t i = 0; i < s->rule_count; i++) {
		const struct select_rule *rule = &s->rules[i];

		if (rule->kind != SELECT_PORT || port < rule->port_low || port > rule->port_high)
			continue;
		if (ret_why)
			*ret_why = rule;
		return true;
	}
	return false;
}
