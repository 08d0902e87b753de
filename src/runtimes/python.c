/*
 * The row of CPython: opens a process in the order in which nothing is used before it was checked
 * (the file, its version, the structures, the hooks, then what the modules hold), and hands the
 * rest on to the files that know it. Invariant: a process that was opened passed all checks.
 */
#include "runtimes/python.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtimes/python_internal.h"

enum { VERSION_FIRST = 0x309, VERSION_LAST = 0x30e };

int python_refuse(char **ret_why, const char *format, ...)
{
	va_list args;
	char *why;
	int n;

	if (!ret_why)
		return -EOPNOTSUPP;
	va_start(args, format);
	n = vasprintf(&why, format, args);
	va_end(args);
	if (n < 0)
		return -ENOMEM;
	*ret_why = why;
	return -EOPNOTSUPP;
}

/* PY_VERSION_HEX as text (patchlevel.h): 3.12.1, 3.15.0b2 */
static void version_print(uint32_t hex, char *ret, size_t bytes)
{
	uint32_t level = hex >> 4 & 15, serial = hex & 15;
	const char *name = level == 10 ? "a" : level == 11 ? "b" : level == 12 ? "rc" : "";

	if (*name)
		snprintf(ret, bytes, "%u.%u.%u%s%u", hex >> 24, hex >> 16 & 255, hex >> 8 & 255,
			 name, serial);
	else
		snprintf(ret, bytes, "%u.%u.%u", hex >> 24, hex >> 16 & 255, hex >> 8 & 255);
}

/* The version in the file's name (python3.12, libpython3.12.so.1.0); 0: it has none. */
static uint32_t version_named(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *at = strstr(slash ? slash : path, "python");
	unsigned int major, minor;

	if (!at || sscanf(at, "python%u.%u", &major, &minor) != 2 || major > 255 || minor > 255)
		return 0;
	return major << 8 | minor;
}

/* With the version that is given: offsets, then what the process says. */
static int try_version(struct python *p, uint32_t hex, char **ret_why)
{
	int err;

	p->hex_version = hex;
	version_print(hex, p->base.version, sizeof(p->base.version));
	if (!python_offsets_get(hex >> 16, &p->offsets))
		return python_refuse(ret_why, "CPython %s isn't known, only %u.%u to %u.%u are",
				     p->base.version, VERSION_FIRST >> 8, VERSION_FIRST & 255,
				     VERSION_LAST >> 8, VERSION_LAST & 255);
	err = python_check(p, ret_why);
	if (!err)
		version_print(p->hex_version, p->base.version, sizeof(p->base.version));
	return err;
}

/*
 * From 3.11 on the interpreter has its version in Py_Version. Before, no symbol tells it: the name
 * of the file says which to try first, and sys.hexversion, read with that version's offsets, has to
 * agree.
 */
static int find_version(struct python *p, char **ret_why)
{
	uint64_t at = python_symbol(&p->image, "Py_Version", NULL);
	uint32_t named = version_named(p->image.name), hex = 0;

	if (at) {
		if (!python_read(p, at, &hex, sizeof(hex)))
			return -ESRCH;
		if (named && named != hex >> 16)
			return python_refuse(ret_why,
					     "its file is named CPython %u.%u and says it is "
					     "%u.%u",
					     named >> 8, named & 255, hex >> 24, hex >> 16 & 255);
		return try_version(p, hex, ret_why);
	}
	if (named == VERSION_FIRST || named == VERSION_FIRST + 1)
		return try_version(p, named << 16, ret_why);
	if (named)
		return python_refuse(ret_why, "CPython %u.%u isn't known, only %u.%u to %u.%u are",
				     named >> 8, named & 255, VERSION_FIRST >> 8,
				     VERSION_FIRST & 255, VERSION_LAST >> 8, VERSION_LAST & 255);
	return python_refuse(ret_why,
			     "neither a symbol nor the name of %s tells which CPython it "
			     "is",
			     p->image.name);
}

static void python_free(struct runtime_process *base)
{
	struct python *p = (struct python *)base;

	if (!p)
		return;
	python_route_free(p);
	python_code_free(p);
	for (size_t i = 0; i < base->hook_count; i++)
		free(base->hooks[i].path);
	free(base->hooks);
	python_image_free(&p->image);
	free(p->budget);
	free(p);
}

static int python_open(const struct runtime_options *options, uint32_t pid,
		       struct runtime_process **ret, char **ret_why)
{
	struct python *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->base.runtime = &python_runtime;
	p->base.pid = pid;
	p->options = options;
	err = python_budget_make(p) ? python_image_find(pid, &p->image, ret_why) : -ENOMEM;
	if (!err) {
		p->runtime = python_symbol(&p->image, "_PyRuntime", NULL);
		err = p->runtime
			      ? find_version(p, ret_why)
			      : python_refuse(ret_why, "%s defines no _PyRuntime", p->image.name);
	}
	if (!err)
		err = python_hooks_find(p, ret_why);
	if (err < 0) {
		python_free(&p->base);
		return err;
	}
	python_code_learn(p);
	python_route_keys(p);
	python_budget_end(p);
	*ret = &p->base;
	return 0;
}

static int python_refresh(struct runtime_process *base)
{
	struct python *p = (struct python *)base;
	int found;

	python_budget_begin(p, true);
	if (!python_read(p, p->runtime, &(uint64_t){ 0 }, sizeof(uint64_t)))
		return -ESRCH;
	found = python_hooks_find(p, NULL);
	if (found < 0)
		return found;
	found = python_code_learn(p) || found;
	found = python_route_keys(p) || found;
	python_budget_end(p);
	return found;
}

static bool classify(struct runtime_process *base, uint64_t code, struct code_class *ret)
{
	struct python *p = (struct python *)base;
	bool known;

	python_budget_begin(p, false);
	known = python_classify(base, code, ret);
	return python_budget_end(p) && known;
}

static bool code_info(struct runtime_process *base, uint64_t code, struct runtime_code *ret)
{
	struct python *p = (struct python *)base;
	bool known;

	python_budget_begin(p, false);
	known = python_code_info(base, code, ret);
	return python_budget_end(p) && known;
}

static bool route_info(struct runtime_process *base, const struct runtime_route *route,
		       struct slice *ret_template, struct runtime_code *ret_endpoint)
{
	struct python *p = (struct python *)base;
	bool known;

	python_budget_begin(p, false);
	known = python_route(base, route, ret_template, ret_endpoint);
	return python_budget_end(p) && known;
}

static const struct python_layout *python_layout(const struct runtime_process *base)
{
	return &((const struct python *)base)->layout;
}

const struct runtime python_runtime = {
	.name = "python",
	.open = python_open,
	.free = python_free,
	.refresh = python_refresh,
	.layout = python_layout,
	.known_codes = python_known_codes,
	.classify = classify,
	.code = code_info,
	.route = route_info,
};
