/*
 * Drawing a trace: one line about it, then a line a span: service, the tree with the names, a bar
 * on the trace's time axis, the duration, the status. Parents come from the wire and may be
 * missing, wrong or circular; every span is drawn exactly once whatever they say.
 */
#include "export/tree.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/display.h"
#include "trace/resource.h"

enum {
	NAME_MAX_COLS = 120,
	SERVICE_MAX_COLS = 24,
	NOTE_MAX_COLS = 24,
	BAR_MIN_COLS = 10,
	INDENT_COLS = 3,
	INDENT_MAX_LEVELS = 12 /* deeper spans are drawn at this depth */
};

#define RESET "\033[0m"
#define DIM "\033[2m"
#define BOLD "\033[1m"
#define RED "\033[31m"

/* What one drawing needs; `parent` and `drawn` run beside tree.spans. */
struct drawing {
	const struct tree *tree;
	const struct tree_style *style;
	struct buf *out;
	int parent[TREE_MAX_SPANS]; /* index, -1: none here */
	bool drawn[TREE_MAX_SPANS];
	bool more[INDENT_MAX_LEVELS + 1]; /* whether a level's line goes on below */
	uint64_t start_ns, end_ns;
	unsigned int service_cols, name_cols, bar_cols, note_cols;
};

struct tree *tree_new(const uint8_t trace_id[TRACE_ID_BYTES])
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	list_init(&t->node);
	memcpy(t->trace_id, trace_id, TRACE_ID_BYTES);
	return t;
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	free(t->spans);
	buf_free(&t->text);
	free(t);
}

static struct tree_text add_text(struct tree *t, struct slice text, unsigned int max_cols,
				 bool utf8)
{
	size_t offset = t->text.len;
	unsigned int cols = display_append(&t->text, text, max_cols, utf8);

	return (struct tree_text){ (uint32_t)offset, (uint32_t)(t->text.len - offset), cols };
}

/* The status as the protocol says it, else why it failed. */
static struct tree_text add_note(struct tree *t, const struct span *s, bool utf8)
{
	static const char *const keys[] = { "http.response.status_code", "db.response.status_code",
					    "rpc.response.status_code", "error.type" };
	char digits[24];
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const struct attr *a = span_find_attr(s, keys[i]);

		if (a && a->type == ATTR_STRING)
			return add_text(t, span_attr_str(s, a), NOTE_MAX_COLS, utf8);
		if (a) {
			snprintf(digits, sizeof(digits), "%" PRId64, a->integer);
			return add_text(t, slice_str(digits), NOTE_MAX_COLS, utf8);
		}
	}
	return (struct tree_text){ 0, 0, 0 };
}

bool tree_add(struct tree *t, const struct span *s, bool utf8)
{
	const char *service = s->resource ? resource_find(s->resource, "service.name") : NULL;
	struct tree_span *ts;

	if (t->count == TREE_MAX_SPANS)
		return false;
	if (t->count == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 4;
		struct tree_span *spans = reallocarray(t->spans, cap, sizeof(*spans));

		if (!spans)
			return false;
		t->spans = spans;
		t->cap = cap;
	}
	ts = &t->spans[t->count];
	*ts = (struct tree_span){ .has_parent = s->has_parent,
				  .remote_parent = s->remote_parent,
				  .error = s->status == SPAN_STATUS_ERROR,
				  .kind = s->kind,
				  .start_ns = s->start_ns,
				  .end_ns = s->end_ns };
	memcpy(ts->id, s->span_id, SPAN_ID_BYTES);
	memcpy(ts->parent, s->parent_span_id, SPAN_ID_BYTES);
	ts->service = add_text(t, slice_str(service ? service : "unknown_service"),
			       SERVICE_MAX_COLS, utf8);
	ts->name = add_text(t, span_name(s), NAME_MAX_COLS, utf8);
	ts->note = add_note(t, s, utf8);
	if (t->text.failed)
		return false;
	t->count++;
	return true;
}

/* The index of the span that is the parent of spans[i], -1: none that is here. */
static int find_parent(const struct tree *t, size_t i)
{
	size_t j;

	for (j = 0; t->spans[i].has_parent && j < t->count; j++) {
		if (j != i && memcmp(t->spans[j].id, t->spans[i].parent, SPAN_ID_BYTES) == 0)
			return (int)j;
	}
	return -1;
}

enum tree_state tree_state(const struct tree *t)
{
	enum tree_state state = TREE_WHOLE;
	size_t i;

	for (i = 0; i < t->count; i++) {
		const struct tree_span *s = &t->spans[i];

		if (!s->has_parent || find_parent(t, i) >= 0)
			continue;
		if (!s->remote_parent)
			return TREE_PARTIAL;
		state = TREE_ENTERED;
	}
	return state;
}

