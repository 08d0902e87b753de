/*
 * Trees of traces: whatever parents say, every span is drawn exactly once; and what they say of
 * being whole. Needs no terminal.
 */
#include "export/tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/display.h"

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			exit(1);                                                   \
		}                                                                  \
	} while (0)

static const uint8_t TRACE_ID[TRACE_ID_BYTES] = { 1 };

/* `parent` 0: none. The name is "span <id>.". */
static void add(struct tree *t, uint8_t id, uint8_t parent, bool remote, uint64_t start_ns)
{
	struct span *s = span_new(parent ? SPAN_CLIENT : SPAN_SERVER);
	char name[16];

	CHECK(s);
	s->span_id[0] = id;
	s->parent_span_id[0] = parent;
	s->has_parent = parent != 0;
	s->remote_parent = remote;
	s->start_ns = start_ns;
	s->end_ns = start_ns + 5;
	snprintf(name, sizeof(name), "span %u.", (unsigned int)id);
	span_set_name(s, slice_str(name));
	CHECK(tree_add(t, s, true));
	span_free(s);
}

static char *draw(struct tree *t, unsigned int width)
{
	struct tree_style style = { .width = width };
	struct buf out = { 0 };
	char *text;

	tree_draw(t, &style, &out);
	text = strdup(buf_cstr(&out));
	CHECK(text && !out.failed);
	buf_free(&out);
	tree_free(t);
	return text;
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static void test_nesting(void)
{
	struct tree *t = tree_new(TRACE_ID);
	char *text;

	add(t, 3, 2, false, 30);
	add(t, 4, 1, false, 50);
	CHECK(tree_state(t) == TREE_PARTIAL);
	add(t, 2, 1, false, 20);
	add(t, 1, 0, false, 10);
	CHECK(tree_state(t) == TREE_WHOLE);
	text = draw(t, 80);
	CHECK(strstr(text, "  span 1. "));
	CHECK(strstr(text, "  |- span 2. "));
	CHECK(strstr(text, "  |  `- span 3. "));
	CHECK(strstr(text, "  `- span 4. "));
	CHECK(strstr(text, "4 spans"));
	free(text);
}

static void test_remote_parent(void)
{
	struct tree *t = tree_new(TRACE_ID);

	add(t, 2, 1, true, 20);
	CHECK(tree_state(t) == TREE_ENTERED);
	add(t, 3, 2, false, 21);
	CHECK(tree_state(t) == TREE_ENTERED);
	add(t, 1, 0, false, 10);
	CHECK(tree_state(t) == TREE_WHOLE);
	tree_free(t);
}

/* Parents in a circle, a span that is its own parent, the same id twice. */
static void test_bad_parents(void)
{
	struct tree *t = tree_new(TRACE_ID);
	char *text;

	add(t, 1, 2, false, 10);
	add(t, 2, 3, false, 20);
	add(t, 3, 1, false, 30);
	add(t, 4, 4, false, 40);
	add(t, 5, 9, true, 50);
	add(t, 5, 5, true, 60);
	text = draw(t, 60);
	CHECK(count(text, "span 1.") == 1 && count(text, "span 2.") == 1 &&
	      count(text, "span 3.") == 1);
	CHECK(count(text, "span 4.") == 1 && count(text, "span 5.") == 2);
	free(text);
}

/* As many as there may be, each below the one before, in the narrowest terminal. */
static void test_full(void)
{
	struct tree *t = tree_new(TRACE_ID);
	struct span *s = span_new(SPAN_SERVER);
	size_t i;
	char *text;

	CHECK(s);
	span_set_name(s, slice_str("a name that is far longer than forty columns can take"));
	for (i = 0; i < TREE_MAX_SPANS; i++) {
		s->has_parent = i > 0;
		memcpy(s->parent_span_id, s->span_id, SPAN_ID_BYTES);
		s->span_id[0] = (uint8_t)i;
		s->span_id[1] = 1;
		s->start_ns = i;
		s->end_ns = 1000000000;
		CHECK(tree_add(t, s, true));
	}
	CHECK(!tree_add(t, s, true));
	CHECK(tree_state(t) == TREE_WHOLE);
	span_free(s);
	text = draw(t, 40);
	CHECK(count(text, "\n") == TREE_MAX_SPANS + 2);
	free(text);
}

static void test_display(void)
{
	static const struct {
		const char *in, *out;
		unsigned int max, cols;
		bool utf8;
	} cases[] = {
		{ "plain", "plain", 10, 5, true },
		{ "0123456789", "0123…", 5, 5, true },
		{ "0123456789", "0123~", 5, 5, false },
		{ "01234", "01234", 5, 5, true },
		{ "\033[2J", "\\x1b[2J", 20, 7, true },
		{ "a\xc2\x9b"
		  "b",
		  "a\\x9bb", 20, 6, true },
		{ "x\xe2\x80\xaey", "x\\u{202e}y", 20, 10, true },
		{ "日本", "日本", 4, 4, true },
		{ "日本", "日…", 3, 3, true },
		{ "日本", "??", 4, 2, false },
		{ "\xff!", "\xef\xbf\xbd!", 4, 2, true },
	};
	static const struct {
		uint64_t ns;
		const char *text;
	} durations[] = {
		{ 0, "0 ns" },
		{ 999, "999 ns" },
		{ 1500, "1.50 us" },
		{ 12345678, "12.3 ms" },
		{ 1000000000, "1.00 s" },
		{ 599000000000, "599 s" },
		{ 600000000000, "10.0 min" },
		{ UINT64_MAX, "99999 min" },
	};
	struct buf out = { 0 };
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned int cols;

		buf_reset(&out);
		cols = display_append(&out, slice_str(cases[i].in), cases[i].max, cases[i].utf8);
		CHECK(strcmp(buf_cstr(&out), cases[i].out) == 0);
		CHECK(cols == cases[i].cols && display_cols(slice_of(out.data, out.len)) == cols);
	}
	for (i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
		buf_reset(&out);
		CHECK(display_duration(&out, durations[i].ns, false) <= DISPLAY_DURATION_COLS);
		CHECK(strcmp(buf_cstr(&out), durations[i].text) == 0);
	}
	buf_free(&out);
}

int main(void)
{
	test_nesting();
	test_remote_parent();
	test_bad_parents();
	test_full();
	test_display();
	return 0;
}
