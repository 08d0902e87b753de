/*
 * http.route from the objects that the kernel side found in an answer's scope: the template of the
 * route that matched, with those of the mounts above it and the application's root path in front,
 * and the endpoint's code. Invariant: no part of a request's own path gets into a template; where
 * the templates can't be told for sure there is none. It owns what python_tree.c read, per router.
 */
#include "runtimes/python_tree.h"

#include <stdlib.h>
#include <string.h>

enum {
	ROUTES_MAX = 4096,
	KEPT_BYTES_MAX = 16 << 20,
	READS_AT_ONCE = 8,   /* so often a tree is read again without waiting */
	WAIT_SHIFT_MAX = 12, /* then after 2, 4, 8, … 4096 requests */
	PARAMETERS_MAX = 16,
	MATCHES_MAX = 16,
};

/* What is known of a router, or of one route of aiohttp. */
struct routes {
	struct python_tree tree;
	char *text;              /* the template that was given out last */
	uint64_t identity, code; /* aiohttp: of the route; of its handler */
};

static void routes_free(struct routes *r)
{
	python_tree_clear(&r->tree);
	free(r->text);
	free(r);
}

void python_route_free(struct python *p)
{
	uint64_t key;
	void *value;
	size_t pos = 0;

	while (hash_next(&p->routes, &pos, &key, &value))
		routes_free((struct routes *)value);
	hash_free(&p->routes);
}

/* What is kept of all routers together. */
static size_t kept_bytes(const struct python *p)
{
	size_t pos = 0, bytes = 0;
	uint64_t key;
	void *value;

	while (hash_next(&p->routes, &pos, &key, &value)) {
		const struct python_tree *tree = &((struct routes *)value)->tree;

		bytes += tree->text_bytes + tree->count * sizeof(tree->nodes[0]);
	}
	return bytes;
}

static struct routes *routes_get(struct python *p, uint64_t router)
{
	struct routes *r = (struct routes *)hash_get(&p->routes, router);

	if (r)
		return r;
	if (p->routes.count >= ROUTES_MAX || kept_bytes(p) > KEPT_BYTES_MAX)
		python_route_free(p);
	r = (struct routes *)calloc(1, sizeof(*r));
	if (r && !hash_put(&p->routes, router, r)) {
		free(r);
		return NULL;
	}
	return r;
}

/* --- root paths ------------------------------------------------------------------------------- */

/* Does the text match the template, in which {name} stands for anything but '/'? */
static bool matches(struct slice text, const char *pattern, int parameters)
{
	for (; *pattern && *pattern != '{'; pattern++, text.data++, text.len--)
		if (!text.len || text.data[0] != (uint8_t)*pattern)
			return false;
	if (!*pattern)
		return text.len == 0;
	pattern = strchr(pattern, '}');
	if (!pattern || parameters >= PARAMETERS_MAX)
		return false;
	for (size_t n = 1; n <= text.len && text.data[n - 1] != '/'; n++)
		if (matches(slice_of(text.data + n, text.len - n), pattern + 1, parameters + 1))
			return true;
	return false;
}

/* How much of the root path stands before what the mounts' templates match; -1: they don't. */
static ssize_t before_mounts(struct slice root_path, const char *mounts)
{
	size_t slashes = 0, at = root_path.len;

	if (!*mounts)
		return (ssize_t)root_path.len;
	for (const char *c = mounts; *c; c++)
		slashes += *c == '/';
	while (at && slashes)
		slashes -= root_path.data[--at] == '/';
	if (slashes || !matches(slice_of(root_path.data + at, root_path.len - at), mounts, 0))
		return -1;
	return (ssize_t)at;
}

/*
 * The root that the application runs under, for its template: only where it is a setting. What
 * requests make it of (a header, a part of the path) is left out.
 */
static struct slice app_root(const struct python *p, uint64_t router, struct python_tree *tree,
			     struct slice root)
{
	uint64_t h = 0xcbf29ce484222325;