static int by_start(const void *a, const void *b)
{
	const struct tree_span *x = a, *y = b;

	if (x->start_ns != y->start_ns)
		return x->start_ns < y->start_ns ? -1 : 1;
	return x->end_ns == y->end_ns ? 0 : x->end_ns > y->end_ns ? -1 : 1;
}

static struct slice text_slice(const struct drawing *d, struct tree_text text)
{
	return slice_of(d->tree->text.data + text.offset, text.len);
}

static void colour(const struct drawing *d, const char *code)
{
	if (d->style->colours)
		buf_append_str(d->out, code);
}

/* A steady colour for each service: one of the six that are neither black, white nor red. */
static const char *service_colour(struct slice name)
{
	static const char *const codes[] = { "\033[36m", "\033[32m", "\033[34m",
					     "\033[35m", "\033[33m", "\033[96m" };
	uint32_t h = 2166136261U;
	size_t i;

	for (i = 0; i < name.len; i++)
		h = (h ^ name.data[i]) * 16777619U;
	return codes[h % (sizeof(codes) / sizeof(codes[0]))];
}

static unsigned int level_of(unsigned int depth)
{
	return depth < INDENT_MAX_LEVELS ? depth : INDENT_MAX_LEVELS;
}

/* How deep the span lies; a circle of parents ends at the number of spans. */
static unsigned int depth_of(const struct drawing *d, size_t i)
{
	unsigned int depth = 0;

	while (d->parent[i] >= 0 && depth < d->tree->count) {
		i = (size_t)d->parent[i];
		depth++;
	}
	return depth;
}

static void measure(struct drawing *d)
{
	const struct tree *t = d->tree;
	unsigned int fixed, most;
	size_t i;

	d->start_ns = UINT64_MAX;
	for (i = 0; i < t->count; i++) {
		const struct tree_span *s = &t->spans[i];
		unsigned int name = s->name.cols + level_of(depth_of(d, i)) * INDENT_COLS;
		unsigned int note = s->note.cols + (s->error ? sizeof("error ") - 1 : 0);

		d->start_ns = s->start_ns < d->start_ns ? s->start_ns : d->start_ns;
		d->end_ns = s->end_ns > d->end_ns ? s->end_ns : d->end_ns;
		d->service_cols =
			s->service.cols > d->service_cols ? s->service.cols : d->service_cols;
		d->name_cols = name > d->name_cols ? name : d->name_cols;
		d->note_cols = note > d->note_cols ? note : d->note_cols;
	}
	/* Two spaces between columns. The name gives way to the bar's least, the bar takes the
	 * rest. */
	fixed = d->service_cols + DISPLAY_DURATION_COLS + d->note_cols + 4 * 2;
	most = d->style->width > fixed + BAR_MIN_COLS + 8 ? d->style->width - fixed - BAR_MIN_COLS
							  : 8;
	d->name_cols = d->name_cols < most ? d->name_cols : most;
	d->bar_cols =
		d->style->width > fixed + d->name_cols ? d->style->width - fixed - d->name_cols : 0;
}

static void draw_bar(const struct drawing *d, const struct tree_span *s)
{
	uint64_t span_ns = d->end_ns > d->start_ns ? d->end_ns - d->start_ns : 1;
	double scale = (double)d->bar_cols / (double)span_ns;
	unsigned int from, to, i;

	if (!d->bar_cols)
		return;
	from = (unsigned int)((double)(s->start_ns - d->start_ns) * scale);
	to = s->end_ns > s->start_ns
		     ? (unsigned int)((double)(s->end_ns - d->start_ns) * scale + 0.5)
		     : from;
	from = from < d->bar_cols ? from : d->bar_cols - 1;
	to = to > from ? to : from + 1;
	to = to < d->bar_cols ? to : d->bar_cols;
	display_pad(d->out, from);
	colour(d, s->error ? RED : service_colour(text_slice(d, s->service)));
	for (i = from; i < to; i++)
		buf_append_str(d->out, d->style->utf8 ? "━" : "=");
	colour(d, RESET);
	display_pad(d->out, d->bar_cols - to);
}

static unsigned int draw_guides(const struct drawing *d, unsigned int level)
{
	unsigned int i;

	colour(d, DIM);
	for (i = 1; i <= level; i++) {
		const char *guide;

		if (i < level)
			guide = !d->more[i] ? "   " : d->style->utf8 ? "│  " : "|  ";
		else if (d->more[i])
			guide = d->style->utf8 ? "├─ " : "|- ";
		else
			guide = d->style->utf8 ? "└─ " : "`- ";
		buf_append_str(d->out, guide);
	}
	colour(d, RESET);
	return level * INDENT_COLS;
}

