/*
 * Machine code of a process as its files have it: without the probes that sit in it. Whose it is,
 * and what it calls. Behind python_hooks.c and python_copies.c.
 */
#ifndef RUNTIMES_PYTHON_FUNCTION_H
#define RUNTIMES_PYTHON_FUNCTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtimes/python_internal.h"

enum {
	PYTHON_CODE_BYTES = 2048, /* of a function whose size isn't known */
	PYTHON_TEXT_WINDOWS = 8,
};

struct python_function {
	const char *name;       /* borrowed */
	uint64_t address, size; /* size 0: not known */
	char *path;             /* as we can open it, owned */
	uint64_t offset;        /* into the file */
	uint8_t code[PYTHON_CODE_BYTES];
	size_t length;
};

/* 0 or -errno; to be freed in either case. */
int python_function_read(const struct python *p, const char *name, uint64_t address, uint64_t size,
			 struct python_function *ret);
void python_function_free(struct python_function *f);
/* Does the function call the one at `target`, directly or by way of the procedure linkage, or end
 * in it? */
bool python_function_leads_to(const struct python *p, const struct python_function *f,
			      uint64_t target, const char *symbol);
/* Is the address in the interpreter's own file? */
bool python_is_inside(const struct python *p, uint64_t address);

/* Windows of the text around what was asked for, the oldest replaced. Zeroed, with `python` set. */
struct python_text {
	const struct python *python;
	struct python_function windows[PYTHON_TEXT_WINDOWS];
	size_t next;
};

void python_text_free(struct python_text *t);
/* A disasm_fetch_fn; ctx is a struct python_text. */
const uint8_t *python_text_fetch(void *ctx, uint64_t address, size_t *ret_len);

#endif
