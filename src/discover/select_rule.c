/*
 * What a single rule says, and how paths of cgroups are read: pure functions, no /proc.
 */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discover/file.h"
#include "discover/select.h"

bool select_glob_matches(const char *glob, const char *exe, const char *argv0)
{
	if (strchr(glob, '/'))
		return *exe && fnmatch(glob, exe, 0) == 0;
	return (*exe && fnmatch(glob, path_base(exe), 0) == 0) ||
	       (*argv0 && fnmatch(glob, path_base(argv0), 0) == 0);
}

bool select_cgroup_matches(const char *dir, const char *path)
{
	size_t len = strlen(dir);

	if (!*path)
		return false;
	if (strcmp(dir, "/") == 0)
		return true;
	return strncmp(dir, path, len) == 0 && (!path[len] || path[len] == '/');
}

bool select_rule_matches(const struct select_rule *rule, const char *cgroup,
			 const struct process *p)
{
	switch (rule->kind) {
	case SELECT_PID:
		return rule->pid == p->pid;
	case SELECT_EXE:
		return select_glob_matches(rule->text, p->exe, p->argv0);
	case SELECT_CGROUP:
		return select_cgroup_matches(cgroup, p->cgroup);
	case SELECT_PORT:
		break;
	}
	return false;
}

/* Below `mount` or the mount itself? Its rest, else NULL. */
static const char *below(const char *mount, const char *path)
{
	size_t len = strlen(mount);

	while (len && mount[len - 1] == '/')
		len--;
	if (strncmp(mount, path, len) != 0 || (path[len] && path[len] != '/'))
		return NULL;
	return path + len;
}

char *select_cgroup_path(const char *mount, const char *given)
{
	const char *rest = mount && *given == '/' ? below(mount, given) : NULL;
	char *path, *to;

	if (!rest)
		rest = given;
	path = malloc(strlen(rest) + 2);
	if (!path)
		return NULL;
	to = path;
	while (*rest) {
		size_t len = strcspn(rest, "/");

		if (len && !(len == 1 && *rest == '.')) {
			*to++ = '/';
			memcpy(to, rest, len);
			to += len;
		}
		rest += len + (rest[len] == '/');
	}
	if (to == path)
		*to++ = '/';
	*to = 0;
	return path;
}

/* mountinfo writes blanks, newlines and backslashes in paths as \ooo. */
static void unescape(char *path)
{
	char *to = path;

	while (*path) {
		if (path[0] == '\\' && path[1] >= '0' && path[1] <= '3' && path[2] >= '0' &&
		    path[2] <= '7' && path[3] >= '0' && path[3] <= '7') {
			*to++ = (char)((path[1] - '0') << 6 | (path[2] - '0') << 3 |
				       (path[3] - '0'));
			path += 4;
		} else {
			*to++ = *path++;
		}
	}
	*to = 0;
}

/* proc_pid_mountinfo(5): id parent device root point options [optional…] - type source options */
static char *parse_mount(char *line, bool *ret_whole)
{
	char *fields[5], *type = strstr(line, " - "), *save = NULL;
	size_t i;

	if (!type || strncmp(type + 3, "cgroup2 ", 8) != 0)
		return NULL;
	for (i = 0; i < 5; i++) {
		fields[i] = strtok_r(i ? NULL : line, " ", &save);
		if (!fields[i])
			return NULL;
	}
	unescape(fields[4]);
	*ret_whole = strcmp(fields[3], "/") == 0;
	return fields[4];
}

char *select_cgroup_mount(const char *mountinfo_text)
{
	char *text = strdup(mountinfo_text), *best = NULL, *line, *save = NULL;
	bool whole = false;

	if (!text)
		return NULL;
	for (line = strtok_r(text, "\n", &save); line && !whole;
	     line = strtok_r(NULL, "\n", &save)) {
		char *point = parse_mount(line, &whole);

		if (!point || (best && !whole))
			continue;
		free(best);
		best = strdup(point);
	}
	free(text);
	return best;
}

void select_rule_describe(const struct select_rule *rule, char *buf, size_t bytes)
{
	switch (rule->kind) {
	case SELECT_PID:
		snprintf(buf, bytes, "--pid %u", rule->pid);
		break;
	case SELECT_EXE:
		snprintf(buf, bytes, "--exe %s", rule->text);
		break;
	case SELECT_CGROUP:
		snprintf(buf, bytes, "--cgroup %s", rule->text);
		break;
	case SELECT_PORT:
		if (rule->port_low == rule->port_high)
			snprintf(buf, bytes, "--port %u", rule->port_low);
		else
			snprintf(buf, bytes, "--port %u-%u", rule->port_low, rule->port_high);
		break;
	}
}
