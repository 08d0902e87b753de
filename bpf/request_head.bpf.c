/*
 * The scan of an HTTP/1 request's head, line by line, for request.bpf.h: where it ends, the
 * traceparent it brings (W3C Trace Context, level 2), how long its body is. Words of eight bytes
 * are searched for line ends, and only lines that begin with one of three names are looked into.
 * Invariant: the bytes may be anything; what is not understood is said to be so.
 */
#include "request_head.bpf.h"

enum { SPACES_MAX = 24, LENGTH_DIGITS_MAX = 18 };

#define EVERY_BYTE 0x0101010101010101ull
#define LOWER_CASE 0x2020202020202020ull

/* Eight characters as the word that memory holds them in. */
#define WORD(a, b, c, d, e, f, g, h)                                                   \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | \
	 (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)

static __always_inline u64 head_word(const struct head_scan *s, u32 at)
{
	return *(const volatile u64 *)(s->data + (at & (HEAD_ROOM - 1)));
}

static __always_inline u8 head_byte(const struct head_scan *s, u32 at)
{
	return *(const volatile u8 *)(s->data + (at & (HEAD_ROOM - 1)));
}

/* Eight digits of hex, lower case only, become four bytes; false: some are none. */
static __always_inline bool hex_word(u64 digits, u32 *ret)
{
	u64 letter = digits >> 6 & EVERY_BYTE, low = digits & 0x0f * EVERY_BYTE, value;

	/* 0x30 to 0x39 and 0x61 to 0x66: the upper half of each, then the lower one's bounds. */
	if (((digits & 0xf0 * EVERY_BYTE) ^ (0x30 * EVERY_BYTE + 0x30 * letter)) ||
	    ((low + 6 * EVERY_BYTE + 3 * letter) & 0x10 * EVERY_BYTE) ||
	    (~(low + 0x10 * EVERY_BYTE - letter) & 0x10 * EVERY_BYTE))
		return false;
	value = low + 9 * letter;
	value = (value << 4 | value >> 8) & 0x00ff00ff00ff00ffull;
	value = (value | value >> 8) & 0x0000ffff0000ffffull;
	*ret = (u32)(value | value >> 16);
	return true;
}

/* Sixteen digits become a word, in the order of the bytes. */
static __always_inline bool hex_words(const struct head_scan *s, u32 at, u64 *ret)
{
	u32 first = 0, second = 0;

	if (!hex_word(head_word(s, at), &first) || !hex_word(head_word(s, at + 8), &second))
		return false;
	*ret = (u64)second << 32 | first;
	return true;
}

/* The value of traceparent: version-id-parent-flags. */
static __always_inline void head_traceparent(struct head_scan *s)
{
	enum { TRACE = 3, PARENT = 36, FLAGS = 53, LENGTH = 55, VERSION_NONE = 0xff };
	u64 trace[2] = {}, parent = 0, ends;
	struct trace_ids *ids = &s->found.ids;
	u32 at = s->value, len = s->value_end - at, numbers = 0, version;

	if (s->found.traceparents < 2)
		s->found.traceparents++;
	if (s->found.traceparents > 1 || len < LENGTH || head_byte(s, at + TRACE - 1) != '-' ||
	    head_byte(s, at + PARENT - 1) != '-' || head_byte(s, at + FLAGS - 1) != '-')
		return;
	ends = (head_word(s, at) & 0xffff) | (head_word(s, at + FLAGS) & 0xffff) << 16 |
	       0x3030303000000000ull;
	if (!hex_word(ends, &numbers))
		return;
	version = numbers & 0xff;
	if (version == VERSION_NONE || (!version && len != LENGTH) ||
	    (len > LENGTH && head_byte(s, at + LENGTH) != '-'))
		return;
	if (!hex_words(s, at + TRACE, &trace[0]) || !hex_words(s, at + TRACE + 16, &trace[1]) ||
	    !hex_words(s, at + PARENT, &parent) || !(trace[0] | trace[1]) || !parent)
		return;
	__builtin_memcpy(ids->trace_id, trace, sizeof(trace));
	__builtin_memcpy(ids->span_id, &parent, sizeof(parent));
	ids->trace_flags = numbers >> 8;
	ids->flags = IDS_KNOWN;
}

static __always_inline void head_length(struct head_scan *s)
{
	struct head_found *f = &s->found;
	u64 before = f->length;
	u32 i;

	if (s->value == s->value_end)
		f->flags |= HEAD_ENDLESS;
	f->length = 0;
	for (i = 0; i < LENGTH_DIGITS_MAX && s->value < s->value_end; i++) {
		u32 digit = (u32)head_byte(s, s->value) - '0';

		if (digit > 9)
			break;
		f->length = f->length * 10 + digit;
		s->value++;
	}
	if (s->value < s->value_end || (f->flags & HEAD_LENGTH && f->length != before))
		f->flags |= HEAD_ENDLESS;
	f->flags |= HEAD_LENGTH;
}

static __always_inline bool is_space(u8 c)
{
	return c == ' ' || c == '\t';
}

static __always_inline void head_skip_spaces(struct head_scan *s)
{
	u32 i;

	for (i = 0; i < SPACES_MAX && s->value < s->value_end; i++) {
		if (!is_space(head_byte(s, s->value)))
			break;
		s->value++;
	}
}

static __always_inline void head_cut_spaces(struct head_scan *s)
{
	u32 i;

	for (i = 0; i < SPACES_MAX && s->value < s->value_end; i++) {
		u8 c = head_byte(s, s->value_end - 1);

		if (!is_space(c) && c != '\r')
			break;
		s->value_end--;
	}
}

