/*
 * Custom spans: the text of --span to a struct span_option. WHERE says of which kind it is: a name
 * that ends in .so (or .so.6) or a path of anything but a .py file is native code, all else is
 * Python. Refuses what can never match; whether it does, is the runtimes' business.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

static void span_free(struct span_option *s)
{
	free(s->where);
	free(s->function);
	free(s->name);
	key_value_free(s->attributes, s->attribute_count);
}

void span_options_free(struct span_option *spans, size_t count)
{
	for (size_t i = 0; i < count; i++)
		span_free(&spans[i]);
	free(spans);
}

static bool ends_with(const char *text, const char *end)
{
	size_t a = strlen(text), b = strlen(end);

	return a >= b && strcmp(text + a - b, end) == 0;
}

/* "libc.so.6", "libz.so": ".so" with nothing but digits and dots behind it. */
static bool is_library(const char *where)
{
	for (const char *p = strstr(where, ".so"); p; p = strstr(p + 1, ".so")) {
		if (!p[3] || (p[3] == '.' && !p[3 + strspn(p + 3, ".0123456789")]))
			return true;
	}
	return false;
}

/* Identifiers with dots between them; not ASCII is a letter for Python as well. */
static bool is_dotted(const char *text)
{
	bool begins = true;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '.' ? begins
			     : c < 0x80 && !isalpha(c) && c != '_' && (begins || !isdigit(c)))
			return false;
		begins = c == '.';
	}
	return !begins;
}

/* A qualified name: identifiers, "<locals>", "<lambda>". */
static bool is_qualified(const char *text)
{
	for (const char *p = text; *p; p++) {
		if (isspace((unsigned char)*p) || *p == '/' || *p == '(')
			return false;
	}
	return *text && *text != '.' && !ends_with(text, ".");
}

static bool span_valid(struct span_option *s)
{
	bool python_file = ends_with(s->where, ".py");

	if (!*s->where || !*s->function || !*s->name)
		return false;
	if (!python_file && (is_library(s->where) || strchr(s->where, '/'))) {
		s->kind = SPAN_OPTION_NATIVE;
		return !ends_with(s->where, "/") && !strpbrk(s->function, " \t/");
	}
	s->kind = SPAN_OPTION_PYTHON;
	return is_qualified(s->function) && (python_file || is_dotted(s->where));
}

/* Behind the '=': the name, unless that member is an attribute already, and the attributes. */
static int parse_tail(const char *text, struct span_option *s)
{
	size_t len = strcspn(text, ",");
	char *name;
	int err;

	if (memchr(text, '=', len))
		return key_value_parse(text, &s->attributes, &s->attribute_count);
	err = key_value_decode(text, len, &name);
	if (err)
		return err;
	if (*name) {
		free(s->name);
		s->name = name;
	} else {
		free(name);
	}
	return text[len] ? key_value_parse(text + len + 1, &s->attributes, &s->attribute_count) : 0;
}

static int parse_head(const char *text, size_t len, struct span_option *s)
{
	const char *colon = memrchr(text, ':', len);

	if (!colon)
		return -EINVAL;
	s->where = strndup(text, (size_t)(colon - text));
	s->function = strndup(colon + 1, len - (size_t)(colon + 1 - text));
	s->name = s->function ? strdup(s->function) : NULL;
	return s->where && s->name ? 0 : -ENOMEM;
}

int parse_span(const struct option_row *row, const char *text, struct options *o)
{
	size_t len = strcspn(text, "=");
	struct span_option s = { 0 }, *grown;
	int err;

	(void)row;
	err = parse_head(text, len, &s);
	if (!err && text[len])
		err = parse_tail(text + len + 1, &s);
	if (!err && !span_valid(&s))
		err = -EINVAL;
	grown = err ? NULL : realloc(o->spans, (o->span_count + 1) * sizeof(*grown));
	if (!grown) {
		span_free(&s);
		return err ? err : -ENOMEM;
	}
	o->spans = grown;
	grown[o->span_count++] = s;
	return 0;
}
