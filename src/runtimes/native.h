/*
 * Native functions that are custom spans: finds the file that a rule means among those that a
 * process maps, the function in its symbol tables, and the places where the function is entered and
 * left. It refuses a function whose ends it can't know: all of its places are given, or none.
 */
#ifndef RUNTIMES_NATIVE_H
#define RUNTIMES_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * `where`: "libz.so" is any mapped file of this base name, with or without a version behind it
 * (libz.so.1.2.13); with a '/' it is a path, or its end. NULL: a rule of another kind. Borrowed.
 */
struct native_rule {
	const char *where, *symbol;
};

struct native_place {
	const char *path; /* as we can open it; borrowed for the call */
	uint64_t offset;  /* into the file */
	bool exit;        /* else the entry, which comes behind all exits of the function */
	uint32_t rule;
};

struct native_sink {
	/* 0, or -errno: the rest of this function's places is left out. */
	int (*place)(void *ctx, const struct native_place *place);
	/* A rule that can't be kept in `file` (as the process sees it), once for each file. */
	void (*problem)(void *ctx, uint32_t rule, const char *file, const char *why);
	void *ctx;
};

struct native;
struct native_process;

/* `rules` is borrowed. NULL when out of memory. */
struct native *native_new(const struct native_rule *rules, size_t count);
/* Takes NULL; after all of its processes. */
void native_free(struct native *n);

struct native_process *native_process_new(struct native *n, uint32_t pid);
void native_process_free(struct native_process *p);
/* What the process maps that was not there at the last look. 0 or -errno (-ESRCH, -ENOENT: it is
 * gone). */
int native_process_look(struct native_process *p, const struct native_sink *sink);

#endif
