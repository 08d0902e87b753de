/* Widths are of the characters that names in traces have: ASCII, letters, East Asian wide ones,
 * combining marks. */
#include "export/display.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "export/otlp_encode_text.h"

enum { PIECE_BYTES = 16 };

/* Columns of a printable code point: 0 for combining marks, 2 for East Asian wide characters and
 * emoji. */
static unsigned int point_cols(uint32_t c)
{
	static const struct {
		uint32_t low, high;
		unsigned int cols;
	} ranges[] = {
		{ 0x0300, 0x036f, 0 },   { 0x1100, 0x115f, 2 },   { 0x20d0, 0x20f0, 0 },
		{ 0x2e80, 0xa4cf, 2 },   { 0xac00, 0xd7a3, 2 },   { 0xf900, 0xfaff, 2 },
		{ 0xfe00, 0xfe0f, 0 },   { 0xfe30, 0xfe6f, 2 },   { 0xff00, 0xff60, 2 },
		{ 0x1f300, 0x1faff, 2 }, { 0x20000, 0x3fffd, 2 }, { 0xe0000, 0xe0fff, 0 },
	};
	size_t i;

	for (i = 0; c >= 0x300 && i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		if (c >= ranges[i].low && c <= ranges[i].high)
			return ranges[i].cols;
	}
	return 1;
}

/* The next character as it is shown, and its columns. */
static unsigned int next_piece(struct slice *text, bool utf8, char piece[PIECE_BYTES])
{
	struct slice before = *text;
	uint32_t point = utf8_next(text);

	if (utf8_is_control(point))
		return (unsigned int)snprintf(piece, PIECE_BYTES,
					      point < 0x100 ? "\\x%02" PRIx32 : "\\u{%" PRIx32 "}",
					      point);
	if (point >= 0x80 && !utf8) {
		snprintf(piece, PIECE_BYTES, "?");
		return 1;
	}
	if (point == UTF8_REPLACEMENT)
		before = slice_of("\xef\xbf\xbd", UTF8_REPLACEMENT_BYTES);
	else
		before.len -= text->len;
	memcpy(piece, before.data, before.len);
	piece[before.len] = '\0';
	return point_cols(point);
}

unsigned int display_append(struct buf *out, struct slice text, unsigned int max_cols, bool utf8)
{
	size_t keep = out->len; /* where the text is cut to make room for the ellipsis */
	unsigned int cols = 0, keep_cols = 0;
	char piece[PIECE_BYTES];

	while (text.len) {
		unsigned int n = next_piece(&text, utf8, piece);

		if (cols + n > max_cols) {
			out->len = out->failed ? out->len : keep;
			buf_append_str(out, utf8 ? "…" : "~");
			return keep_cols + 1;
		}
		buf_append_str(out, piece);
		cols += n;
		if (cols < max_cols) {
			keep = out->len;
			keep_cols = cols;
		}
	}
	return cols;
}

unsigned int display_cols(struct slice text)
{
	unsigned int cols = 0;

	while (text.len)
		cols += point_cols(utf8_next(&text));
	return cols;
}

void display_pad(struct buf *out, unsigned int cols)
{
	while (cols--)
		buf_append_char(out, ' ');
}

unsigned int display_duration(struct buf *out, uint64_t ns, bool utf8)
{
	static const struct {
		uint64_t below; /* ns */
		uint64_t unit_ns;
		const char *name, *ascii;
	} units[] = {
		{ UINT64_C(1000), 1, "ns", "ns" },
		{ UINT64_C(1000000), 1000, "µs", "us" },
		{ UINT64_C(1000000000), 1000000, "ms", "ms" },
		{ UINT64_C(600000000000), 1000000000, "s", "s" },
		{ UINT64_MAX, 60000000000, "min", "min" },
	};
	char text[48];
	double value;
	size_t i = 0;

	while (ns >= units[i].below && units[i].below != UINT64_MAX)
		i++;
	value = (double)ns / (double)units[i].unit_ns;
	if (value > 99999)
		value = 99999;
	snprintf(text, sizeof(text), "%.*f %s",
		 i == 0 || value >= 100 ? 0
		 : value >= 10          ? 1
					: 2,
		 value, utf8 ? units[i].name : units[i].ascii);
	buf_append_str(out, text);
	return display_cols(slice_str(text));
}
