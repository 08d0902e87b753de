/*
 * Reads the tree of routes of a Starlette or FastAPI application into a flat list: mounts, hosts,
 * mounted applications, included routers before and after FastAPI 0.137. It only reads what routing
 * itself goes by: the routes' compiled path_format, never a request's path. Bounded in depth and
 * number; what it doesn't know (a route class of another kind) is left out.
 */
#include "runtimes/python_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	NODES_MAX = 8192,
	TEXT_BYTES_MAX = 2 << 20, /* of one tree */
	DEPTH_MAX = 16,
	CUT_READS = 16,    /* so many count for one that is cut: the next one waits long */
	WRAPPERS_MAX = 12, /* middlewares around a mounted application */
	KINDS_MAX = 64,
	ITEMS_AT_ONCE = 64,
	CLASS_NAME = 64,
	MRO_FROM_DICT = 80,
	IDENTITY_BEFORE = 32, /* where the words in front of an object begin */
	IDENTITY_BYTES = 80,
};

enum element_kind {
	ELEMENT_OTHER,
	ELEMENT_ROUTE,
	ELEMENT_MOUNT,
	ELEMENT_HOST,
	ELEMENT_INCLUDED,
	ELEMENT_CONTEXT
};

struct kind {
	uint64_t type;
	enum element_kind kind;
};

struct walk {
	const struct python *p;
	struct python_tree *tree;
	struct python_name names[2];         /* of routes: path_format, endpoint */
	struct python_name context_names[4]; /* of contexts, as walk_context() has them */
	struct kind kinds[KINDS_MAX];
	size_t kind_count;
	bool failed, cut;
};

static const struct {
	const char *class_;
	enum element_kind kind;
} classes[] = {
	{ "Route", ELEMENT_ROUTE },
	{ "WebSocketRoute", ELEMENT_ROUTE },
	{ "Mount", ELEMENT_MOUNT },
	{ "Host", ELEMENT_HOST },
	{ "_IncludedRouter", ELEMENT_INCLUDED },
	{ "_EffectiveRouteContext", ELEMENT_CONTEXT },
};

void python_tree_clear(struct python_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		free(tree->nodes[i].root);
		free(tree->nodes[i].path);
	}
	free(tree->nodes);
	tree->nodes = NULL;
	tree->count = tree->text_bytes = 0;
}

uint64_t python_tree_identity(const struct python *p, uint64_t object)
{
	/* word numbers, from 32 bytes before the object on */
	enum { VALUES_3_11 = 0, MANAGED = 1, TYPE = 5, FIRST = 6, SECOND = 7, THIRD = 8 };
	uint64_t words[IDENTITY_BYTES / 8], id;

	if (!python_read(p, object - IDENTITY_BEFORE, words, sizeof(words)))
		return 0;
	id = words[TYPE];
	switch (p->layout.values) {
	case PYTHON_VALUES_BEFORE:
		id = id * 31 ^ words[VALUES_3_11];
		return id * 31 ^ words[MANAGED];
	case PYTHON_VALUES_TAGGED:
		return id * 31 ^ words[MANAGED];
	case PYTHON_VALUES_INLINE:
		id = id * 31 ^ words[MANAGED];
		id = id * 31 ^ words[SECOND];
		return id * 31 ^ words[THIRD];
	default:
		return id * 31 ^ words[FIRST];
	}
}

uint64_t python_tree_node_identity(const struct python *p, uint64_t object, uint64_t context)
{
	uint64_t id = python_tree_identity(p, object);

	return context ? id * 31 ^ python_tree_identity(p, context) : id;
}

static enum element_kind kind_read(const struct walk *w, uint64_t type)
{
	const struct python *p = w->p;
	uint64_t mro = python_pointer(p, type + p->offsets.type_dict + MRO_FROM_DICT);
	size_t n = python_tuple_length(p, mro);
	char name[CLASS_NAME];

