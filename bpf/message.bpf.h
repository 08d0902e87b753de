/*
 * The head of an HTTP/1 request, as an sk_msg program meets it. Looks at data that is linear; what
 * is not is pulled, at most HEAD_MAX bytes. Invariant: whatever is not plain HTTP/1.1 as RFC 9112
 * has it is HEAD_ODD, and believed no further. Included by inject.bpf.c.
 */
#ifndef SPANLOOM_MESSAGE_BPF_H
#define SPANLOOM_MESSAGE_BPF_H

#include "inject.bpf.h"

enum {
	HEAD_MAX = 8192,
	LENGTH_MAX = 1 << 30, /* of what is followed by sequence numbers */
	LENGTH_DIGITS = 9,
};

enum {
	HEAD_COMPLETE = 1,
	HEAD_HTTP11 = 2,
	HEAD_LENGTH = 4,
	HEAD_CHUNKED = 8,
	HEAD_TRACEPARENT = 16,
	HEAD_UPGRADE = 32,
	HEAD_ODD = 64,
};

/* Zero, which the verifier doesn't know: so it looks at a loop's body for all values at once. */
static volatile u32 unknown_zero;

struct head {
	u32 length;   /* of the body */
	u32 line_end; /* behind the request line */
	u32 end;      /* behind the head; 0: it isn't there whole */
	u32 seen;     /* HEAD_* */
};

enum named { NAME_EMPTY, NAME_BEGUN, NAME_OVER };

struct head_scan {
	struct sk_msg_md *msg;
	u32 length; /* as in struct head, these four */
	u32 line_end;
	u32 end;
	u32 seen;
	u32 at;    /* looked at so far */
	u32 line;  /* where the current line begins */
	u32 named; /* a field's: enum named; of the request line: how many spaces it has */
};

/* `bytes` of the linear data at `pos`; NULL when it ends before. */
static __always_inline u8 *message_at(struct sk_msg_md *msg, u32 pos, u32 bytes)
{
	u8 *data = msg->data, *end = msg->data_end;
	u64 offset = pos;

	barrier_var(offset); /* what is compared is what is used */
	if (offset > 2 * HEAD_MAX)
		return 0;
	data += offset;
	barrier_var(data);
	return data + bytes > end ? 0 : data;
}

static __always_inline u64 word_lower(const u8 *at)
{
	return *(const u64 *)at | 0x2020202020202020ull;
}

/* One space at most: who writes more is believed no further. */
static __always_inline u32 field_value(const struct head_scan *h, u32 pos)
{
	const u8 *p = message_at(h->msg, pos, 1);

	return p && *p == ' ' ? pos + 1 : pos;
}

/* `pos` is behind "Content-Length:". */
static __always_inline void head_length(struct head_scan *h, u32 pos)
{
	u32 length = 0, i;
	u8 c = 0;

	pos = field_value(h, pos);
	for (i = 0; i <= LENGTH_DIGITS; i++) {
		const u8 *p = message_at(h->msg, pos + i, 1);

		c = p ? *p : 0;
		if (c < '0' || c > '9')
			break;
		length = length * 10 + c - '0';
	}
	if (!i || c != '\r' || ((h->seen & HEAD_LENGTH) && length != h->length))
		h->seen |= HEAD_ODD;
	h->seen |= HEAD_LENGTH;
	h->length = length;
}

/* `pos` is behind "Transfer-Encoding:". */
static __always_inline void head_encoding(struct head_scan *h, u32 pos)
{
	const u8 *p = message_at(h->msg, field_value(h, pos), 8);

	if (!p || (*(const u64 *)p | 0x20202020202020ull) !=
			  WORD_OF('c', 'h', 'u', 'n', 'k', 'e', 'd', '\r'))
		h->seen |= HEAD_ODD;
	h->seen |= HEAD_CHUNKED;
}

static __always_inline void head_field_content(struct head_scan *h, u32 pos)
{
	const u8 *p = message_at(h->msg, pos, 15);

	if (!p)
		return;
	if (word_lower(p + 7) == WORD_OF('-', 'l', 'e', 'n', 'g', 't', 'h', ':'))
		head_length(h, pos + 15);
	else if (word_lower(p + 7) == WORD_OF('-', 'l', 'e', 'n', 'g', 't', 'h', ' '))
		h->seen |= HEAD_ODD;
}

static __always_inline void head_field_transfer(struct head_scan *h, u32 pos)
{
	const u8 *p = message_at(h->msg, pos, 18);

	if (!p || word_lower(p + 8) != WORD_OF('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') ||
	    (p[16] | 0x20) != 'g')
		return;
	if (p[17] == ':')
		head_encoding(h, pos + 18);
	else
		h->seen |= HEAD_ODD;
}

static __always_inline void head_field_trace(struct head_scan *h, u32 pos)
{
	const u8 *p = message_at(h->msg, pos, 12);

	if (!p || (p[8] | 0x20) != 'e' || (p[9] | 0x20) != 'n' || (p[10] | 0x20) != 't')
		return;
	if (p[11] == ':')
		h->seen |= HEAD_TRACEPARENT;
	else if (p[11] == ' ' || p[11] == '\t')
		h->seen |= HEAD_ODD;
}

static __always_inline void head_field(struct head_scan *h, u32 pos)
{
	const u8 *p = message_at(h->msg, pos, 8);
	u64 name;

	if (!p)
		return;
	name = word_lower(p);
	if (name == WORD_OF('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r'))
		head_field_trace(h, pos);
	else if (name == WORD_OF('c', 'o', 'n', 't', 'e', 'n', 't', '-'))
		head_field_content(h, pos);
	else if (name == WORD_OF('t', 'r', 'a', 'n', 's', 'f', 'e', 'r'))
		head_field_transfer(h, pos);
	else if (name == WORD_OF('u', 'p', 'g', 'r', 'a', 'd', 'e', ':'))
		h->seen |= HEAD_UPGRADE;
}

