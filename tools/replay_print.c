/*
 * The text form of what came out of a run, as the golden tests compare it. It is stable: it depends
 * on nothing but the run.
 */
#include <inttypes.h>

#include "replay_run.h"
#include "trace/resource.h"

static void put_text(struct buf *out, struct slice text)
{
	size_t i;

	for (i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];

		if (c == '\\')
			buf_append_str(out, "\\\\");
		else if (c == '\r' || c == '\n')
			buf_append_str(out, c == '\r' ? "\\r" : "\\n");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(out, "\\x%02x", c);
		else
			buf_append_char(out, (char)c);
	}
}

static void put_hex(struct buf *out, const uint8_t *data, size_t len)
{
	while (len--)
		buf_printf(out, "%02x", *data++);
}

/* "parent 2" within the output, "remote <trace>/<span>" from the wire, "root" (with the trace when
 * its id was given), else "parent ?". */
static void put_parent(struct buf *out, const struct run *r, const struct span *s)
{
	static const uint8_t none[TRACE_ID_BYTES / 2]; /* as in the ids that are made here */
	size_t i;

	if (!s->has_parent) {
		buf_append_str(out, "root");
		if (memcmp(s->trace_id, none, sizeof(none)) != 0) {
			buf_append_str(out, " of ");
			put_hex(out, s->trace_id, TRACE_ID_BYTES);
		}
		return;
	}
	for (i = 0; i < r->count; i++) {
		const struct span *p = r->spans[i];

		if (memcmp(p->span_id, s->parent_span_id, SPAN_ID_BYTES) == 0) {
			bool same = memcmp(p->trace_id, s->trace_id, TRACE_ID_BYTES) == 0;

			buf_printf(out, "parent %zu%s", i + 1, same ? "" : " of another trace");
			return;
		}
	}
	if (!s->remote_parent) {
		buf_append_str(out, "parent ?");
		return;
	}
	buf_append_str(out, "remote ");
	put_hex(out, s->trace_id, TRACE_ID_BYTES);
	buf_append_char(out, '/');
	put_hex(out, s->parent_span_id, SPAN_ID_BYTES);
}

static void put_attr(struct buf *out, const struct span *s, const struct attr *a)
{
	buf_printf(out, "  %s = ", a->key);
	if (a->type == ATTR_STRING)
		put_text(out, span_attr_str(s, a));
	else if (a->type == ATTR_INT)
		buf_printf(out, "%" PRId64, a->integer);
	else
		buf_append_str(out, a->integer ? "true" : "false");
	buf_append_char(out, '\n');
}

static void put_span(struct buf *out, const struct run *r, size_t i)
{
	const struct span *s = r->spans[i];
	uint32_t k;

	buf_printf(out, "%zu %s ", i + 1,
		   s->kind == SPAN_SERVER   ? "SERVER"
		   : s->kind == SPAN_CLIENT ? "CLIENT"
					    : "INTERNAL");
	put_text(out, span_name(s));
	buf_printf(out, " %" PRIu64 "-%" PRIu64 " pid %u ", s->start_ns, s->end_ns,
		   s->resource ? s->resource->pid : 0);
	put_parent(out, r, s);
	if (s->status == SPAN_STATUS_ERROR)
		buf_append_str(out, " ERROR");
	buf_append_char(out, '\n');
	if (span_trace_state(s).len) {
		buf_append_str(out, "  tracestate ");
		put_text(out, span_trace_state(s));
		buf_append_char(out, '\n');
	}
	for (k = 0; k < s->attr_count; k++)
		put_attr(out, s, &s->attrs[k]);
}

void run_print(struct buf *out, const struct run *r, bool drops)
{
	size_t i;

	for (i = 0; i < r->count; i++)
		put_span(out, r, i);
	for (i = 0; drops && i < DROP_REASON_COUNT; i++) {
		if (r->stats.drops[i])
			buf_printf(out, "dropped %s %" PRIu64 "\n",
				   drop_reason_name((enum drop_reason)i), r->stats.drops[i]);
	}
	buf_append(out, r->told.data, r->told.len);
}
