/*
 * Whether the root path of a request is one of the application's settings: an argument of the
 * process (--root-path), a value of its environment, or what FastAPI was made with. Anything may
 * write a scope's root_path, from a header too, and what a client sent must not get into a name.
 * Invariant: true only for a text that was there before the request.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtimes/python_tree.h"

enum { SETTINGS_BYTES_MAX = 1 << 18 };

static bool is_root(const char *text, struct slice root)
{
	size_t n = strlen(text);

	while (n && text[n - 1] == '/')
		n--;
	return n == root.len && memcmp(text, root.data, n) == 0;
}

/* Is it one of the texts in a file of /proc/PID, or behind the '=' of one? */
static bool proc_has(uint32_t pid, const char *file, struct slice root)
{
	char path[48], *all = (char *)malloc(SETTINGS_BYTES_MAX + 1);
	size_t n = 0;
	ssize_t got = 0;
	bool found = false;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/%s", pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (all && fd >= 0 && n < SETTINGS_BYTES_MAX &&
	       (got = read(fd, all + n, SETTINGS_BYTES_MAX - n)) > 0)
		n += (size_t)got;
	if (all)
		all[n] = '\0';
	for (size_t at = 0; at < n && !found; at += strlen(all + at) + 1) {
		const char *value = strchr(all + at, '=');

		found = is_root(all + at, root) || (value && is_root(value + 1, root));
	}
	if (fd >= 0)
		close(fd);
	free(all);
	return found;
}

/* FastAPI is what its router asks for overrides of dependencies. */
static bool application_has(const struct python *p, uint64_t router, struct slice root)
{
	uint64_t app = python_attr(p, router, "dependency_overrides_provider");
	uint64_t str = app ? python_attr(p, app, "root_path") : 0;
	char *text = str ? python_text(p, str) : NULL;
	bool found = text && is_root(text, root);

	free(text);
	return found;
}

bool python_root_is_setting(const struct python *p, uint64_t router, struct slice root)
{
	return application_has(p, router, root) || proc_has(p->base.pid, "cmdline", root) ||
	       proc_has(p->base.pid, "environ", root);
}
