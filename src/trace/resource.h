/*
 * What a span says of the process that made it: string attributes, shared by all its spans,
 * immutable once published, freed with the last reference. Keys are borrowed literals, values are
 * copied.
 */
#ifndef TRACE_RESOURCE_H
#define TRACE_RESOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

enum { RESOURCE_MAX_ATTRS = 40 };

struct resource_attr {
	char *key;   /* owned */
	char *value; /* owned; for integers the decimal digits */
	int is_int;
};

struct resource {
	uint32_t refs;
	uint32_t pid;
	size_t attr_count;
	struct resource_attr attrs[RESOURCE_MAX_ATTRS];
};

/* One reference for the caller; NULL when out of memory. */
struct resource *resource_new(uint32_t pid);
struct resource *resource_get(struct resource *r);
/* Takes NULL. */
void resource_put(struct resource *r);
/* Replaces a key that is there. Empty values are left out. */
void resource_set(struct resource *r, const char *key, const char *value);
void resource_set_int(struct resource *r, const char *key, int64_t value);
/* NULL when absent. */
const char *resource_find(const struct resource *r, const char *key);

#endif
