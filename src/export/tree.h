/*
 * One trace as people read it: its spans as far as they are known here, and their drawing as a tree
 * of lines. A tree owns copies of what it shows, bounded in number and length. Pure: no clock, no
 * terminal.
 */
#ifndef EXPORT_TREE_H
#define EXPORT_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "trace/span.h"

enum { TREE_MAX_SPANS = 256 };

struct tree_text {
	uint32_t offset, len, cols; /* in tree.text, as display_append made it */
};

struct tree_span {
	uint8_t id[SPAN_ID_BYTES], parent[SPAN_ID_BYTES];
	bool has_parent, remote_parent, error;
	enum span_kind kind;
	uint64_t start_ns, end_ns;
	struct tree_text service, name, note;
};

struct tree {
	struct list node;    /* for its holder */
	uint64_t touched_ns; /* for its holder: when the last span came */
	uint8_t trace_id[TRACE_ID_BYTES];
	struct tree_span *spans;
	size_t count, cap;
	struct buf text;
};

/* How it is drawn. */
struct tree_style {
	unsigned int width; /* columns */
	bool colours, utf8;
};

enum tree_state {
	TREE_WHOLE,   /* a span without parent, and nothing below a span that is not here */
	TREE_ENTERED, /* the same, but its parents may be spans of others that come later */
	TREE_PARTIAL  /* a span of this host is missing still */
};

/* NULL when out of memory. */
struct tree *tree_new(const uint8_t trace_id[TRACE_ID_BYTES]);
/* Takes NULL. */
void tree_free(struct tree *t);
/* Copies what is shown of the span; false when out of memory or full. `utf8` as in tree_style. */
bool tree_add(struct tree *t, const struct span *s, bool utf8);
enum tree_state tree_state(const struct tree *t);
/* Appends the lines; sorts the spans. A failure is sticky in *out. */
void tree_draw(struct tree *t, const struct tree_style *style, struct buf *out);

#endif