static __always_inline bool head_begins(const struct head_scan *s, u32 from, u32 to)
{
	enum { SHORTEST = 14 /* GET / HTTP/1.1 */, VERSION = 8 };
	u64 version = head_word(s, to - VERSION);

	return to >= from + SHORTEST && http_method(head_word(s, from), 8) &&
	       (version << 8) == WORD(0, 'H', 'T', 'T', 'P', '/', '1', '.') &&
	       (u8)(version >> 56) - '0' <= 9u && head_byte(s, to - VERSION - 1) == ' ';
}

/* Which of the three names a line begins with; *at moves behind it. */
static __always_inline u32 head_name(const struct head_scan *s, u32 *at)
{
	u64 name = head_word(s, *at), more = head_word(s, *at + 8);

	if ((name | LOWER_CASE) == WORD('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r') &&
	    ((more | LOWER_CASE) & 0xffffff) == WORD('e', 'n', 't', 0, 0, 0, 0, 0)) {
		*at += 11;
		return HEAD_NAME_TRACEPARENT;
	}
	if ((name | LOWER_CASE >> 8) == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
	    ((more | LOWER_CASE) & 0xffffffffffffull) == WORD('l', 'e', 'n', 'g', 't', 'h', 0, 0)) {
		*at += 14;
		return HEAD_NAME_LENGTH;
	}
	if ((name | LOWER_CASE) == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') &&
	    (more | LOWER_CASE << 8) == WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
	    (head_byte(s, *at + 16) | 0x20) == 'g') {
		*at += 17;
		return HEAD_NAME_CODING;
	}
	return HEAD_NAME_OTHER;
}

/*
 * One line, without the newline that stands at `to`. Alone, as request_scan() is, so that the
 * verifier looks at it once and not in every step of the loop. HEAD_*.
 */
__noinline int request_line(u32 from, u32 to)
{
	struct head_scan *s = head_scratch();
	u32 name;

	if (!s)
		return HEAD_BAD;
	if (to > from && head_byte(s, to - 1) == '\r')
		to--;
	if (!(s->found.flags & HEAD_LINE)) {
		if (!head_begins(s, from, to))
			return HEAD_BAD;
		if (head_word(s, from) == WORD('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
			return HEAD_TUNNEL;
		s->found.flags |= HEAD_LINE;
		return HEAD_MORE;
	}
	if (to <= from)
		return HEAD_DONE;
	name = head_name(s, &from);
	if (name == HEAD_NAME_OTHER)
		return HEAD_MORE;
	s->value = from;
	s->value_end = to;
	head_skip_spaces(s);
	if (s->value >= s->value_end || head_byte(s, s->value) != ':')
		return HEAD_MORE;
	s->value++;
	head_skip_spaces(s);
	head_cut_spaces(s);
	if (name == HEAD_NAME_TRACEPARENT)
		head_traceparent(s);
	else if (name == HEAD_NAME_LENGTH)
		head_length(s);
	else
		s->found.flags |= HEAD_ENDLESS;
	return HEAD_MORE;
}

/* Keeps of the line that isn't complete what can matter: its beginning, and of the request line its
 * end. */
static __always_inline void head_keep(struct head_scan *s)
{
	u64 from = s->from & (HEAD_ROOM - 1), rest = s->end - s->from;
	u64 last[2] = { head_word(s, s->end - 16), head_word(s, s->end - 8) };
	bool cut = rest > HEAD_KEPT;

	if (cut)
		rest = HEAD_KEPT;
	s->found.kept = rest;
	barrier_var(rest); /* what is compared is what is used */
	if (from && rest <= HEAD_KEPT)
		bpf_probe_read_kernel(s->data, rest, s->data + from);
	if (cut)
		__builtin_memcpy(s->data + HEAD_KEPT - sizeof(last), last, sizeof(last));
}

__noinline int request_scan(u64 address, u32 len)
{
	struct head_scan *s = head_scratch();
	u64 kept, bytes = len;
	int i, verdict;

	if (!s)
		return HEAD_BAD;
	if (bytes) {
		kept = s->found.kept;
		barrier_var(kept); /* what is compared is what is used */
		barrier_var(bytes);
		if (kept > HEAD_KEPT || bytes > HEAD_CHUNK)
			return HEAD_BAD;
		if (bpf_probe_read_user(s->data + kept, bytes, (const void *)address)) {
			count_drop(DROP_READ_FAULT);
			return HEAD_BAD;
		}
		s->from = 0;
		s->at = kept;
		s->end = kept + bytes;
		s->found.bytes += bytes;
	}
	for (i = 0; i < HEAD_STEPS; i++) {
		u32 at = s->at;
		u64 x = head_word(s, at) ^ '\n' * EVERY_BYTE;

		if (at >= s->end) {
			head_keep(s);
			return HEAD_MORE;
		}
		x = (x - EVERY_BYTE) & ~x & 0x80 * EVERY_BYTE;
		if (!x) {
			s->at = at + 8;
			continue;
		}
		/* The lowest bit is of the first newline: as many bytes lie below. */
		at += ((((x & -x) - 1) & EVERY_BYTE) * EVERY_BYTE >> 56) - 1;
		if (at >= s->end) {
			s->at = s->end;
			continue;
		}
		verdict = request_line(s->from, at);
		s->at = s->from = at + 1;
		if (verdict == HEAD_MORE)
			continue;
		s->found.bytes -= s->end - s->at; /* what is behind the head */
		return verdict;
	}
	return HEAD_AGAIN;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
