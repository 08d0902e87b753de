/*
 * The routes that an application has, as python_tree.c reads them below the outermost router of
 * Starlette or FastAPI, mounted applications included. One list per router, owned by the process's
 * python_route.c.
 */
#ifndef RUNTIMES_PYTHON_TREE_H
#define RUNTIMES_PYTHON_TREE_H

#include "runtimes/python_object.h"

enum {
	APP_ROOTS_MAX = 8,
	APP_ROOT_TRIES_MAX = 256, /* roots that were no setting, and those that were */
};

struct python_route_node {
	uint64_t object;   /* what scope["route"] is */
	uint64_t context;  /* FastAPI's effective_route_context; 0: has none */
	uint64_t endpoint; /* what scope["endpoint"] is */
	uint64_t code;     /* of the endpoint's function; 0: isn't one */
	bool code_known;   /* it was looked for */
	uint64_t identity; /* of what is at `object` and at `context` */
	char *root;        /* templates of the mounts above; NULL: they can't be told */
	char *path;        /* template of the rest */
};

struct python_tree {
	struct python_route_node *nodes;
	size_t count;
	size_t text_bytes; /* of their templates */
	uint64_t lookups;  /* since it was read */
	uint32_t reads;    /* how often it was */
	/* hashes of the roots that the application was seen under and that are settings */
	uint64_t roots[APP_ROOTS_MAX];
	size_t root_count;
	uint32_t root_tries;
};

/* Reads the routes below `router` anew. False when nothing was there, or more than is kept: of half
 * a tree nobody could say that a template is the only one. */
bool python_tree_read(struct python *p, uint64_t router, struct python_tree *tree);
void python_tree_clear(struct python_tree *tree);
/* python_root.c: was the process started with this root path (an argument, its environment), or is
 * it FastAPI's own? */
bool python_root_is_setting(const struct python *p, uint64_t router, struct slice root);
/* A mix of what makes an object the one that it is: its class and where its attributes are. */
uint64_t python_tree_identity(const struct python *p, uint64_t object);
/* The same of a node's object and, unless that is 0, its context. */
uint64_t python_tree_node_identity(const struct python *p, uint64_t object, uint64_t context);

#endif
