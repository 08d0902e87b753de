/* Parses traceparent, and nothing else of the trace context. Pure; refuses what W3C calls invalid.
 */
#include "trace/trace_context.h"

/* version "-" trace-id "-" parent-id "-" flags, in hex digits */
enum { VERSION_AT = 0, TRACE_ID_AT = 3, SPAN_ID_AT = 36, FLAGS_AT = 53, TRACEPARENT_BYTES = 55 };

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* The digits of `count` bytes; *ret_any tells whether one of them is not zero. */
static bool hex_bytes(const uint8_t *text, uint8_t *bytes, size_t count, bool *ret_any)
{
	size_t i;
	int all = 0;

	for (i = 0; i < count; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
		all |= bytes[i];
	}
	*ret_any = all != 0;
	return true;
}

bool trace_context_parse(struct slice traceparent, struct trace_context *ret)
{
	const uint8_t *text = traceparent.data;
	struct trace_context tc;
	uint8_t version;
	bool any;

	if (traceparent.len < TRACEPARENT_BYTES)
		return false;
	if (text[TRACE_ID_AT - 1] != '-' || text[SPAN_ID_AT - 1] != '-' ||
	    text[FLAGS_AT - 1] != '-')
		return false;
	if (!hex_bytes(text + VERSION_AT, &version, 1, &any) || version == 0xff)
		return false;
	if (version == 0 && traceparent.len != TRACEPARENT_BYTES)
		return false;
	if (traceparent.len > TRACEPARENT_BYTES && text[TRACEPARENT_BYTES] != '-')
		return false;
	if (!hex_bytes(text + TRACE_ID_AT, tc.trace_id, TRACE_ID_BYTES, &any) || !any)
		return false;
	if (!hex_bytes(text + SPAN_ID_AT, tc.span_id, SPAN_ID_BYTES, &any) || !any)
		return false;
	if (!hex_bytes(text + FLAGS_AT, &tc.flags, 1, &any))
		return false;
	*ret = tc;
	return true;
}
