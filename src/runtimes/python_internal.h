/*
 * What the files behind the Python row of runtimes.c share: python.c is the row, python_image.c
 * finds the interpreter and its symbols in the process, python_offsets.c knows the versions,
 * python_check.c compares them with the live process, python_hooks.c finds the places to probe
 * (python_copies.c those where contexts are made, python_function.c reads the machine code),
 * python_object.c reads objects, python_code.c names and classifies code, python_route.c reads
 * routes. Invariant: every address comes from the process and may be wrong by the time it is read:
 * each read can fail, each length and count is bounded.
 */
#ifndef RUNTIMES_PYTHON_INTERNAL_H
#define RUNTIMES_PYTHON_INTERNAL_H

#include "base/buf.h"
#include "base/hash.h"
#include "python_layout.h"
#include "runtimes/runtime.h"

/* What user space alone needs of a version (PYTHON_NONE: it has none). Bytes. */
struct python_offsets {
	uint32_t version; /* major << 8 | minor */
	/* runtime and interpreter state */
	uint32_t runtime_initialized, runtime_interpreters, runtime_tss_key;
	uint32_t interp_next, interp_threads, interp_modules;
	uint16_t tstate_next, tstate_interp, tstate_native_thread_id;
	/* objects */
	uint16_t str_ascii, str_compact; /* where the characters begin */
	uint16_t type_name, type_flags, type_basicsize, type_dict, type_dictoffset, type_methods,
		type_new, type_cached_keys;
	uint16_t code_filename, code_name, code_qualname, code_firstlineno, code_argcount,
		code_consts;
	uint16_t function_code, function_module, function_globals;
	uint16_t context_size;
	struct python_layout layout; /* the version's part of it */
};

struct python_image {
	char *path;    /* /proc/PID/root/… as we can open it */
	char *name;    /* the path as the process sees it */
	uint64_t bias; /* address = symbol's value + bias */
	uint64_t base; /* where it is mapped */
};

struct python {
	struct runtime_process base; /* first: the row's functions cast */
	const struct runtime_options *options;
	struct python_image image; /* where the interpreter is: executable or libpython */
	struct python_offsets offsets;
	struct python_layout layout; /* what the kernel side gets */
	uint64_t runtime, interp;    /* addresses: _PyRuntime, the main interpreter's state */
	uint64_t code_type, context_type, str_type, dict_type, tuple_type, module_type; /* types */
	uint32_t hex_version;         /* Py_Version or PY_VERSION_HEX */
	struct hash codes;            /* address → cached struct runtime_code; python_code.c */
	size_t code_bytes;            /* of their texts */
	struct hash routes;           /* address → cached template; python_route.c */
	struct python_budget *budget; /* NULL: reads without end */
	struct python_places *places; /* files and modules; python_place.c */
	struct python_known *known;   /* functions that matter; python_known.c */
	bool uvloop_known;            /* looked at: where it writes late, or that it does not */
	bool keys_known;              /* all of them */
	uint64_t keys_modules;        /* how many modules there were when they were looked for */
	bool copies_known;            /* where contexts are made */
	bool copy_context_known;      /* whether contextvars.copy_context needs a hook of its own */
	bool asyncio_known;           /* that asyncio's C part copies contexts where hooks are */
};

