/*
 * Finds the functions of the application's own modules: in their namespaces, in their classes, and
 * what is defined within them. Without this a call would have to be seen once before it is known
 * which frame of it is the application's. It refuses what a module has only imported. Bounded; what
 * is made otherwise (in a decorator, by exec) is classified when it is met.
 */
#include "runtimes/python_object.h"

#include <string.h>

enum {
	CLASS_DEPTH_MAX = 4,
	CODE_DEPTH_MAX = 8,
};

struct search {
	struct python *p;
	const char *module, *file;
	uint64_t filename; /* the str that the module's code objects have; 0: not met yet */
	int depth;         /* of classes */
	struct hash seen;  /* classes */
	bool found;
};

static bool same_file(struct search *s, uint64_t code)
{
	uint64_t filename = python_pointer(s->p, code + s->p->offsets.code_filename);

	if (filename != s->filename && python_str_equals(s->p, filename, s->file))
		s->filename = filename;
	return filename && filename == s->filename;
}

static void add_code(struct search *s, uint64_t code, int depth)
{
	uint64_t consts, item;
	size_t n;

	if (depth > CODE_DEPTH_MAX)
		return;
	s->found = python_known_add(s->p, code, CODE_APPLICATION, 0) || s->found;
	consts = python_pointer(s->p, code + s->p->offsets.code_consts);
	n = python_tuple_length(s->p, consts);
	for (size_t i = 0; i < n; i++) {
		item = python_tuple_item(s->p, consts, i);
		if (item && python_type(s->p, item) == s->p->code_type)
			add_code(s, item, depth + 1);
	}
}

static void add_function(struct search *s, uint64_t object)
{
	uint64_t code = python_function_code(s->p, python_unwrap(s->p, object));

	if (code && same_file(s, code))
		add_code(s, code, 0);
}

static bool member(void *ctx, uint64_t name, uint64_t object);

/* Only classes that the module itself defines. */
static void search_class(struct search *s, uint64_t class_)
{
	uint64_t dict = python_pointer(s->p, class_ + s->p->offsets.type_dict), module;

	if (!dict || s->depth >= CLASS_DEPTH_MAX || hash_get(&s->seen, class_) ||
	    !hash_put(&s->seen, class_, s))
		return;
	module = python_dict_get(s->p, dict, "__module__");
	if (!module || !python_str_equals(s->p, module, s->module))
		return;
	s->depth++;
	python_dict_each(s->p, dict, member, s);
	s->depth--;
}

static bool member(void *ctx, uint64_t name, uint64_t object)
{
	static const char *const functions[] = {
		"function",          "staticmethod",       "classmethod",
		"functools.partial", "_lru_cache_wrapper", "functools._lru_cache_wrapper"
	};
	struct search *s = (struct search *)ctx;
	char type[64];

	(void)name;
	if (!python_type_name(s->p, object, type, sizeof(type)))
		return true;
	if (strcmp(type, "property") == 0) {
		add_function(s, python_pointer(s->p, object + PYTHON_WRAPPED));
		return true;
	}
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (strcmp(type, functions[i]) == 0) {
			add_function(s, object);
			return true;
		}
	}
	if (python_is(s->p, object, PYTHON_TYPE))
		search_class(s, object);
	return true;
}

static void search_module(void *ctx, uint64_t namespace, const char *module, const char *file)
{
	struct search *s = (struct search *)ctx;

	s->module = module;
	s->file = file;
	s->filename = 0;
	s->depth = 0;
	python_dict_each(s->p, namespace, member, s);
}

bool python_app_learn(struct python *p)
{
	struct search s = { .p = p };

	python_place_grown(p, search_module, &s);
	hash_free(&s.seen);
	return s.found;
}
