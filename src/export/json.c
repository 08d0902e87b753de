/* JSON written by hand into a buffer. Invariant: whatever the spans hold, the text is one valid
 * JSON value. */
#include "export/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "export/otlp_encode.h"
#include "export/otlp_encode_text.h"
#include "trace/resource.h"

/* Characters that stand for themselves inside quotes: printable ASCII but for '"' and '\'. */
static bool plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* One character that does not stand for itself: escaped, or copied as the UTF-8 it is. */
static void append_special(struct buf *out, struct slice *text)
{
	const uint8_t *start = text->data;
	uint32_t point = utf8_next(text);

	if (point == '"' || point == '\\')
		buf_printf(out, "\\%c", (char)point);
	else if (point == '\n')
		buf_append_str(out, "\\n");
	else if (point == '\t')
		buf_append_str(out, "\\t");
	else if (utf8_is_control(point))
		buf_printf(out, "\\u%04x", point); /* all of them are below 0x10000 */
	else if (point == UTF8_REPLACEMENT)
		buf_append_str(out, "\xef\xbf\xbd");
	else
		buf_append(out, start, (size_t)(text->data - start));
}

void json_append_string(struct buf *out, struct slice text)
{
	buf_append_char(out, '"');
	while (text.len) {
		size_t n = 0;

		while (n < text.len && plain(text.data[n]))
			n++;
		buf_append(out, text.data, n);
		text = slice_of(text.data + n, text.len - n);
		if (text.len)
			append_special(out, &text);
	}
	buf_append_char(out, '"');
}

static void append_hex(struct buf *out, const uint8_t *id, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	buf_append_char(out, '"');
	for (i = 0; i < len; i++) {
		buf_append_char(out, digits[id[i] >> 4]);
		buf_append_char(out, digits[id[i] & 15]);
	}
	buf_append_char(out, '"');
}

static void append_comma(struct buf *out, bool *first)
{
	if (!*first)
		buf_append_char(out, ',');
	*first = false;
}

/* {"key":"k","value":{"stringValue":"v"}} */
static void append_otlp_attr(struct buf *out, const char *key, const struct attr *a,
			     struct slice text)
{
	buf_append_str(out, "{\"key\":");
	json_append_string(out, slice_str(key));
	buf_append_str(out, ",\"value\":{");
	switch (a->type) {
	case ATTR_STRING:
		buf_append_str(out, "\"stringValue\":");
		json_append_string(out, text);
		break;
	case ATTR_INT:
		buf_printf(out, "\"intValue\":\"%" PRId64 "\"", a->integer);
		break;
	case ATTR_BOOL:
		buf_printf(out, "\"boolValue\":%s", a->integer ? "true" : "false");
		break;
	}
	buf_append_str(out, "}}");
}

static void append_otlp_resource(struct buf *out, const struct resource *r)
{
	bool first = true;
	size_t i;

	buf_append_str(out, "\"resource\":{\"attributes\":[");
	if (!r || !resource_find(r, "service.name")) {
		append_otlp_attr(out, "service.name", &(struct attr){ .type = ATTR_STRING },
				 slice_str("unknown_service"));
		first = false;
	}
	for (i = 0; r && i < r->attr_count; i++) {
		const struct resource_attr *a = &r->attrs[i];
		struct attr value = { .type = a->is_int ? ATTR_INT : ATTR_STRING };

		if (a->is_int)
			value.integer = strtoll(a->value, NULL, 10);
		append_comma(out, &first);
		append_otlp_attr(out, a->key, &value, slice_str(a->value));
	}
	buf_append_str(out, "]}");
}

static void append_ids(struct buf *out, const struct span *s)
{
	buf_append_str(out, "{\"traceId\":");
	append_hex(out, s->trace_id, TRACE_ID_BYTES);
	buf_append_str(out, ",\"spanId\":");
	append_hex(out, s->span_id, SPAN_ID_BYTES);
	if (s->has_parent) {
		buf_append_str(out, ",\"parentSpanId\":");
		append_hex(out, s->parent_span_id, SPAN_ID_BYTES);
	}
	if (s->trace_state_len) {
		buf_append_str(out, ",\"traceState\":");
		json_append_string(out, span_trace_state(s));
	}
	buf_append_str(out, ",\"name\":");
	json_append_string(out, span_name(s));
}