	while (root.len && root.data[root.len - 1] == '/')
		root.len--;
	if (!root.len || root.data[0] != '/')
		return slice_of("", 0);
	for (size_t i = 0; i < root.len; i++)
		h = (h ^ root.data[i]) * 0x100000001b3;
	for (size_t i = 0; i < tree->root_count; i++)
		if (tree->roots[i] == h)
			return root;
	if (tree->root_count == APP_ROOTS_MAX || tree->root_tries == APP_ROOT_TRIES_MAX)
		return slice_of("", 0);
	tree->root_tries++;
	if (!python_root_is_setting(p, router, root))
		return slice_of("", 0);
	tree->roots[tree->root_count++] = h;
	return root;
}

/* --- which one -------------------------------------------------------------------------------- */

/*
 * What a scope says may be of several steps: an outer router's context or mount stays in it when an
 * inner application routes on without setting its own. The endpoint is set at each step, so the
 * last one's; the others count where they agree with it.
 */
static bool by_context(const struct python_route_node *n, const struct runtime_route *r)
{
	return r->route_context && n->context == r->route_context &&
	       (!r->endpoint || n->endpoint == r->endpoint);
}

static bool by_route(const struct python_route_node *n, const struct runtime_route *r)
{
	return r->route && n->object == r->route && (!r->endpoint || n->endpoint == r->endpoint);
}

static bool by_endpoint(const struct python_route_node *n, const struct runtime_route *r)
{
	return r->endpoint && n->endpoint == r->endpoint;
}

static bool (*const rules[])(const struct python_route_node *,
			     const struct runtime_route *) = { by_context, by_route, by_endpoint };

/*
 * Is all that the scope names in the tree? FastAPI makes the contexts of an included router when a
 * request first gets there, and routes are added while the application runs: what is not here yet
 * may share its endpoint, even its route, with one that is.
 */
static bool known(const struct python_tree *tree, const struct runtime_route *r)
{
	bool context = !r->route_context, route = !r->route;

	for (size_t i = 0; i < tree->count && !(context && route); i++) {
		context = context || tree->nodes[i].context == r->route_context;
		route = route || tree->nodes[i].object == r->route;
	}
	return context && route;
}

static size_t candidates(const struct python_tree *tree, const struct runtime_route *r,
			 struct python_route_node **ret)
{
	size_t found = 0;

	if (!known(tree, r))
		return 0;
	for (size_t rule = 0; !found && rule < sizeof(rules) / sizeof(rules[0]); rule++)
		for (size_t i = 0; i < tree->count && found < MATCHES_MAX; i++)
			if (rules[rule](&tree->nodes[i], r))
				ret[found++] = &tree->nodes[i];
	return found;
}

static bool may_read(const struct python_tree *tree)
{
	uint32_t extra = tree->reads > READS_AT_ONCE ? tree->reads - READS_AT_ONCE : 0;

	return !extra || tree->lookups >= 1UL << (extra < WAIT_SHIFT_MAX ? extra : WAIT_SHIFT_MAX);
}

static bool current(const struct python *p, struct python_route_node *const *found, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (python_tree_node_identity(p, found[i]->object, found[i]->context) !=
		    found[i]->identity)
			return false;
	return n > 0;
}

/* The routes that it may be, read again when there are none or they are others by now. */
static size_t find(struct python *p, struct python_tree *tree, const struct runtime_route *r,
		   struct python_route_node **ret)
{
	size_t n = candidates(tree, r, ret), before = tree->count;

	tree->lookups++;
	if (current(p, ret, n))
		return n;
	if (!may_read(tree) || !python_tree_read(p, r->router, tree))
		return 0;
	if (tree->count > before)
		tree->reads--; /* it is growing, which ends */
	n = candidates(tree, r, ret);
	return current(p, ret, n) ? n : 0;
}

/* --- templates -------------------------------------------------------------------------------- */

static struct slice keep(struct routes *routes, char *text)
{
	free(routes->text);
	routes->text = text;
	return text ? slice_str(text) : slice_of("", 0);
}

