/*
 * What python_object.c, python_dict.c, python_code.c and python_route.c have between themselves,
 * beyond python_internal.h: more kinds of objects, and the module names of files. The same
 * invariant: everything is read from a process that runs on meanwhile, so every read can fail and
 * every length is bounded.
 */
#ifndef RUNTIMES_PYTHON_OBJECT_H
#define RUNTIMES_PYTHON_OBJECT_H

#include "runtimes/python_internal.h"

enum {
	PYTHON_TEXT_MAX = 4096,  /* bytes of a file name or a path template */
	PYTHON_MRO_MAX = 64,     /* classes that an instance has */
	PYTHON_OBJECT_TYPE = 8,  /* ob_type */
	PYTHON_OBJECT_SIZE = 16, /* ob_size of var-sized objects */
	PYTHON_WRAPPED = 16,     /* what functools.partial, bound, static and class methods hold */
};

/* Kinds of objects that their class's tp_flags tell (object.h, Py_TPFLAGS_*_SUBCLASS). */
enum python_subclass {
	PYTHON_LIST = 1 << 25,
	PYTHON_TUPLE = 1 << 26,
	PYTHON_STR = 1 << 28,
	PYTHON_DICT = 1 << 29,
	PYTHON_TYPE = (int)(1U << 31),
};

/* Reads up to `count` (at most 128) records of `bytes` each from as many places at once into ret,
 * zeroed where a place can't be read. */
void python_read_many(const struct python *p, const uint64_t *addresses, size_t count, void *ret,
		      size_t bytes);
uint64_t python_type(const struct python *p, uint64_t object);
/* Is it an instance of this kind or of one derived from it? */
bool python_is(const struct python *p, uint64_t object, enum python_subclass kind);
/* The name of a class. */
bool python_class_name(const struct python *p, uint64_t type, char *ret, size_t bytes);
bool python_type_named(const struct python *p, uint64_t object, const char *name);
/* A str: its text, malloc'd; NULL. */
char *python_text(const struct python *p, uint64_t str);
/* Does the str stand for its text wherever that occurs (is it interned)? */
bool python_interned(const struct python *p, uint64_t str);
/* Of lists and tuples: how many items (at most 65536), and an item. 0: none. */
size_t python_sequence_length(const struct python *p, uint64_t sequence);
uint64_t python_sequence_item(const struct python *p, uint64_t sequence, size_t i);
/* Up to `count` of its items from `first` on; how many. */
size_t python_sequence_items(const struct python *p, uint64_t sequence, size_t first, uint64_t *ret,
			     size_t count);
/* An attribute of a class, found in it or in one it is derived from; static and class methods and
 * properties give their function. 0: none. */
uint64_t python_class_get(const struct python *p, uint64_t type, const char *name);
/* A name that is looked for again and again: `key` is where it was found last, 0 at first. */
struct python_name {
	const char *text;
	uint64_t key;
};
uint64_t python_dict_find(const struct python *p, uint64_t dict, struct python_name *name);
/* Several attributes of an instance at once; 0 for those that it lacks. */
void python_attrs(const struct python *p, uint64_t object, struct python_name *names, size_t count,
		  uint64_t *ret);
/* How many attributes are numbered so far in a class (python_attr_index); -1: it numbers none. */
int python_attr_count(const struct python *p, uint64_t type);
/* Where instances of `type` keep slot `name`, in bytes from their beginning; 0: there is none. */
uint64_t python_slot_offset(const struct python *p, uint64_t type, const char *name);
/* The namespace (a dict) of a module object; 0. */
uint64_t python_module_dict(const struct python *p, uint64_t module);
/* sys.modules; 0. And how many items a dict has. */
uint64_t python_modules(const struct python *p);
uint64_t python_dict_used(const struct python *p, uint64_t dict);
/* What is behind decorators that functools.wraps() marks. */
uint64_t python_unwrap(const struct python *p, uint64_t function);

/* python_place.c: files and modules. All borrowed until the next refresh. */
struct python_places;
void python_places_free(struct python_places *places);
/* Looks again when modules were imported since: true then. */
bool python_places_refresh(struct python *p);
/* A module by its full name; 0. */
uint64_t python_place_object(const struct python *p, const char *module);
/* The module that a file is, "" when not known. */
const char *python_place_module(const struct python *p, const char *file);
/* Calls fn for each module whose file ends with `suffix`, until it returns false. */
void python_place_each(const struct python *p, const char *suffix,
		       bool (*fn)(void *ctx, const char *module), void *ctx);
/* Is it the application's own, and not a library's? */
bool python_place_is_application(const struct python *p, const char *file);
/* Calls fn for each of the application's modules that has more in its namespace (a dict) than when
 * this was called last. */
typedef void (*python_namespace_fn)(void *ctx, uint64_t namespace, const char *module,
				    const char *file);
void python_place_grown(struct python *p, python_namespace_fn fn, void *ctx);
/* Does the path end with this one, from the beginning of a component on? */
bool python_place_ends(const char *file, const char *suffix);

/* python_known.c: the functions of servers, frameworks and pools that mean something, and those of
 * the rules. */
void python_known_free(struct python_known *known);
/* Looks for those that were not found yet. True when there are more than before. */
bool python_known_learn(struct python *p);
void python_known_each(const struct python *p, runtime_code_fn fn, void *ctx);
/* One more; false when it is there already. */
bool python_known_add(struct python *p, uint64_t code, uint32_t kind, uint32_t arg);
/* Is the code object one of them? */
bool python_known_get(const struct python *p, uint64_t code, struct code_class *ret);
/* The same by its names, where it can't be reached from its module (a redefined or inner function).
 */
bool python_known_named(const struct python *p, uint64_t code, const char *file,
			const char *qualname, struct code_class *ret);
/* Could one of this file have this unqualified name? */
bool python_known_possible(const struct python *p, const char *file, const char *name);
/* python_app.c: finds the application's own functions in its modules, so that the first call is
 * known to come from there. True when there are more than before. */
bool python_app_learn(struct python *p);
/* The object behind a qualified name in a module: a class, or a function's code. 0: none. */
uint64_t python_resolve(const struct python *p, const char *module, const char *qualname);

#endif
