#include "trace/span.h"

#include <stdlib.h>

#include "trace/resource.h"

enum { SPAN_TEXT_BYTES = 384 };

struct span *span_new(enum span_kind kind)
{
	struct span *s = malloc(sizeof(*s));

	if (!s)
		return NULL;
	/* The attribute array is filled as far as attr_count says: clearing it would cost more than
	 * the rest. */
	memset(s, 0, offsetof(struct span, attrs));
	s->text = (struct buf){ 0 };
	list_init(&s->node);
	s->kind = kind;
	if (!buf_reserve(&s->text, SPAN_TEXT_BYTES)) {
		free(s);
		return NULL;
	}
	return s;
}

void span_free(struct span *s)
{
	if (!s)
		return;
	resource_put(s->resource);
	buf_free(&s->text);
	free(s);
}

static bool add_text(struct span *s, struct slice text, uint32_t *ret_offset, uint32_t *ret_len)
{
	size_t offset = s->text.len;

	buf_append(&s->text, text.data, text.len);
	if (s->text.failed)
		return false;
	*ret_offset = (uint32_t)offset;
	*ret_len = (uint32_t)text.len;
	return true;
}

void span_set_name(struct span *s, struct slice name)
{
	add_text(s, name, &s->name_offset, &s->name_len);
}

void span_set_trace_state(struct span *s, struct slice state)
{
	add_text(s, state, &s->trace_state_offset, &s->trace_state_len);
}

static struct attr *add_attr(struct span *s, const char *key, enum attr_type type)
{
	struct attr *a;

	if (s->attr_count == SPAN_MAX_ATTRS) {
		s->dropped_attr_count++;
		return NULL;
	}
	a = &s->attrs[s->attr_count++];
	*a = (struct attr){ .key = key, .type = type };
	return a;
}

void span_add_str(struct span *s, const char *key, struct slice value)
{
	struct attr *a = add_attr(s, key, ATTR_STRING);

	if (a && !add_text(s, value, &a->offset, &a->len)) {
		s->attr_count--;
		s->dropped_attr_count++;
	}
}

void span_add_int(struct span *s, const char *key, int64_t value)
{
	struct attr *a = add_attr(s, key, ATTR_INT);

	if (a)
		a->integer = value;
}

void span_add_bool(struct span *s, const char *key, bool value)
{
	struct attr *a = add_attr(s, key, ATTR_BOOL);

	if (a)
		a->integer = value;
}

void span_set_error(struct span *s, struct slice type)
{
	if (s->status == SPAN_STATUS_ERROR)
		return;
	s->status = SPAN_STATUS_ERROR;
	span_add_str(s, "error.type", type);
}

struct slice span_name(const struct span *s)
{
	return slice_of(s->text.data + s->name_offset, s->name_len);
}

struct slice span_trace_state(const struct span *s)
{
	return slice_of(s->text.data + s->trace_state_offset, s->trace_state_len);
}

struct slice span_attr_str(const struct span *s, const struct attr *a)
{
	return slice_of(s->text.data + a->offset, a->len);
}

void span_remove_attr(struct span *s, const char *key)
{
	const struct attr *a = span_find_attr(s, key);
	size_t i = a ? (size_t)(a - s->attrs) : 0;

	if (!a)
		return;
	s->attr_count--;
	memmove(&s->attrs[i], &s->attrs[i + 1], (s->attr_count - i) * sizeof(*a));
}

const struct attr *span_find_attr(const struct span *s, const char *key)
{
	uint32_t i;

	for (i = 0; i < s->attr_count; i++) {
		if (strcmp(s->attrs[i].key, key) == 0)
			return &s->attrs[i];
	}
	return NULL;
}