static char *template_of(const struct python *p, struct python_tree *tree,
			 const struct python_route_node *node, const struct runtime_route *r)
{
	struct slice root_path = slice_of(r->root_path, r->root_path_len);
	ssize_t before = node->root ? before_mounts(root_path, node->root) : -1;
	struct buf b = { 0 };
	struct slice root;
	char *text;

	if (before < 0)
		return NULL;
	root = app_root(p, r->router, tree, slice_of(root_path.data, (size_t)before));
	buf_append(&b, root.data, root.len);
	buf_append_str(&b, node->root);
	buf_append_str(&b, node->path);
	text = b.failed ? NULL : strdup(buf_cstr(&b));
	buf_free(&b);
	return text;
}

/* The one template of all that it may be; NULL: there are several, or none is certain. */
static char *template_agreed(const struct python *p, struct python_tree *tree,
			     struct python_route_node *const *nodes, size_t n,
			     const struct runtime_route *r)
{
	char *agreed = NULL;

	if (r->root_path_len >= ROOT_PATH_MAX || n >= MATCHES_MAX)
		return NULL; /* cut off */
	for (size_t i = 0; i < n; i++) {
		char *text = template_of(p, tree, nodes[i], r);

		if (text && agreed && strcmp(text, agreed) != 0) {
			free(text);
			free(agreed);
			return NULL;
		}
		if (text && !agreed)
			agreed = text;
		else
			free(text);
	}
	return agreed;
}

static void endpoint_info(struct python *p, uint64_t code, struct runtime_code *ret)
{
	struct runtime_code found;

	if (code && python_code_info(&p->base, code, &found))
		*ret = found;
}

static uint64_t function_code(const struct python *p, uint64_t function)
{
	return function ? python_function_code(p, python_unwrap(p, function)) : 0;
}

static uint64_t node_code(const struct python *p, struct python_route_node *node)
{
	if (!node->code_known) {
		node->code = function_code(p, node->endpoint);
		node->code_known = !python_budget_spent(p);
	}
	return node->code;
}

/* --- aiohttp ---------------------------------------------------------------------------------- */

/* A route of aiohttp leads to its resource, which knows its canonical path; prefixes are in it. */
static bool aiohttp_route(struct python *p, uint64_t route, struct slice *ret_template,
			  struct runtime_code *ret_endpoint)
{
	static const char *const canonical[] = { "_formatter", "_path", "_prefix" };
	uint64_t identity = python_tree_identity(p, route), resource, handler, str = 0;
	struct routes *routes = routes_get(p, route);

	if (!routes)
		return false;
	if (!routes->text || routes->identity != identity) {
		resource = python_attr(p, route, "_resource");
		for (size_t i = 0; resource && !str && i < sizeof(canonical) / sizeof(*canonical);
		     i++)
			str = python_attr(p, resource, canonical[i]);
		keep(routes, str ? python_text(p, str) : NULL);
		if (!routes->text) /* what answers when nothing matched is a route too */
			return python_type_named(p, route, "SystemRoute");
		handler = python_attr(p, route, "_handler");
		routes->code = function_code(p, handler);
		if (python_budget_spent(p)) {
			keep(routes, NULL);
			return false;
		}
		routes->identity = identity;
	}
	*ret_template = slice_str(routes->text);
	endpoint_info(p, routes->code, ret_endpoint);
	return true;
}

bool python_route(struct runtime_process *process, const struct runtime_route *r,
		  struct slice *ret_template, struct runtime_code *ret_endpoint)
{
	struct python_route_node *found[MATCHES_MAX];
	struct python *p = (struct python *)process;
	struct routes *routes;
	size_t n = 0;

	*ret_template = slice_of("", 0);
	memset(ret_endpoint, 0, sizeof(*ret_endpoint));
	if (!r->scope)
		return r->route && aiohttp_route(p, r->route, ret_template, ret_endpoint);
	if (!r->route && !r->route_context && !r->endpoint)
		return true; /* none matched */
	routes = r->router ? routes_get(p, r->router) : NULL;
	if (routes)
		n = find(p, &routes->tree, r, found);
	if (n) {
		*ret_template = keep(routes, template_agreed(p, &routes->tree, found, n, r));
		endpoint_info(p, node_code(p, found[0]), ret_endpoint);
	} else if (r->endpoint) {
		endpoint_info(p, function_code(p, r->endpoint), ret_endpoint);
	}
	return ret_template->len || ret_endpoint->line;
}
