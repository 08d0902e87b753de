/* A borrowed run of bytes. It owns nothing and is never NUL-terminated. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct slice {
	const uint8_t *data;
	size_t len;
};

static inline struct slice slice_of(const void *data, size_t len)
{
	return (struct slice){ (const uint8_t *)data, len };
}

static inline struct slice slice_str(const char *s)
{
	return slice_of(s, strlen(s));
}

static inline bool slice_eq(struct slice a, const char *s)
{
	size_t n = strlen(s);

	return a.len == n && memcmp(a.data, s, n) == 0;
}

/* ASCII case folded. */
static inline bool slice_caseeq(struct slice a, const char *s)
{
	size_t n = strlen(s);

	return a.len == n && strncasecmp((const char *)a.data, s, n) == 0;
}

#endif