static void append_times(struct buf *out, const struct span *s, int64_t unix_offset_ns)
{
	buf_printf(out,
		   ",\"startTimeUnixNano\":\"%" PRIu64 "\",\"endTimeUnixNano\":\"%" PRIu64 "\"",
		   s->start_ns + (uint64_t)unix_offset_ns, s->end_ns + (uint64_t)unix_offset_ns);
}

static void append_otlp_span(struct buf *out, const struct span *s, int64_t unix_offset_ns)
{
	bool first = true;
	uint32_t i;

	append_ids(out, s);
	buf_printf(out, ",\"kind\":%d,\"flags\":%" PRIu32, (int)s->kind, otlp_span_flags(s));
	append_times(out, s, unix_offset_ns);
	buf_append_str(out, ",\"attributes\":[");
	for (i = 0; i < s->attr_count; i++) {
		const struct attr *a = &s->attrs[i];

		append_comma(out, &first);
		append_otlp_attr(out, a->key, a,
				 a->type == ATTR_STRING ? span_attr_str(s, a) : slice_of(NULL, 0));
	}
	buf_append_char(out, ']');
	if (s->dropped_attr_count)
		buf_printf(out, ",\"droppedAttributesCount\":%" PRIu32, s->dropped_attr_count);
	if (s->status == SPAN_STATUS_UNSET)
		buf_append_str(out, ",\"status\":{}}");
	else
		buf_printf(out, ",\"status\":{\"code\":%d}}", (int)s->status);
}

void json_append_request(struct buf *out, const struct span_batch *batch)
{
	size_t i;

	buf_append_str(out, "{\"resourceSpans\":[");
	for (i = 0; i < batch->count; i++) {
		const struct span *s = batch->spans[i];

		if (i && batch->spans[i - 1]->resource == s->resource) {
			buf_append_char(out, ',');
		} else {
			buf_append_str(out, i ? "]}]},{" : "{");
			append_otlp_resource(out, s->resource);
			buf_append_str(out,
				       ",\"scopeSpans\":[{\"scope\":{\"name\":\"" OTLP_SCOPE_NAME
				       "\",\"version\":\"" SPANLOOM_VERSION "\"},\"spans\":[");
		}
		append_otlp_span(out, s, batch->unix_offset_ns);
	}
	buf_append_str(out, batch->count ? "]}]}]}" : "]}");
}

static void append_flat_attrs(struct buf *out, const struct span *s)
{
	bool first = true;
	uint32_t i;

	buf_append_str(out, ",\"attributes\":{");
	for (i = 0; i < s->attr_count; i++) {
		const struct attr *a = &s->attrs[i];

		append_comma(out, &first);
		json_append_string(out, slice_str(a->key));
		buf_append_char(out, ':');
		if (a->type == ATTR_STRING)
			json_append_string(out, span_attr_str(s, a));
		else if (a->type == ATTR_BOOL)
			buf_append_str(out, a->integer ? "true" : "false");
		else
			buf_printf(out, "%" PRId64, a->integer);
	}
	buf_append_char(out, '}');
}

static void append_flat_resource(struct buf *out, const struct resource *r)
{
	bool first = true;
	size_t i;

	buf_append_str(out, ",\"resource\":{");
	for (i = 0; r && i < r->attr_count; i++) {
		const struct resource_attr *a = &r->attrs[i];

		append_comma(out, &first);
		json_append_string(out, slice_str(a->key));
		buf_append_char(out, ':');
		if (a->is_int)
			buf_append_str(out, a->value);
		else
			json_append_string(out, slice_str(a->value));
	}
	buf_append_char(out, '}');
}

void json_append_span(struct buf *out, const struct span *s, int64_t unix_offset_ns)
{
	static const char *const kinds[] = { "UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT" };
	static const char *const statuses[] = { "UNSET", "OK", "ERROR" };

	append_ids(out, s);
	buf_printf(out, ",\"kind\":\"%s\"", kinds[s->kind]);
	append_times(out, s, unix_offset_ns);
	append_flat_attrs(out, s);
	buf_printf(out, ",\"status\":{\"code\":\"%s\"}", statuses[s->status]);
	append_flat_resource(out, s->resource);
	buf_append_char(out, '}');
}
