/*
 * Lists of key=value in the style of W3C Baggage (https://www.w3.org/TR/baggage/), as the
 * OpenTelemetry environment variables hold them. Refuses the whole list on the first error; keys
 * are unique in the result.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

void key_value_free(struct key_value *list, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		free(list[i].key);
		free(list[i].value);
	}
	free(list);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

int key_value_decode(const char *text, size_t len, char **ret)
{
	char *out, *to;
	size_t i;

	while (len && is_blank(*text)) {
		text++;
		len--;
	}
	while (len && is_blank(text[len - 1]))
		len--;
	out = malloc(len + 1);
	if (!out)
		return -ENOMEM;
	to = out;
	for (i = 0; i < len; i++) {
		int high, low;

		if (text[i] != '%') {
			*to++ = text[i];
			continue;
		}
		high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
		low = high >= 0 ? hex_digit(text[i + 2]) : -1;
		if (low < 0 || high + low == 0) {
			free(out);
			return -EINVAL;
		}
		*to++ = (char)(high << 4 | low);
		i += 2;
	}
	*to = 0;
	*ret = out;
	return 0;
}

/* Takes key and value over, also on failure. */
static int list_put(struct key_value **list, size_t *count, char *key, char *value)
{
	struct key_value *grown;
	size_t i;

	for (i = 0; i < *count; i++) {
		if (strcmp((*list)[i].key, key) == 0) {
			free(key);
			free((*list)[i].value);
			(*list)[i].value = value;
			return 0;
		}
	}
	grown = realloc(*list, (*count + 1) * sizeof(**list));
	if (!grown) {
		free(key);
		free(value);
		return -ENOMEM;
	}
	*list = grown;
	grown[(*count)++] = (struct key_value){ key, value };
	return 0;
}

static bool all_blank(const char *text, size_t len)
{
	while (len && is_blank(*text)) {
		text++;
		len--;
	}
	return len == 0;
}

static int parse_member(const char *text, size_t len, struct key_value **list, size_t *count)
{
	const char *equals = memchr(text, '=', len);
	char *key, *value;
	int err;

	if (!equals)
		return -EINVAL;
	err = key_value_decode(text, (size_t)(equals - text), &key);
	if (err)
		return err;
	if (!*key) {
		free(key);
		return -EINVAL;
	}
	err = key_value_decode(equals + 1, len - (size_t)(equals + 1 - text), &value);
	if (err) {
		free(key);
		return err;
	}
	return list_put(list, count, key, value);
}

int key_value_parse(const char *text, struct key_value **ret_list, size_t *ret_count)
{
	struct key_value *list = NULL;
	size_t count = 0;

	for (;;) {
		size_t len = strcspn(text, ",");

		if (!all_blank(text, len)) {
			int err = parse_member(text, len, &list, &count);

			if (err) {
				key_value_free(list, count);
				return err;
			}
		}
		if (!text[len])
			break;
		text += len + 1;
	}
	*ret_list = list;
	*ret_count = count;
	return 0;
}
