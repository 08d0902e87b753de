/* RESP over borrowed bytes. Lines are found by memchr; numbers are bounded; depth is bounded by
 * RESP_MAX_DEPTH. */
#include "protocols/resp_parse.h"

enum { NUMBER_MAX_DIGITS = 18 };

/* The end of the line at `data`, CR LF included; 0: not there yet. */
static size_t line_length(const uint8_t *data, size_t len)
{
	const uint8_t *lf = memchr(data, '\n', len);

	return lf ? (size_t)(lf - data) + 1 : 0;
}

/* "12\r\n", "-1\r\n", "?\r\n". The length with the line's end, RESP_MORE or RESP_BAD. */
static ssize_t read_length(const uint8_t *data, size_t len, int64_t *ret)
{
	int64_t value = 0;
	size_t at = 0, digits;
	bool negative = false;

	if (at < len && data[at] == '?') {
		value = RESP_STREAMED;
		at++;
	} else {
		if (at < len && data[at] == '-') {
			negative = true;
			at++;
		}
		digits = at;
		while (at < len && data[at] >= '0' && data[at] <= '9' &&
		       at - digits < NUMBER_MAX_DIGITS)
			value = value * 10 + (data[at++] - '0');
		if (at < len && at == digits)
			return RESP_BAD;
		if (negative) {
			if (at < len && value != 1)
				return RESP_BAD;
			value = RESP_NULL;
		}
	}
	if (at >= len)
		return RESP_MORE;
	if (data[at] != '\r')
		return RESP_BAD;
	if (at + 1 >= len)
		return RESP_MORE;
	if (data[at + 1] != '\n')
		return RESP_BAD;
	*ret = value;
	return (ssize_t)at + 2;
}

ssize_t resp_header_read(const uint8_t *data, size_t len, struct resp_header *ret)
{
	size_t used;
	ssize_t n;

	if (!len)
		return RESP_MORE;
	ret->type = data[0];
	switch (data[0]) {
	case '$':
	case '*':
	case '%':
	case '~':
	case '|':
	case '>':
	case '=':
	case '!':
	case ';':
		n = read_length(data + 1, len - 1, &ret->value);
		return n > 0 ? n + 1 : n;
	case '+':
	case '-':
	case ':':
	case ',':
	case '(':
	case '#':
	case '_':
	case '.':
		used = line_length(data, len);
		if (!used)
			return RESP_MORE;
		if (used < 3 || data[used - 2] != '\r')
			return RESP_BAD;
		ret->value = 0;
		ret->text = slice_of(data + 1, used - 3);
		return (ssize_t)used;
	default:
		return RESP_BAD;
	}
}

/* A whole element: closes every aggregate that it completes. */
static enum resp_step element_done(struct resp_walk *w)
{
	while (w->depth) {
		struct resp_frame *f = &w->frames[w->depth - 1];

		if (f->left == UINT64_MAX || --f->left)
			return RESP_STEP_GOES_ON;
		w->depth--;
		/* Attributes come before the value they speak of and are none themselves. */
		if (f->type == '|')
			return RESP_STEP_GOES_ON;
	}
	return RESP_STEP_DONE;
}

static enum resp_step open_aggregate(struct resp_walk *w, const struct resp_header *h)
{
	uint64_t left = (uint64_t)h->value;

	if (h->value == RESP_NULL || (h->value == 0 && h->type != '|'))
		return element_done(w);
	if (h->value == 0)
		return RESP_STEP_GOES_ON;
	if (h->value == RESP_STREAMED)
		left = UINT64_MAX;
	else if (h->type == '%' || h->type == '|')
		left *= 2;
	if (w->depth == RESP_MAX_DEPTH)
		return RESP_STEP_BAD;
	w->frames[w->depth++] = (struct resp_frame){ .left = left, .type = h->type };
	return RESP_STEP_GOES_ON;
}

enum resp_step resp_walk_element(struct resp_walk *w, const struct resp_header *h)
{
	const struct resp_frame *top = w->depth ? &w->frames[w->depth - 1] : NULL;
	bool in_string = top && top->left == UINT64_MAX && top->type == '$';

	switch (h->type) {
	case '*':
	case '%':
	case '~':
	case '|':
	case '>':
		return in_string ? RESP_STEP_BAD : open_aggregate(w, h);
	case '$':
		if (h->value == RESP_STREAMED && !in_string)
			return open_aggregate(w, h);
		break;
	case ';': /* a part of a streamed string; the empty one ends it */
		if (!in_string || h->value < 0)
			return RESP_STEP_BAD;
		if (h->value)
			return RESP_STEP_GOES_ON;
		w->depth--;
		return element_done(w);
	case '.':
		if (!top || top->left != UINT64_MAX || in_string)
			return RESP_STEP_BAD;
		w->depth--;
		return top->type == '|' ? RESP_STEP_GOES_ON : element_done(w);
	default:
		break;
	}
	return in_string || h->value == RESP_STREAMED ? RESP_STEP_BAD : element_done(w);
}
