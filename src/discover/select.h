/*
 * Which processes are traced: the user's rules, combined as OR. Never a kernel thread, never
 * ourselves, never pid 1 through a port rule. Rules are borrowed from struct options and must
 * outlive the selector; what a process is comes from /proc, what a rule says of it is decided by
 * pure functions.
 */
#ifndef DISCOVER_SELECT_H
#define DISCOVER_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/options.h"
#include "discover/process.h"

struct selector {
	const struct select_rule *rules;
	size_t rule_count;
	char **cgroups; /* owned; for each rule the path within cgroup v2 ("/a/b"), NULL for other
			   kinds */
	char *cgroup_mount; /* owned; where cgroup v2 is mounted, NULL when nowhere */
	int proc_fd;        /* owned */
	uint32_t self_pid;
	bool has_port_rules;
};

/*
 * `cgroup_mount` NULL: found in /proc/self/mountinfo (hybrid mounts too). 0, -ENOMEM, or -errno
 * when /proc can't be opened. The selector is valid for selector_free() either way.
 */
int selector_init(struct selector *s, const struct select_rule *rules, size_t rule_count,
		  const char *cgroup_mount);
void selector_free(struct selector *s);

/*
 * Start-up validation. 0, or with *ret_error (malloc'd, one line: what, why, what to do):
 * -ESRCH  a --pid rule names no process ("no process 1234")
 * -EINVAL a --pid rule names a thread, a kernel thread or ourselves; a --cgroup rule names a
 * directory outside cgroup v2 -ENODEV there are --cgroup rules and no cgroup v2 mount: mount it and
 * call selector_init() again A cgroup that does not exist (yet) is a warning in the log: it may be
 * created later.
 */
int select_check(const struct selector *s, char **ret_error);

/*
 * Calls `found` once for each running process that a rule selects, with the first rule that does. 0
 * or -errno. A process that vanishes midway is left out.
 */
int select_scan(const struct selector *s,
		void (*found)(void *ctx, uint32_t pid, const struct select_rule *why), void *ctx);

/*
 * Does a rule select this process now? For a new program (exec) or a move to another cgroup. Port
 * rules are answered by the sockets it holds (inherited ones: socket activation). `ret_why` may be
 * NULL.
 */
bool select_process(const struct selector *s, uint32_t pid, const struct select_rule **ret_why);

/*
 * Does a rule select process `pid`, which has begun to listen on TCP port `port` (host order)? By
 * rule, port and pid alone. `ret_why` may be NULL.
 */
bool select_port(const struct selector *s, uint32_t pid, uint16_t port,
		 const struct select_rule **ret_why);

/* One rule as the user would write it: "--port 8000-8010". Cut to `bytes`. */
void select_rule_describe(const struct select_rule *rule, char *buf, size_t bytes);

/*
 * Pure: does `rule` select the process by number, executable or cgroup? `cgroup` is the rule's path
 * within cgroup v2 (SELECT_CGROUP only). Port rules: false.
 */
bool select_rule_matches(const struct select_rule *rule, const char *cgroup,
			 const struct process *p);
/* Pure: fnmatch of `glob` on the path, or without '/' in the glob on the base names of path and
 * argv0. */
bool select_glob_matches(const char *glob, const char *exe, const char *argv0);
/* Pure: `path` is `dir` or below it. */
bool select_cgroup_matches(const char *dir, const char *path);
/*
 * Pure: the path within cgroup v2 ("/a/b", malloc'd) of a path as users give it: absolute below
 * `mount` (may be NULL), or relative to it with or without a leading '/'. NULL when out of memory.
 */
char *select_cgroup_path(const char *mount, const char *given);
/* Pure: the mount point of cgroup v2 in a mountinfo text (malloc'd), a mount of the root preferred;
 * NULL: none. */
char *select_cgroup_mount(const char *mountinfo_text);

#endif