/* python.c: gives the sentence that says why (malloc'd) and -EOPNOTSUPP, or -ENOMEM. */
int python_refuse(char **ret_why, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* python_budget.c: how much of a process is read. */
/* False when out of memory. */
bool python_budget_make(struct python *p);
/* Before each question that the row answers. `look`: one that comes by time, which can always read
 * what it needs of a process that is not out to keep us. */
void python_budget_begin(struct python *p, bool look);
/* False: spent. */
bool python_budget_take(const struct python *p, size_t reads);
bool python_budget_spent(const struct python *p);
/* Behind it: false, and the process is marked as cut, when they were spent. */
bool python_budget_end(struct python *p);

/* python_image.c */
/* A line of /proc/PID/maps. */
struct python_mapping {
	uint64_t start, end, offset, inode;
	const char *name; /* as the process sees it, " (deleted)" cut off; borrowed */
};
/* Calls fn for each mapping of a file until it returns false. 0 or -errno. */
typedef bool (*python_mapping_fn)(void *ctx, const struct python_mapping *m);
int python_mappings(uint32_t pid, python_mapping_fn fn, void *ctx);
/* The file of a mapping as an image, when the mapping is of its beginning. 0 or -errno. */
int python_image_open(uint32_t pid, const struct python_mapping *m, struct python_image *ret);

/* Finds the mapped interpreter. 0; -ENOENT: none; -EAGAIN: it is being loaded; -ESRCH; -EOPNOTSUPP
 * with *ret_why: a program that embeds Python, PyPy, a build without GIL. */
int python_image_find(uint32_t pid, struct python_image *ret, char **ret_why);
void python_image_free(struct python_image *image);
/* A symbol of .dynsym or .symtab: its address in the process. 0 when absent. */
uint64_t python_symbol(const struct python_image *image, const char *name, uint64_t *ret_size);
/* Is this address of the image where it keeps the address of a symbol, filled or not yet? */
bool python_slot_is(const struct python_image *image, uint64_t slot, const char *symbol);
/* The mapped file that holds `address`, and where in it: malloc'd path as we can open it. 0 or
 * -errno. */
int python_locate(uint32_t pid, uint64_t address, char **ret_path, uint64_t *ret_offset);

/* python_offsets.c */
/* False: this version isn't known. */
bool python_offsets_get(uint32_t version, struct python_offsets *ret);

/* python_check.c */
/* Compares `p` (image, hex_version, offsets) with the live process and fills the rest of it:
 * addresses, TLS key and form. 0, -EAGAIN, -ESRCH, or -EOPNOTSUPP with *ret_why. */
int python_check(struct python *p, char **ret_why);

/* python_debug.c: compares the offsets with those that the process itself tells from 3.13 on. 0,
 * -ESRCH, -EOPNOTSUPP with *ret_why. */
int python_debug_check(const struct python *p, char **ret_why);

/* python_hooks.c */
/* Adds the hooks that can be found now and are not in p->base.hooks yet. 1: there are new ones, 0,
 * -errno; -EOPNOTSUPP with *ret_why (may be NULL) when a required one can't be found. */
int python_hooks_find(struct python *p, char **ret_why);
/* One more, where it isn't there yet; the path is copied. 0, -E2BIG, -ENOMEM. */
int python_hook_add(struct python *p, const struct runtime_hook *hook);

/* python_copies.c: the part of python_hooks_find() for the ways to make a Context. 0 or as there.
 */
int python_copies_find(struct python *p, char **ret_why);

/* python_object.c: reading objects. False or 0: it could not be read or isn't of that kind. */
bool python_read(const struct python *p, uint64_t address, void *ret, size_t bytes);
uint64_t python_pointer(const struct python *p, uint64_t address);
/* A str of one-byte characters or UTF-8-able content, at most `limit` bytes, appended to b. */
bool python_str(const struct python *p, uint64_t object, struct buf *b, size_t limit);
bool python_str_equals(const struct python *p, uint64_t object, const char *text);
/* The value of a str key in a dict; 0: absent. */
uint64_t python_dict_get(const struct python *p, uint64_t dict, const char *key);
/* Calls fn for each item until it returns false. At most 65536 items. */
typedef bool (*python_item_fn)(void *ctx, uint64_t key, uint64_t value);
bool python_dict_each(const struct python *p, uint64_t dict, python_item_fn fn, void *ctx);
/* An attribute of the instance itself (its dict, its inline values or a slot). */
uint64_t python_attr(const struct python *p, uint64_t object, const char *name);
/* Number of attribute `name` among the cached keys of instances of `type`; -1: none. */
int python_attr_index(const struct python *p, uint64_t type, const char *name);
bool python_type_name(const struct python *p, uint64_t object, char *ret, size_t bytes);
/* Of tuples: their length (at most 4096) and an item. */
size_t python_tuple_length(const struct python *p, uint64_t tuple);
uint64_t python_tuple_item(const struct python *p, uint64_t tuple, size_t i);
/* A module of sys.modules by its full name, and something in its namespace. */
uint64_t python_module(const struct python *p, const char *name);
uint64_t python_module_get(const struct python *p, uint64_t module, const char *name);
/* The C function behind method `name` in tp_methods of a type; 0: none. */
uint64_t python_c_method(const struct python *p, uint64_t type, const char *name);

/* python_arguments.c: bit i for each of the first locals of a code object that is an argument which
 * it never assigns: it tells calls apart. 0: none, or it can't be told. */
uint32_t python_arguments(const struct python *p, uint64_t code);

/* python_code.c */
/* Looks for what p's modules hold that matters: known_codes. True when there is more than before.
 */
bool python_code_learn(struct python *p);
void python_known_codes(struct runtime_process *p, runtime_code_fn fn, void *ctx);
bool python_classify(struct runtime_process *p, uint64_t code, struct code_class *ret);
bool python_code_info(struct runtime_process *p, uint64_t code, struct runtime_code *ret);
/* The code object of a Python function (through functools.partial and bound methods); 0: none. */
uint64_t python_function_code(const struct python *p, uint64_t function);
void python_code_free(struct python *p);

/* python_route.c */
/* Looks for the interned strings that are keys of a scope, after imports; true when it found any
 * that were not known before. */
bool python_route_keys(struct python *p);
bool python_route(struct runtime_process *p, const struct runtime_route *route,
		  struct slice *ret_template, struct runtime_code *ret_endpoint);
void python_route_free(struct python *p);

#endif
