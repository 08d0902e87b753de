/*
 * Which mapped files a rule means, each looked at once for each process; what is wrong with a rule
 * in a file is told once for all processes.
 */
#include "runtimes/native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "runtimes/native_elf.h"

enum { FILES_MAX = 1024 }; /* that match, of one process; and that something was said of */

struct native {
	const struct native_rule *rules;
	size_t count;
	struct hash told; /* file and rule */
};

struct native_process {
	struct native *native;
	uint32_t pid;
	struct hash seen; /* files that a rule matched */
};

/* An executable mapping. */
struct mapping {
	uint64_t begin, end, inode;
	unsigned int dev_major, dev_minor;
	char *name; /* as the process sees it */
	bool deleted;
};

struct native *native_new(const struct native_rule *rules, size_t count)
{
	struct native *n = calloc(1, sizeof(*n));

	if (n)
		*n = (struct native){ .rules = rules, .count = count };
	return n;
}

void native_free(struct native *n)
{
	if (!n)
		return;
	hash_free(&n->told);
	free(n);
}

struct native_process *native_process_new(struct native *n, uint32_t pid)
{
	struct native_process *p = calloc(1, sizeof(*p));

	if (p)
		*p = (struct native_process){ .native = n, .pid = pid };
	return p;
}

void native_process_free(struct native_process *p)
{
	if (!p)
		return;
	hash_free(&p->seen);
	free(p);
}

/* --- which files --- */

/* A line of /proc/PID/maps; the name is inside of it. False: not code of a file. */
static bool parse_mapping(char *line, struct mapping *ret)
{
	static const char deleted[] = " (deleted)";
	char protection[5];
	size_t len;
	int at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64 " %n", &ret->begin,
		   &ret->end, protection, &ret->dev_major, &ret->dev_minor, &ret->inode, &at) < 6 ||
	    !at || protection[2] != 'x' || line[at] != '/')
		return false;
	ret->name = line + at;
	len = strcspn(ret->name, "\n");
	ret->deleted = len > sizeof(deleted) - 1 && memcmp(ret->name + len - (sizeof(deleted) - 1),
							   deleted, sizeof(deleted) - 1) == 0;
	ret->name[ret->deleted ? len - (sizeof(deleted) - 1) : len] = 0;
	return true;
}

/* The file as we can open it. */
static int file_path(uint32_t pid, const struct mapping *m, char **ret)
{
	int n = m->deleted ? asprintf(ret, "/proc/%u/map_files/%" PRIx64 "-%" PRIx64, pid, m->begin,
				      m->end)
			   : asprintf(ret, "/proc/%u/root%s", pid, m->name);

	return n < 0 ? -ENOMEM : 0;
}

/* Do both names lead to one file, as links do? */
static bool same_file(uint32_t pid, const char *name, const char *where)
{
	struct stat a, b;
	char *x = NULL, *y = NULL;
	bool same;

	same = asprintf(&x, "/proc/%u/root%s", pid, name) >= 0 &&
	       asprintf(&y, "/proc/%u/root%s", pid, where) >= 0 && stat(x, &a) == 0 &&
	       stat(y, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
	free(x);
	free(y);
	return same;
}

static bool matches(uint32_t pid, const char *where, const char *name)
{
	size_t len = strlen(where), name_len = strlen(name);
	const char *base;

	if (*where == '/')
		return strcmp(where, name) == 0 || same_file(pid, name, where);
	if (strchr(where, '/'))
		return name_len > len && name[name_len - len - 1] == '/' &&
		       strcmp(name + name_len - len, where) == 0;
	base = strrchr(name, '/') + 1;
	return strncmp(base, where, len) == 0 && (!base[len] || base[len] == '.');
}

/* --- what is in them --- */

static uint64_t file_key(const struct mapping *m)
{
	return m->inode * 0x9e3779b97f4a7c15ull ^ ((uint64_t)m->dev_major << 20 ^ m->dev_minor);
}

static void tell(struct native *n, const struct mapping *m, uint32_t rule, const char *why,
		 const struct native_sink *sink)
{
	uint64_t key = file_key(m) * 31 + rule;

	if (hash_get(&n->told, key) || n->told.count >= FILES_MAX)
		return;
	hash_put(&n->told, key, n);
	sink->problem(sink->ctx, rule, m->name, why);
}

/* Exits first: where one of them can't be probed, the entry must not be. */
static void give_places(const char *path, uint32_t rule, const struct native_function *f,
			const struct native_sink *sink)
{
	struct native_place place = { .path = path, .rule = rule, .exit = true };

	for (size_t i = 0; i < f->exit_count; i++) {
		place.offset = f->exits[i];
		if (sink->place(sink->ctx, &place))
			return;
	}
	place.exit = false;
	place.offset = f->entry;
	sink->place(sink->ctx, &place);
}

static int look_at(struct native_process *p, const struct mapping *m, uint32_t rule,
		   const struct native_sink *sink)
{
	struct native_function *f = malloc(sizeof(*f));
	const char *why = NULL;
	char *path = NULL;
	int err = f ? file_path(p->pid, m, &path) : -ENOMEM;

	if (!err) {
		if (native_function_find(path, p->native->rules[rule].symbol, f, &why))
			tell(p->native, m, rule, why, sink);
		else
			give_places(path, rule, f, sink);
	}
	free(path);
	free(f);
	return err;
}

static int look_at_mapping(struct native_process *p, const struct mapping *m,
			   const struct native_sink *sink)
{
	bool any = false;
	int err = 0;

	if (hash_get(&p->seen, file_key(m)) || p->seen.count >= FILES_MAX)
		return 0;
	for (size_t i = 0; i < p->native->count && !err; i++) {
		const char *where = p->native->rules[i].where;

		if (!where || !matches(p->pid, where, m->name))
			continue;
		any = true;
		err = look_at(p, m, (uint32_t)i, sink);
	}
	if (any && !hash_put(&p->seen, file_key(m), p))
		err = -ENOMEM;
	return err;
}

int native_process_look(struct native_process *p, const struct native_sink *sink)
{
	char path[32], *line = NULL;
	struct mapping m;
	size_t cap = 0;
	FILE *maps;
	int err = 0;

	snprintf(path, sizeof(path), "/proc/%u/maps", p->pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!err && getline(&line, &cap, maps) > 0) {
		if (parse_mapping(line, &m))
			err = look_at_mapping(p, &m, sink);
	}
	free(line);
	fclose(maps);
	return err;
}
