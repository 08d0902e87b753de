/*
 * Finds the interned strings that are keys of an ASGI scope, so that the kernel side can look for
 * them by address. CPython interns each constant that looks like an identifier and keeps one object
 * for it; the constants of the frameworks' own functions have them before any request has come. It
 * owns nothing. A string that isn't interned is refused, since another may stand in the scope.
 */
#include "runtimes/python_object.h"

#include <string.h>

enum {
	DEPTH_MAX = 6, /* code in code, tuples in tuples */
	ITEMS_MAX = 128,
	KEY_BYTES_MAX = 24,
	STR_LENGTH = 16,
	TUPLE_ITEMS = 24,
	TUPLE_ITEMS_3_14 = 32,
	CODE_NAMES_FROM_CONSTS = 8, /* co_names stands behind co_consts in every version */
};

struct key {
	const char *name; /* NULL: not looked for */
	uint64_t *found;
};

enum {
	KEY_ROUTE,
	KEY_ROOT_PATH,
	KEY_ENDPOINT,
	KEY_ROUTER,
	KEY_FASTAPI,
	KEY_CONTEXT,
	KEY_CLIENT,
	KEY_COUNT
};

struct search {
	const struct python *p;
	uint64_t function_type;
	bool learnt;
	struct key keys[KEY_COUNT];
};

/* A server whose own threads read and answer: what serves whom shows in its scopes only. */
#define GRANIAN "granian.asgi"

/* Where the keys are constants: who makes the scope and who routes by it. */
static const char *const modules[] = { "starlette.routing", "fastapi.routing",
				       "fastapi.applications", "starlette.applications", GRANIAN };

static bool complete(const struct search *s)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (s->keys[i].name && !*s->keys[i].found)
			return false;
	return true;
}

static void consider(struct search *s, uint64_t object, const uint8_t *head)
{
	uint64_t length;

	memcpy(&length, head + STR_LENGTH, sizeof(length));
	for (size_t i = 0; i < KEY_COUNT; i++) {
		struct key *key = &s->keys[i];

		if (key->name && !*key->found && length == strlen(key->name) &&
		    memcmp(head + s->p->offsets.str_ascii, key->name, length) == 0 &&
		    python_str_equals(s->p, object, key->name) && python_interned(s->p, object)) {
			*key->found = object;
			s->learnt = true;
		}
	}
}

static void search_code(struct search *s, uint64_t code, int depth);

static void search_tuple(struct search *s, uint64_t tuple, int depth)
{
	size_t n = python_tuple_length(s->p, tuple),
	       bytes = s->p->offsets.str_ascii + KEY_BYTES_MAX;
	uint8_t heads[ITEMS_MAX * (64 + KEY_BYTES_MAX)];
	uint64_t items[ITEMS_MAX], type;
	uint64_t at = tuple + (s->p->offsets.version >= 0x30e ? TUPLE_ITEMS_3_14 : TUPLE_ITEMS);

	if (n > ITEMS_MAX)
		n = ITEMS_MAX;
	if (!n || depth > DEPTH_MAX || s->p->offsets.str_ascii > 64 ||
	    !python_read(s->p, at, items, n * sizeof(items[0])))
		return;
	python_read_many(s->p, items, n, heads, bytes);
	for (size_t i = 0; i < n; i++) {
		const uint8_t *head = heads + i * bytes;

		memcpy(&type, head + PYTHON_OBJECT_TYPE, sizeof(type));
		if (type == s->p->str_type)
			consider(s, items[i], head);
		else if (type == s->p->tuple_type)
			search_tuple(s, items[i], depth + 1);
		else if (type == s->p->code_type)
			search_code(s, items[i], depth + 1);
	}
}

static void search_code(struct search *s, uint64_t code, int depth)
{
	uint64_t consts = code + s->p->offsets.code_consts;

	if (complete(s))
		return;
	search_tuple(s, python_pointer(s->p, consts), depth);
	search_tuple(s, python_pointer(s->p, consts + CODE_NAMES_FROM_CONSTS), depth);
}

static bool search_member(void *ctx, uint64_t name, uint64_t member)
{
	struct search *s = (struct search *)ctx;
	uint64_t type = python_type(s->p, member), code;

	(void)name;
	if (!s->function_type && python_type_named(s->p, member, "function"))
		s->function_type = type;
	if (type && type == s->function_type) {
		code = python_pointer(s->p, member + s->p->offsets.function_code);
		if (python_type(s->p, code) == s->p->code_type)
			search_code(s, code, 0);
	}
	return !complete(s);
}

static bool search_global(void *ctx, uint64_t name, uint64_t object)
{
	struct search *s = (struct search *)ctx;
	uint64_t dict;

	if (python_is(s->p, object, PYTHON_TYPE)) {
		dict = python_pointer(s->p, object + s->p->offsets.type_dict);
		if (dict)
			python_dict_each(s->p, dict, search_member, s);
	} else if (python_type(s->p, object) == s->p->str_type) {
		/* a key that has a name: _FASTAPI_SCOPE_KEY */
		uint8_t head[64 + KEY_BYTES_MAX];

		if (s->p->offsets.str_ascii <= 64 &&
		    python_read(s->p, object, head, s->p->offsets.str_ascii + KEY_BYTES_MAX))
			consider(s, object, head);
	} else {
		search_member(s, name, object);
	}
	return !complete(s);
}

bool python_route_keys(struct python *p)
{
	struct python_layout *l = &p->layout;
	struct search s = { .p = p,
			    .keys = {
				    [KEY_ROUTE] = { "route", &l->key_route },
				    [KEY_ROOT_PATH] = { "root_path", &l->key_root_path },
				    [KEY_ENDPOINT] = { "endpoint", &l->key_endpoint },
				    [KEY_ROUTER] = { "router", &l->key_router },
				    [KEY_FASTAPI] = { "fastapi", &l->key_fastapi },
				    [KEY_CONTEXT] = { "effective_route_context",
						      &l->key_route_context },
			    } };
	uint64_t count = python_dict_used(p, python_modules(p));

	if (p->keys_known || count == p->keys_modules)
		return false;
	python_places_refresh(p);
	if (python_place_object(p, GRANIAN))
		s.keys[KEY_CLIENT] = (struct key){ "client", &l->key_client };
	for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]) && !complete(&s); i++) {
		uint64_t module = python_place_object(p, modules[i]);
		uint64_t dict = module ? python_module_dict(p, module) : 0;

		if (dict)
			python_dict_each(p, dict, search_global, &s);
	}
	if (!python_budget_spent(p))
		p->keys_modules = count;
	p->keys_known = complete(&s);
	return s.learnt;
}
