/*
 * UTF-8 decoding after the table of well-formed sequences in the Unicode standard (3.9, table 3-7):
 * each lead byte says how many bytes follow and which range the first of them has. ASCII is passed
 * over eight at a time.
 */
#include "export/otlp_encode_text.h"

#include <string.h>

struct lead {
	uint8_t more;      /* bytes that follow, 0: no lead byte */
	uint8_t low, high; /* range of the first of them */
	uint8_t bits;      /* payload of the lead byte */
};

static struct lead lead_of(uint8_t c)
{
	if (c >= 0xc2 && c <= 0xdf)
		return (struct lead){ 1, 0x80, 0xbf, c & 0x1f };
	if (c >= 0xe0 && c <= 0xef)
		return (struct lead){ 2, c == 0xe0 ? 0xa0 : 0x80, c == 0xed ? 0x9f : 0xbf,
				      c & 0x0f };
	if (c >= 0xf0 && c <= 0xf4)
		return (struct lead){ 3, c == 0xf0 ? 0x90 : 0x80, c == 0xf4 ? 0x8f : 0xbf,
				      c & 0x07 };
	return (struct lead){ 0, 0, 0, 0 };
}

uint32_t utf8_next(struct slice *text)
{
	uint8_t c = text->data[0];
	struct lead lead;
	uint32_t point;
	size_t i;

	if (c < 0x80) {
		*text = slice_of(text->data + 1, text->len - 1);
		return c;
	}
	lead = lead_of(c);
	point = lead.bits;
	for (i = 1; i <= lead.more && i < text->len; i++) {
		uint8_t next = text->data[i];

		if (next < (i == 1 ? lead.low : 0x80) || next > (i == 1 ? lead.high : 0xbf))
			break;
		point = point << 6 | (next & 0x3f);
	}
	*text = slice_of(text->data + i, text->len - i);
	return lead.more && i == lead.more + 1U ? point : UTF8_REPLACEMENT;
}

/* The length of the ASCII at the start of `text`, in whole words. */
static size_t ascii_words(struct slice text)
{
	size_t i = 0;
	uint64_t word;

	for (; i + sizeof(word) <= text.len; i += sizeof(word)) {
		memcpy(&word, text.data + i, sizeof(word));
		if (word & 0x8080808080808080ULL)
			break;
	}
	return i;
}

/* The length of the valid run at the start of `text`. */
static size_t valid_prefix(struct slice text)
{
	struct slice rest = text;

	while (rest.len) {
		size_t skip = ascii_words(rest);
		struct slice before;

		rest = slice_of(rest.data + skip, rest.len - skip);
		if (!rest.len)
			break;
		before = rest;
		/* U+FFFD itself is valid when it is written as itself. */
		if (utf8_next(&rest) == UTF8_REPLACEMENT &&
		    (before.len - rest.len != UTF8_REPLACEMENT_BYTES ||
		     memcmp(before.data, "\xef\xbf\xbd", 3) != 0))
			return text.len - before.len;
	}
	return text.len;
}

bool utf8_valid(struct slice text)
{
	return valid_prefix(text) == text.len;
}

void utf8_append_clean(struct buf *out, struct slice text)
{
	while (text.len) {
		size_t good = valid_prefix(text);

		buf_append(out, text.data, good);
		text = slice_of(text.data + good, text.len - good);
		if (!text.len)
			return;
		utf8_next(&text);
		buf_append(out, "\xef\xbf\xbd", UTF8_REPLACEMENT_BYTES);
	}
}

bool utf8_is_control(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
	       (point >= 0x200b && point <= 0x200f) || (point >= 0x2028 && point <= 0x202e) ||
	       (point >= 0x2060 && point <= 0x206f) || point == 0xfeff;
}
