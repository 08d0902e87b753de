/*
 * What a language runtime gives to the agent: a table of functions. It reads a live process (never
 * writes to it), says where probes go and what the kernel side must know, and turns addresses that
 * the kernel side reports into names. The table of all runtimes is runtimes.c.
 *
 * Invariant: nothing is given out that was not checked against the process itself. A runtime that
 * does not match is refused with one sentence that says why; nothing of it is used then.
 */
#ifndef RUNTIMES_RUNTIME_H
#define RUNTIMES_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/io.h"
#include "base/slice.h"

struct python_layout;
struct code_class;

/* Which functions are custom spans; the index is the rule's number. Borrowed. */
struct runtime_span_rule {
	const char *where;    /* module, or file that ends with .py (compared from its end); NULL: a
				 rule of another runtime */
	const char *function; /* qualified name */
};

struct runtime_options {
	const struct runtime_span_rule *spans;
	size_t span_count;
};

enum runtime_hook_kind {
	RUNTIME_HOOK_CONTEXT_COPY, /* at a return */
	RUNTIME_HOOK_CONTEXT_RAX,  /* where the new one is in this register, or 0 */
	RUNTIME_HOOK_CONTEXT_RBX,
	RUNTIME_HOOK_LATE_WRITE,
	RUNTIME_HOOK_SUBMIT,
};

/* A place where a probe goes. */
struct runtime_hook {
	enum runtime_hook_kind kind;
	char *path;      /* as we can open it: /proc/PID/root/… */
	uint64_t offset; /* into the file */
	bool at_return;
	bool required;    /* without it the runtime's links can't be trusted */
	bool attached;    /* the agent's own mark */
	const char *name; /* static */
};

/* Where code is; borrowed from the process until it is freed or asked again. */
struct runtime_code {
	struct slice function, file;
	uint32_t line;
};

/* One process's runtime. Owned by the caller of open. */
struct runtime_process {
	const struct runtime *runtime;
	uint32_t pid;
	char version[32]; /* "3.12.1" */
	struct runtime_hook *hooks;
	size_t hook_count;
	const char *note; /* for the log: what can't be seen of it; NULL: nothing. Static. */
	bool cut;         /* it has more than is read of a process: not all of it is known */
};

typedef void (*runtime_code_fn)(void *ctx, uint64_t code, const struct code_class *class_);

struct runtime {
	const char *name; /* "python", as in process.runtime.name */
	/*
	 * Does the process run this, and can it be trusted? 0: *ret, which borrows the options.
	 * -ENOENT: it doesn't run it. -EAGAIN: not yet, it starts. -ESRCH: it is gone. -EOPNOTSUPP:
	 * it does but isn't supported or doesn't match; *ret_why (malloc'd) says so in a sentence
	 * without its end.
	 */
	int (*open)(const struct runtime_options *options, uint32_t pid,
		    struct runtime_process **ret, char **ret_why);
	void (*free)(struct runtime_process *p); /* takes NULL */
	/*
	 * Looks again: what was loaded since (hooks are added behind the ones that are there, code
	 * is classified, keys are learnt). Returns 1 when anything is new, 0, or -errno.
	 */
	int (*refresh)(struct runtime_process *p);
	/* What the kernel side must know; borrowed, changes only in refresh. */
	const struct python_layout *(*layout)(const struct runtime_process *p);
	/* Every code object that is known to matter. */
	void (*known_codes)(struct runtime_process *p, runtime_code_fn fn, void *ctx);
	/* What this one means. False: it can't be read (any more). */
	bool (*classify)(struct runtime_process *p, uint64_t code, struct code_class *ret);
	/* Cached by address. False: not known. */
	bool (*code)(struct runtime_process *p, uint64_t code, struct runtime_code *ret);
	/* The template of a route, empty when none matched, and the endpoint (line 0: not known).
	 */
	bool (*route)(struct runtime_process *p, const struct runtime_route *route,
		      struct slice *ret_template, struct runtime_code *ret_endpoint);
};

extern const struct runtime *const runtimes_all[]; /* NULL-terminated */

/* The first runtime that knows the process; errors as open's, -ENOENT when none does. */
int runtime_open(const struct runtime_options *options, uint32_t pid, struct runtime_process **ret,
		 char **ret_why);
void runtime_free(struct runtime_process *p);

#endif