/* METHOD SP TARGET SP "HTTP/1.1" CR LF, in which nothing else is a space or a control character. */
static __always_inline void head_request_line(struct head_scan *h, u32 end)
{
	const u8 *p = end < 16 ? 0 : message_at(h->msg, end - 12, 12);

	h->line_end = end;
	if (p && *p != ' ' && h->named == 2 &&
	    *(const u64 *)(p + 1) == WORD_OF(' ', 'H', 'T', 'T', 'P', '/', '1', '.') &&
	    p[9] == '1' && p[10] == '\r')
		h->seen |= HEAD_HTTP11;
}

/* A line goes from h->line to h->at. 1: it is the head's last. */
static __always_inline long head_line(struct head_scan *h)
{
	u32 line = h->line, end = h->at, named = h->named;
	const u8 *p;

	if (!h->line_end) {
		head_request_line(h, end);
		h->line = end;
		h->named = NAME_EMPTY;
		return 0;
	}
	h->line = end;
	h->named = NAME_EMPTY;
	p = message_at(h->msg, end - 2, 2);
	if (!p || *p != '\r')
		h->seen |= HEAD_ODD;
	if (end - line <= 2) {
		h->seen |= HEAD_COMPLETE;
		h->end = end;
		return 1;
	}
	if (named != NAME_OVER)
		h->seen |= HEAD_ODD;
	head_field(h, line);
	return 0;
}

/* Eight bytes of a line, of which those in `of` belong to it (a line's end is not among them). */
static __always_inline void head_word(struct head_scan *h, u64 word, u64 of)
{
	u64 spaces = zero_bytes(word ^ BYTES(' ')) & of, before = of, colons;
	u64 odd = zero_bytes(word & BYTES(0xe0)) & ~zero_bytes(word ^ BYTES('\r'));

	if (!h->line_end) {
		h->named += (u32)((spaces >> 7) * BYTES(1) >> 56);
	} else if (h->named != NAME_OVER) {
		colons = zero_bytes(word ^ BYTES(':')) & of;
		before = of & bytes_below(colons);
		odd |= spaces;
		if (!before && h->named == NAME_EMPTY)
			h->seen |= HEAD_ODD; /* it begins with the colon or is empty */
		h->named = colons ? NAME_OVER : NAME_BEGUN;
	} else {
		return;
	}
	if (odd & before)
		h->seen |= HEAD_ODD;
}

static __always_inline void head_byte(struct head_scan *h, u8 c)
{
	if (!h->line_end || h->named == NAME_OVER)
		return;
	if ((c == ':' && h->named == NAME_EMPTY) || (c <= ' ' && c != '\r' && c != '\n'))
		h->seen |= HEAD_ODD;
	h->named = c == ':' ? NAME_OVER : NAME_BEGUN;
}

/* Goes on to the next line's end, eight bytes at a time. */
static long head_step(u32 index, void *context)
{
	struct head_scan *h = context;
	u32 at = h->at;
	const u8 *p = message_at(h->msg, at, 8);
	u64 word, ends;
	u8 c;

	if (at >= HEAD_MAX)
		return 1;
	if (p) {
		word = *(const u64 *)p;
		ends = zero_bytes(word ^ BYTES('\n'));
		head_word(h, word, bytes_below(ends));
		if (!ends) {
			h->at = at + 8;
			return 0;
		}
		/* As many bytes begin at or below the lowest mark as are to be passed. */
		ends = (ends - 1) & ~ends & BYTES(1);
		h->at = at + (u32)(ends * BYTES(1) >> 56);
		return head_line(h);
	}
	p = message_at(h->msg, at, 1);
	if (!p)
		return 1;
	c = *p;
	head_byte(h, c);
	h->at = at + 1;
	return c == '\n' ? head_line(h) : 0;
}

/*
 * Looks at a message from its beginning. 0: it begins an HTTP/1 request. (The verifier takes a
 * function that isn't static for itself, and so forgets which way through the head was taken.)
 */
__noinline int message_head(struct sk_msg_md *msg, struct head *ret)
{
	struct head_scan h = { msg,          unknown_zero, unknown_zero, unknown_zero,
			       unknown_zero, unknown_zero, unknown_zero, unknown_zero };
	u32 size = msg->size, upto = size < HEAD_MAX ? size : HEAD_MAX;
	const u8 *p;

	if (!ret || size < sizeof(u64))
		return -1;
	if (!message_at(msg, 0, sizeof(u64)) && bpf_msg_pull_data(msg, 0, upto, 0))
		return -1;
	p = message_at(msg, 0, sizeof(u64));
	if (!p || !call_begins_with(*(const u64 *)p))
		return -1;
	bpf_loop(HEAD_MAX, head_step, &h, 0);
	if (!h.end && !message_at(msg, upto - 1, 1) && !bpf_msg_pull_data(msg, 0, upto, 0))
		bpf_loop(HEAD_MAX, head_step, &h, 0);
	if ((h.seen & (HEAD_LENGTH | HEAD_CHUNKED)) == (HEAD_LENGTH | HEAD_CHUNKED))
		h.seen |= HEAD_ODD;
	ret->length = h.length;
	ret->line_end = h.line_end;
	ret->end = h.end;
	ret->seen = h.seen;
	return 0;
}

#endif