	for (size_t i = 0; i < n && i < PYTHON_MRO_MAX; i++) {
		if (!python_class_name(p, python_tuple_item(p, mro, i), name, sizeof(name)))
			continue;
		for (size_t j = 0; j < sizeof(classes) / sizeof(classes[0]); j++)
			if (strcmp(classes[j].class_, name) == 0)
				return classes[j].kind;
	}
	return ELEMENT_OTHER;
}

static enum element_kind element_kind(struct walk *w, uint64_t element)
{
	uint64_t type = python_type(w->p, element);
	enum element_kind kind;

	for (size_t i = 0; i < w->kind_count; i++)
		if (w->kinds[i].type == type)
			return w->kinds[i].kind;
	if (!type)
		return ELEMENT_OTHER;
	kind = kind_read(w, type);
	if (w->kind_count < KINDS_MAX)
		w->kinds[w->kind_count++] = (struct kind){ type, kind };
	return kind;
}

static char *joined(const char *a, const char *b)
{
	char *text;

	return asprintf(&text, "%s%s", a, b) < 0 ? NULL : text;
}

/* Room for one more. */
static bool grow(struct walk *w)
{
	struct python_tree *tree = w->tree;
	struct python_route_node *nodes;

	if (tree->count >= NODES_MAX || tree->text_bytes > TEXT_BYTES_MAX)
		w->cut = true;
	if (w->cut || w->failed)
		return false;
	if (tree->count & (tree->count - 1))
		return true;
	nodes = (struct python_route_node *)reallocarray(
		tree->nodes, tree->count ? tree->count * 2 : 1, sizeof(*nodes));
	if (nodes)
		tree->nodes = nodes;
	w->failed = !nodes;
	return nodes != NULL;
}

/* Takes what the node owns. */
static void add(struct walk *w, struct python_route_node node)
{
	struct python_tree *tree = w->tree;

	if (!node.path || !grow(w)) {
		free(node.root);
		free(node.path);
		return;
	}
	tree->text_bytes += strlen(node.path) + (node.root ? strlen(node.root) : 0);
	tree->nodes[tree->count++] = node;
}

static void add_leaf(struct walk *w, uint64_t object, uint64_t context, uint64_t endpoint,
		     const char *root, char *path)
{
	add(w, (struct python_route_node){
		       .object = object,
		       .context = context,
		       .endpoint = endpoint,
		       .identity = python_tree_node_identity(w->p, object, context),
		       .root = root ? strdup(root) : NULL,
		       .path = path,
	       });
}

static char *attr_text(const struct python *p, uint64_t object, const char *name)
{
	uint64_t str = python_attr(p, object, name);

	return str ? python_text(p, str) : NULL;
}

static void walk_list(struct walk *w, uint64_t list, const char *root, int depth);

/* The routes of what is mounted: a router, an application, or either within middlewares. */
static void walk_app(struct walk *w, uint64_t app, const char *root, int depth)
{
	static const char *const inward[] = { "router", "_base_app", "app", "_app" };
	const struct python *p = w->p;

	for (int i = 0; app && i < WRAPPERS_MAX; i++) {
		uint64_t list = python_attr(p, app, "routes"), next = 0;

		if (list && python_is(p, list, PYTHON_LIST)) {
			walk_list(w, list, root, depth + 1);
			return;
		}
		for (size_t j = 0; !next && j < sizeof(inward) / sizeof(inward[0]); j++)
			next = python_attr(p, app, inward[j]);
		app = next;
	}
}

/* A mount itself answers when nothing in it matches, or when it is no application of ours. */
static void walk_mount(struct walk *w, uint64_t mount, uint64_t context, const char *root,
		       int depth)
{
	static const char rest[] = "/{path}";
	const struct python *p = w->p;
	char *format = attr_text(p, mount, "path_format"), *path = attr_text(p, mount, "path");
	size_t n = format ? strlen(format) : 0;
	char *below = NULL;

	if (n >= sizeof(rest) - 1 && strcmp(format + n - (sizeof(rest) - 1), rest) == 0) {
		format[n - (sizeof(rest) - 1)] = '\0';
		/* one that takes in slashes can't be told from what is in front of it */
		if (root && path && !strstr(path, ":path}"))
			below = joined(root, format);
		add_leaf(w, mount, context, python_attr(p, mount, "app"), below, strdup(rest));
		walk_app(w, mount, below, depth);
	}
	free(below);
	free(format);
	free(path);
}

