/*
 * What code objects are: their names and places, and what it means to meet one in a stack. It owns
 * a cache of them by address, bounded. An address can become another code object's; so each use
 * compares the names and the line that the object has now with those that were read. It refuses
 * addresses that hold no code object.
 */
#include "runtimes/python_object.h"

#include <stdlib.h>
#include <string.h>

enum {
	CODES_CACHED_MAX = 16384,
	TEXT_BYTES_MAX = 8 << 20, /* of the names and files of those */
	CODE_BYTES = 160, /* of a code object, from its beginning: all fields that are read here */
	UNWRAP_MAX = 16,
	TYPE_NAME = 64,
	QUALIFIED = 0x30b, /* 3.11: code objects have qualified names */
};

/* A code object's identity, and what was learnt of it. */
struct entry {
	uint64_t filename, name;
	uint32_t line;
	struct code_class class_; /* kind 0: not classified yet */
	char *function, *file;    /* NULL: not named yet */
};

static uint64_t field(const uint8_t *code, size_t at)
{
	uint64_t v;

	memcpy(&v, code + at, sizeof(v));
	return v;
}

static void entry_free(struct entry *e)
{
	if (!e)
		return;
	free(e->function);
	free(e->file);
	free(e);
}

static void entries_drop(struct python *p)
{
	uint64_t key;
	void *value;
	size_t pos = 0;

	while (hash_next(&p->codes, &pos, &key, &value))
		entry_free((struct entry *)value);
	hash_free(&p->codes);
	p->code_bytes = 0;
}

void python_code_free(struct python *p)
{
	entries_drop(p);
	python_places_free(p->places);
	python_known_free(p->known);
	p->places = NULL;
	p->known = NULL;
}

/* The entry of what is at the address now; NULL: no code object. */
static struct entry *entry_get(struct python *p, uint64_t code)
{
	struct entry *e = (struct entry *)hash_get(&p->codes, code);
	uint8_t bytes[CODE_BYTES];
	uint64_t filename, name;
	uint32_t line;

	if (!python_read(p, code, bytes, sizeof(bytes)) ||
	    field(bytes, PYTHON_OBJECT_TYPE) != p->code_type)
		return NULL;
	filename = field(bytes, p->offsets.code_filename);
	name = field(bytes, p->offsets.code_name);
	memcpy(&line, bytes + p->offsets.code_firstlineno, sizeof(line));
	if (e && e->filename == filename && e->name == name && e->line == line)
		return e;
	if (e) {
		hash_remove(&p->codes, code);
		entry_free(e);
	} else if (p->codes.count >= CODES_CACHED_MAX || p->code_bytes > TEXT_BYTES_MAX) {
		entries_drop(p);
	}
	e = (struct entry *)calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->filename = filename;
	e->name = name;
	e->line = line;
	if (!hash_put(&p->codes, code, e)) {
		free(e);
		return NULL;
	}
	return e;
}

/* The name of a code object: qualified where the version knows it. malloc'd. */
static char *code_name(const struct python *p, uint64_t code, const struct entry *e)
{
	uint64_t qualname = p->offsets.version >= QUALIFIED
				    ? python_pointer(p, code + p->offsets.code_qualname)
				    : 0;

	return python_text(p, qualname ? qualname : e->name);
}

bool python_code_learn(struct python *p)
{
	bool found;

	python_places_refresh(p);
	/* the rules first: what they name is a span, not just the application's */
	found = python_known_learn(p);
	return python_app_learn(p) || found;
}

void python_known_codes(struct runtime_process *process, runtime_code_fn fn, void *ctx)
{
	python_known_each((const struct python *)process, fn, ctx);
}

static bool classify_by_name(struct python *p, const char *file, const char *name, uint64_t code,
			     struct code_class *ret)
{
	if (p->offsets.version >= QUALIFIED)
		return python_known_named(p, code, file, name, ret);
	/* a bare name may be any method's: it has to be what the module holds */
	if (!python_known_possible(p, file, name))
		return false;
	python_code_learn(p);
	return python_known_get(p, code, ret);
}

