/*
 * The exporter "console": spans on standard output, as a tree for each trace or as a JSON object a
 * line. It owns the traces that are not shown yet. Invariant: at most CONSOLE_MAX_TRACES of them
 * with at most CONSOLE_MAX_SPANS spans together: one more shows the oldest at once. Output never
 * waits; what a slow reader misses is counted.
 */
#include "export/exporters.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "config/options.h"
#include "export/json.h"
#include "export/terminal.h"
#include "export/tree.h"

enum { CONSOLE_MAX_TRACES = 1024, CONSOLE_MAX_SPANS = 8192 };

static const uint64_t MS = 1000000;

/* How long a trace must have been quiet to be shown, by enum tree_state. */
static const uint64_t quiet_ms[] = {
	[TREE_WHOLE] = 300, [TREE_ENTERED] = 1000, [TREE_PARTIAL] = 5000
};

enum { CONSOLE_LOOK_MS = 100, CONSOLE_WRITE_MS = 20 };

struct console {
	struct stats *stats;
	bool json, said_gone;
	struct terminal terminal;
	struct tree_style style;
	struct hash by_trace; /* the last eight bytes of the trace id → struct tree */
	struct list trees;    /* longest untouched first */
	size_t span_count;
	uint64_t next_ns; /* UINT64_MAX: nothing to wait for */
	struct buf text;  /* scratch */
};

static uint64_t trace_key(const uint8_t *trace_id)
{
	uint64_t key;

	memcpy(&key, trace_id + TRACE_ID_BYTES - sizeof(key), sizeof(key));
	return key;
}

static void put_text(struct console *c, size_t spans)
{
	if (c->text.failed) {
		stats_drop(c->stats, DROP_NO_MEMORY, spans);
		return;
	}
	if (!terminal_write(&c->terminal, slice_of(c->text.data, c->text.len)))
		stats_drop(c->stats, DROP_CONSOLE_BUSY, spans);
}

/* Draws it and forgets it. */
static void show(struct console *c, struct tree *t)
{
	buf_reset(&c->text);
	tree_draw(t, &c->style, &c->text);
	put_text(c, t->count);
	c->span_count -= t->count;
	hash_remove(&c->by_trace, trace_key(t->trace_id));
	list_remove(&t->node);
	tree_free(t);
}

static struct tree *oldest(const struct console *c)
{
	return list_empty(&c->trees) ? NULL : list_entry(c->trees.next, struct tree, node);
}

/* The tree that takes a span of this trace; NULL when out of memory. */
static struct tree *tree_for(struct console *c, const uint8_t *trace_id)
{
	struct tree *t = hash_get(&c->by_trace, trace_key(trace_id));

	/* Another trace with the same half of its id, or a tree that is full, makes room. */
	if (t &&
	    (memcmp(t->trace_id, trace_id, TRACE_ID_BYTES) != 0 || t->count == TREE_MAX_SPANS)) {
		show(c, t);
		t = NULL;
	}
	if (t)
		return t;
	if (c->by_trace.count == CONSOLE_MAX_TRACES)
		show(c, oldest(c));
	t = tree_new(trace_id);
	if (t && !hash_put(&c->by_trace, trace_key(trace_id), t)) {
		tree_free(t);
		t = NULL;
	}
	return t;
}

static void add_span(struct console *c, const struct span *s, uint64_t now_ns)
{
	struct tree *t;

	if (c->span_count == CONSOLE_MAX_SPANS)
		show(c, oldest(c));
	t = tree_for(c, s->trace_id);
	if (!t || !tree_add(t, s, c->style.utf8)) {
		stats_drop(c->stats, DROP_NO_MEMORY, 1);
		if (t && !t->count) {
			hash_remove(&c->by_trace, trace_key(t->trace_id));
			tree_free(t);
		}
		return;
	}
	c->span_count++;
	t->touched_ns = now_ns;
	list_remove(&t->node);
	list_push(&c->trees, &t->node);
}

/* Writes what is there and says when to come back. */
static void settle(struct console *c, uint64_t now_ns)
{
	bool written = terminal_pump(&c->terminal);

	if (c->terminal.gone && !c->said_gone) {
		log_warning(
			"nobody reads standard output any more; spans are not shown from here on");
		c->said_gone = true;
	}
	if (!written)
		c->next_ns = now_ns + CONSOLE_WRITE_MS * MS;
	else
		c->next_ns = list_empty(&c->trees) ? UINT64_MAX : now_ns + CONSOLE_LOOK_MS * MS;
}

static void console_export(void *state, const struct span_batch *batch, uint64_t now_ns)
{
	struct console *c = state;
	size_t i;

	if (c->terminal.gone) {
		stats_drop(c->stats, DROP_CONSOLE_BUSY, batch->count);
		return;
	}
	for (i = 0; i < batch->count; i++) {
		if (!c->json) {
			add_span(c, batch->spans[i], now_ns);
			continue;
		}
		buf_reset(&c->text);
		json_append_span(&c->text, batch->spans[i], batch->unix_offset_ns);
		buf_append_char(&c->text, '\n');
		put_text(c, 1);
	}
	settle(c, now_ns);
}

static void console_tick(void *state, uint64_t now_ns)
{
	struct console *c = state;
	struct list *it, *tmp;

	c->style.width = terminal_width(&c->terminal);
	list_each_safe(it, tmp, &c->trees) {
		struct tree *t = list_entry(it, struct tree, node);
		uint64_t quiet = now_ns - t->touched_ns;

		if (quiet < quiet_ms[TREE_WHOLE] * MS)
			break; /* the others were touched later */
		if (quiet >= quiet_ms[tree_state(t)] * MS)
			show(c, t);
	}
	settle(c, now_ns);
}

static uint64_t console_next_tick(void *state)
{
	const struct console *c = state;

	return c->next_ns;
}

static bool console_flush(void *state, uint64_t now_ns)
{
	struct console *c = state;
	struct tree *t;

	while ((t = oldest(c)))
		show(c, t);
	settle(c, now_ns);
	return !c->terminal.pending.len;
}

static void console_close(void *state)
{
	struct console *c = state;
	struct tree *t;

	while ((t = oldest(c))) {
		list_remove(&t->node);
		tree_free(t);
	}
	hash_free(&c->by_trace);
	terminal_close(&c->terminal);
	buf_free(&c->text);
	free(c);
}

static void *console_open(const struct options *options, const struct exporter_loop *loop,
			  struct stats *stats, char **ret_error)
{
	struct console *c = calloc(1, sizeof(*c));

	(void)loop;
	if (!c) {
		*ret_error = strdup("console exporter: out of memory");
		return NULL;
	}
	c->stats = stats;
	c->json = options->console == CONSOLE_JSON;
	list_init(&c->trees);
	c->next_ns = UINT64_MAX;
	terminal_open(&c->terminal);
	c->style = (struct tree_style){ .width = terminal_width(&c->terminal),
					.colours = terminal_colours(&c->terminal),
					.utf8 = terminal_utf8() };
	return c;
}

const struct exporter console_exporter = {
	.name = "console",
	.open = console_open,
	.export = console_export,
	.tick = console_tick,
	.next_tick = console_next_tick,
	.flush = console_flush,
	.close = console_close,
};