static void walk_route(struct walk *w, uint64_t route, uint64_t context, const char *root)
{
	enum { FORMAT, ENDPOINT, COUNT };
	uint64_t values[COUNT];
	char *path;

	python_attrs(w->p, route, w->names, COUNT, values);
	path = values[FORMAT] ? python_text(w->p, values[FORMAT]) : NULL;
	if (path)
		add_leaf(w, route, context, values[ENDPOINT], root, path);
}

static void walk_element(struct walk *w, uint64_t element, uint64_t context, const char *root,
			 int depth);

/* FastAPI from 0.137 on: a route as it is below the router that includes it. */
static void walk_context(struct walk *w, uint64_t context, const char *root, int depth)
{
	enum { STARLETTE, ORIGINAL, FORMAT, ENDPOINT, COUNT };
	uint64_t values[COUNT];
	char *path;

	python_attrs(w->p, context, w->context_names, COUNT, values);
	if (values[STARLETTE] && element_kind(w, values[STARLETTE]) != ELEMENT_OTHER) {
		walk_element(w, values[STARLETTE], context, root, depth + 1);
		return;
	}
	if (!values[ORIGINAL] || element_kind(w, values[ORIGINAL]) != ELEMENT_ROUTE)
		return;
	path = values[FORMAT] ? python_text(w->p, values[FORMAT]) : NULL;
	if (path)
		add_leaf(w, values[ORIGINAL], context, values[ENDPOINT], root, path);
}

static void walk_element(struct walk *w, uint64_t element, uint64_t context, const char *root,
			 int depth)
{
	if (!element || depth > DEPTH_MAX || w->failed || w->cut)
		return;
	switch (element_kind(w, element)) {
	case ELEMENT_ROUTE:
		walk_route(w, element, context, root);
		break;
	case ELEMENT_MOUNT:
		walk_mount(w, element, context, root, depth);
		break;
	case ELEMENT_HOST: /* of no template of its own, but a scope may name it */
		add_leaf(w, element, context, python_attr(w->p, element, "app"), NULL, strdup(""));
		walk_app(w, python_attr(w->p, element, "app"), root, depth);
		break;
	case ELEMENT_INCLUDED:
		walk_list(w, python_attr(w->p, element, "_effective_candidates"), root, depth + 1);
		walk_list(w, python_attr(w->p, element, "_effective_low_priority_routes"), root,
			  depth + 1);
		break;
	case ELEMENT_CONTEXT:
		walk_context(w, element, root, depth);
		break;
	default:
		break;
	}
}

static void walk_list(struct walk *w, uint64_t list, const char *root, int depth)
{
	uint64_t items[ITEMS_AT_ONCE];
	size_t n;

	for (size_t first = 0; list && !w->failed && !w->cut; first += n) {
		n = python_sequence_items(w->p, list, first, items, ITEMS_AT_ONCE);
		if (!n)
			return;
		for (size_t i = 0; i < n && !w->failed && !w->cut; i++)
			walk_element(w, items[i], 0, root, depth);
	}
}

bool python_tree_read(struct python *p, uint64_t router, struct python_tree *tree)
{
	struct walk w = { .p = p,
			  .tree = tree,
			  .names = { { "path_format", 0 }, { "endpoint", 0 } },
			  .context_names = { { "starlette_route", 0 },
					     { "original_route", 0 },
					     { "path_format", 0 },
					     { "endpoint", 0 } } };

	python_tree_clear(tree);
	tree->lookups = 0;
	tree->reads++;
	walk_app(&w, router, "", 0);
	p->base.cut = p->base.cut || w.cut;
	if (w.cut || w.failed || python_budget_spent(p)) {
		python_tree_clear(tree);
		tree->reads += CUT_READS;
	}
	return tree->count > 0;
}