bool python_classify(struct runtime_process *process, uint64_t code, struct code_class *ret)
{
	struct python *p = (struct python *)process;
	struct entry *e = entry_get(p, code);
	char *file, *name;

	if (!e)
		return false;
	if (python_known_get(p, code, ret))
		return true;
	if (!e->class_.kind) {
		file = python_text(p, e->filename);
		name = code_name(p, code, e);
		if (!file || !name) {
			free(file);
			free(name);
			return false;
		}
		if (!classify_by_name(p, file, name, code, &e->class_))
			e->class_.kind = python_place_is_application(p, file) ? CODE_APPLICATION
									      : CODE_LIBRARY;
		free(file);
		free(name);
		if (python_budget_spent(p)) {
			e->class_.kind = 0;
			return false;
		}
	}
	*ret = e->class_;
	return true;
}

/* module.qualname; the qualified name alone where the file is no module's. */
static bool entry_name(struct python *p, uint64_t code, struct entry *e)
{
	const char *module;
	struct buf b = { 0 };
	char *name;

	e->file = python_text(p, e->filename);
	name = e->file ? code_name(p, code, e) : NULL;
	if (name) {
		module = python_place_module(p, e->file);
		if (!module[0] && python_places_refresh(p))
			module = python_place_module(p, e->file);
		if (module[0])
			buf_printf(&b, "%s.", module);
		buf_append_str(&b, name);
		e->function = b.failed ? NULL : strdup(buf_cstr(&b));
		buf_free(&b);
	}
	free(name);
	if (!e->function || python_budget_spent(p)) { /* or half of it */
		free(e->function);
		free(e->file);
		e->function = e->file = NULL;
	}
	if (e->function) /* at most: those that were replaced count until all are dropped */
		p->code_bytes += strlen(e->function) + strlen(e->file);
	return e->function != NULL;
}

bool python_code_info(struct runtime_process *process, uint64_t code, struct runtime_code *ret)
{
	struct python *p = (struct python *)process;
	struct entry *e = entry_get(p, code);

	if (!e || (!e->function && !entry_name(p, code, e)))
		return false;
	ret->function = slice_str(e->function);
	ret->file = slice_str(e->file);
	ret->line = e->line;
	return true;
}

/* --- functions -------------------------------------------------------------------------------- */

/* What a partial, a method or a static method calls; 0: it is none. */
static uint64_t callee(const struct python *p, uint64_t object, const char *type)
{
	static const char *const holders[] = { "functools.partial", "partial", "method",
					       "staticmethod", "classmethod" };

	for (size_t i = 0; i < sizeof(holders) / sizeof(holders[0]); i++)
		if (strcmp(type, holders[i]) == 0)
			return python_pointer(p, object + PYTHON_WRAPPED);
	return 0;
}

uint64_t python_unwrap(const struct python *p, uint64_t function)
{
	for (int i = 0; function && i < UNWRAP_MAX; i++) {
		char type[TYPE_NAME];
		uint64_t inner;

		if (!python_type_name(p, function, type, sizeof(type)) || strcmp(type, "type") == 0)
			return function;
		inner = callee(p, function, type);
		if (!inner)
			inner = python_attr(p, function, "__wrapped__");
		if (!inner)
			break;
		function = inner;
	}
	return function;
}

uint64_t python_function_code(const struct python *p, uint64_t function)
{
	uint64_t code;

	for (int i = 0; function && i < UNWRAP_MAX; i++) {
		char type[TYPE_NAME];
		uint64_t inner;

		if (!python_type_name(p, function, type, sizeof(type)))
			return 0;
		if (strcmp(type, "code") == 0 && python_type(p, function) == p->code_type)
			return function;
		if (strcmp(type, "function") == 0)
			break;
		inner = callee(p, function, type);
		/* an object that is called */
		if (!inner && !python_is(p, function, PYTHON_TYPE))
			inner = python_class_get(p, python_type(p, function), "__call__");
		function = inner;
	}
	code = function ? python_pointer(p, function + p->offsets.function_code) : 0;
	return code && python_type(p, code) == p->code_type ? code : 0;
}
