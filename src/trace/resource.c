#include "trace/resource.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct resource *resource_new(uint32_t pid)
{
	struct resource *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->refs = 1;
	r->pid = pid;
	return r;
}

struct resource *resource_get(struct resource *r)
{
	if (r)
		r->refs++;
	return r;
}

void resource_put(struct resource *r)
{
	size_t i;

	if (!r || --r->refs)
		return;
	for (i = 0; i < r->attr_count; i++) {
		free(r->attrs[i].key);
		free(r->attrs[i].value);
	}
	free(r);
}

static void set(struct resource *r, const char *key, const char *value, int is_int)
{
	struct resource_attr *a = NULL;
	char *copy;
	size_t i;

	if (!value || !*value)
		return;
	for (i = 0; i < r->attr_count; i++) {
		if (strcmp(r->attrs[i].key, key) == 0)
			a = &r->attrs[i];
	}
	copy = strdup(value);
	if (!copy)
		return;
	if (!a) {
		char *own = r->attr_count < RESOURCE_MAX_ATTRS ? strdup(key) : NULL;

		if (!own) {
			free(copy);
			return;
		}
		a = &r->attrs[r->attr_count++];
		a->key = own;
		a->value = NULL;
	}
	free(a->value);
	a->value = copy;
	a->is_int = is_int;
}

void resource_set(struct resource *r, const char *key, const char *value)
{
	set(r, key, value, 0);
}

void resource_set_int(struct resource *r, const char *key, int64_t value)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%" PRId64, value);
	set(r, key, digits, 1);
}

const char *resource_find(const struct resource *r, const char *key)
{
	size_t i;

	for (i = 0; i < r->attr_count; i++) {
		if (strcmp(r->attrs[i].key, key) == 0)
			return r->attrs[i].value;
	}
	return NULL;
}