static void draw_span(const struct drawing *d, const struct tree_span *s, unsigned int level)
{
	struct slice service = text_slice(d, s->service);
	struct buf duration = { 0 };
	unsigned int cols;

	colour(d, service_colour(service));
	buf_append(d->out, service.data, service.len);
	colour(d, RESET);
	display_pad(d->out, d->service_cols - s->service.cols + 2);
	cols = draw_guides(d, level);
	colour(d, s->error ? RED : "");
	if (cols < d->name_cols)
		cols += display_append(d->out, text_slice(d, s->name), d->name_cols - cols,
				       d->style->utf8);
	colour(d, RESET);
	display_pad(d->out, (cols < d->name_cols ? d->name_cols - cols : 0) + 2);
	draw_bar(d, s);
	cols = display_duration(&duration, s->end_ns > s->start_ns ? s->end_ns - s->start_ns : 0,
				d->style->utf8);
	display_pad(d->out, 2 + (cols < DISPLAY_DURATION_COLS ? DISPLAY_DURATION_COLS - cols : 0));
	buf_append(d->out, duration.data, duration.len);
	buf_free(&duration);
	if (s->error || s->note.len) {
		display_pad(d->out, 2);
		colour(d, s->error ? RED : DIM);
		buf_append_str(d->out, s->error ? "error " : "");
		buf_append(d->out, d->tree->text.data + s->note.offset, s->note.len);
		colour(d, RESET);
	}
	buf_append_char(d->out, '\n');
}

/* The next span below `parent` (-1: the roots) from index `from` on that was not drawn; -1: none.
 */
static int next_child(const struct drawing *d, int parent, size_t from)
{
	size_t i;

	for (i = from; i < d->tree->count; i++) {
		if (d->parent[i] == parent && !d->drawn[i])
			return (int)i;
	}
	return -1;
}

static void draw_below(struct drawing *d, size_t i, unsigned int depth)
{
	int child, next;

	d->drawn[i] = true;
	draw_span(d, &d->tree->spans[i], level_of(depth));
	for (child = next_child(d, (int)i, 0); child >= 0; child = next) {
		next = next_child(d, (int)i, (size_t)child + 1);
		d->more[level_of(depth + 1)] = next >= 0;
		draw_below(d, (size_t)child, depth + 1);
	}
}

static void draw_head(const struct drawing *d)
{
	const struct tree *t = d->tree;
	const char *dot = d->style->utf8 ? " · " : ", ";
	size_t errors = 0, orphans = 0, i;

	for (i = 0; i < t->count; i++) {
		errors += t->spans[i].error;
		orphans += t->spans[i].kind == SPAN_CLIENT && !t->spans[i].has_parent;
	}
	colour(d, BOLD);
	buf_append_str(d->out, "trace ");
	for (i = 0; i < TRACE_ID_BYTES; i++)
		buf_printf(d->out, "%02x", t->trace_id[i]);
	colour(d, RESET);
	buf_printf(d->out, "%s%zu span%s%s", dot, t->count, t->count == 1 ? "" : "s", dot);
	display_duration(d->out, d->end_ns > d->start_ns ? d->end_ns - d->start_ns : 0,
			 d->style->utf8);
	if (errors) {
		buf_append_str(d->out, dot);
		colour(d, RED);
		buf_printf(d->out, "%zu error%s", errors, errors == 1 ? "" : "s");
		colour(d, RESET);
	}
	if (orphans)
		buf_printf(d->out, "%sa call without a parent", dot);
	buf_append_char(d->out, '\n');
}

void tree_draw(struct tree *t, const struct tree_style *style, struct buf *out)
{
	struct drawing *d = calloc(1, sizeof(*d));
	size_t i;

	if (!d || !t->count) {
		out->failed = out->failed || !d;
		free(d);
		return;
	}
	qsort(t->spans, t->count, sizeof(*t->spans), by_start);
	d->tree = t;
	d->style = style;
	d->out = out;
	for (i = 0; i < t->count; i++)
		d->parent[i] = find_parent(t, i);
	measure(d);
	draw_head(d);
	for (i = 0; i < t->count; i++) {
		if (d->parent[i] < 0)
			draw_below(d, i, 0);
	}
	/* What is left has its parents in a circle. */
	for (i = 0; i < t->count; i++) {
		if (!d->drawn[i])
			draw_below(d, i, 0);
	}
	buf_append_char(out, '\n');
	free(d);
}
