/*
 * HTTP/1.x syntax over borrowed bytes. Every loop moves forward, every access is inside the slice
 * it was given; what is not HTTP is BAD, what may still become it is MORE.
 */
#include "protocols/http1_parse.h"

/* Token characters of RFC 9110, 5.6.2. */
static const bool token_chars[256] = {
	['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
	['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
	['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

struct slice http1_trim(struct slice s)
{
	while (s.len && (s.data[0] == ' ' || s.data[0] == '\t')) {
		s.data++;
		s.len--;
	}
	while (s.len &&
	       (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t' || s.data[s.len - 1] == '\r'))
		s.len--;
	return s;
}

ssize_t http1_head_length(const uint8_t *data, size_t len, size_t *scanned)
{
	size_t at = *scanned;

	while (at < len) {
		const uint8_t *lf = memchr(data + at, '\n', len - at);
		size_t next;

		if (!lf) {
			*scanned = len;
			return HTTP1_MORE;
		}
		next = (size_t)(lf - data) + 1;
		if (next < len && data[next] == '\n')
			return (ssize_t)next + 1;
		if (next + 1 < len && data[next] == '\r' && data[next + 1] == '\n')
			return (ssize_t)next + 2;
		/* The blank line may be cut here: look at this LF again. */
		if (next == len || (next + 1 == len && data[next] == '\r')) {
			*scanned = next - 1;
			return HTTP1_MORE;
		}
		at = next;
	}
	return HTTP1_MORE;
}

ssize_t http1_line(const uint8_t *data, size_t len, struct slice *ret)
{
	const uint8_t *lf = len ? memchr(data, '\n', len) : NULL;
	size_t n;

	if (!lf)
		return HTTP1_MORE;
	n = (size_t)(lf - data);
	*ret = slice_of(data, n && data[n - 1] == '\r' ? n - 1 : n);
	return (ssize_t)n + 1;
}

/* "HTTP/1." and a digit at `s`, or so far as there are bytes. -1: no; 0: so far; else the length.
 */
static int match_version(struct slice s, int *ret_minor)
{
	static const char prefix[] = "HTTP/1.";
	size_t n = sizeof(prefix) - 1;

	if (memcmp(s.data, prefix, s.len < n ? s.len : n) != 0)
		return -1;
	if (s.len <= n)
		return 0;
	if (s.data[n] < '0' || s.data[n] > '9')
		return -1;
	*ret_minor = s.data[n] - '0';
	return (int)n + 1;
}

/* Where the target that begins at `at` ends (a space or a line's end); `len` when it does not. */
static size_t target_end(const uint8_t *data, size_t at, size_t len)
{
	while (at < len && data[at] > ' ' && data[at] != 0x7f)
		at++;
	return at;
}

ssize_t http1_request_line(const uint8_t *data, size_t len, struct http1_request_line *ret)
{
	struct slice rest;
	size_t at = 0, target;
	int minor = 0, n;

	while (at < len && at <= HTTP1_METHOD_MAX_BYTES && token_chars[data[at]])
		at++;
	if (at == len && at <= HTTP1_METHOD_MAX_BYTES)
		return HTTP1_MORE;
	if (at == 0 || at > HTTP1_METHOD_MAX_BYTES || data[at] != ' ')
		return HTTP1_BAD;
	ret->method = slice_of(data, at);
	target = ++at;
	at = target_end(data, at, len);
	if (at == len)
		return HTTP1_MORE;
	if (at == target || data[at] != ' ')
		return HTTP1_BAD;
	ret->target = slice_of(data + target, at - target);
	at++;
	rest = slice_of(data + at, len - at);
	if (!rest.len)
		return HTTP1_MORE;
	n = match_version(rest, &minor);
	if (n <= 0)
		return n ? HTTP1_BAD : HTTP1_MORE;
	ret->minor = minor;
	at += (size_t)n;
	if (at < len && data[at] == '\r')
		at++;
	if (at == len)
		return HTTP1_MORE;
	return data[at] == '\n' ? (ssize_t)at + 1 : HTTP1_BAD;
}

bool http1_request_line_cut(const uint8_t *data, size_t len, struct http1_request_line *ret)
{
	size_t at = 0, target;

	while (at < len && at <= HTTP1_METHOD_MAX_BYTES && token_chars[data[at]])
		at++;
	if (at == 0 || at == len || at > HTTP1_METHOD_MAX_BYTES || data[at] != ' ')
		return false;
	ret->method = slice_of(data, at);
	target = ++at;
	at = target_end(data, at, len);
	ret->target = slice_of(data + target, at - target);
	ret->minor = -1;
	return at > target && (at == len || data[at] == ' ');
}

ssize_t http1_status_line(const uint8_t *data, size_t len, struct http1_status_line *ret)
{
	struct slice line;
	int minor = 0, n, i, status = 0;
	ssize_t used;

	if (!len)
		return HTTP1_MORE;
	n = match_version(slice_of(data, len), &minor);
	if (n <= 0)
		return n ? HTTP1_BAD : HTTP1_MORE;
	used = http1_line(data, len, &line);
	if (used == HTTP1_MORE) {
		line = slice_of(data, len);
		if (line.len < (size_t)n + 5)
			return (line.len > (size_t)n && data[n] != ' ') ? HTTP1_BAD : HTTP1_MORE;
	}
	if (line.len < (size_t)n + 4 || line.data[n] != ' ')
		return HTTP1_BAD;
	for (i = n + 1; i < n + 4; i++) {
		if (line.data[i] < '0' || line.data[i] > '9')
			return HTTP1_BAD;
		status = status * 10 + (line.data[i] - '0');
	}
	if (status < 100 ||
	    (line.len > (size_t)n + 4 && line.data[n + 4] != ' ' && line.data[n + 4] != '\r'))
		return HTTP1_BAD;
	ret->status = status;
	ret->minor = minor;
	return used;
}

bool http1_header_next(struct slice *head, struct slice *ret_name, struct slice *ret_value)
{
	while (head->len) {
		struct slice line;
		const uint8_t *colon;
		ssize_t used = http1_line(head->data, head->len, &line);
		size_t name;

		if (used <= 0)
			return false;
		head->data += used;
		head->len -= (size_t)used;
		colon = line.len ? memchr(line.data, ':', line.len) : NULL;
		if (!colon || line.data[0] == ' ' || line.data[0] == '\t')
			continue;
		name = (size_t)(colon - line.data);
		*ret_name = http1_trim(slice_of(line.data, name));
		*ret_value = http1_trim(slice_of(colon + 1, line.len - name - 1));
		return true;
	}
	return false;
}

bool http1_list_next(struct slice *list, struct slice *ret_item)
{
	while (list->len) {
		const uint8_t *comma = memchr(list->data, ',', list->len);
		size_t n = comma ? (size_t)(comma - list->data) : list->len;

		*ret_item = http1_trim(slice_of(list->data, n));
		n += comma != NULL;
		list->data += n;
		list->len -= n;
		if (ret_item->len)
			return true;
	}
	return false;
}

static bool decimal(struct slice s, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i;

	if (!s.len)
		return false;
	for (i = 0; i < s.len; i++) {
		if (s.data[i] < '0' || s.data[i] > '9' || value > (INT64_MAX - 9) / 10)
			return false;
		value = value * 10 + (uint64_t)(s.data[i] - '0');
	}
	*ret = value;
	return true;
}

bool http1_content_length(struct slice value, uint64_t *ret)
{
	struct slice item;
	uint64_t n = 0, first = 0;
	bool any = false;

	while (http1_list_next(&value, &item)) {
		if (!decimal(item, &n) || (any && n != first))
			return false;
		first = n;
		any = true;
	}
	if (any)
		*ret = first;
	return any;
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

ssize_t http1_chunk_size(const uint8_t *data, size_t len, uint64_t *ret_size)
{
	struct slice line;
	uint64_t size = 0;
	size_t i;
	ssize_t used = http1_line(data, len, &line);

	if (used == HTTP1_MORE) {
		if (len > HTTP1_CHUNK_LINE_MAX_BYTES || (len && hex_value(data[0]) < 0))
			return HTTP1_BAD;
		return HTTP1_MORE;
	}
	for (i = 0; i < line.len && hex_value(line.data[i]) >= 0; i++) {
		if (size >> 58)
			return HTTP1_BAD;
		size = size << 4 | (uint64_t)hex_value(line.data[i]);
	}
	if (i == 0 ||
	    (i < line.len && line.data[i] != ';' && line.data[i] != ' ' && line.data[i] != '\t'))
		return HTTP1_BAD;
	*ret_size = size;
	return used;
}

static void read_transfer_encoding(struct slice value, struct http1_fields *f)
{
	struct slice coding;

	f->has_coding = true;
	while (http1_list_next(&value, &coding))
		f->chunked = slice_caseeq(coding, "chunked");
}

static void read_content_length(struct slice value, struct http1_fields *f)
{
	uint64_t n = 0;

	if (!http1_content_length(value, &n) || (f->has_length && n != f->length))
		f->bad_length = true;
	f->has_length = true;
	f->length = n;
}

static void keep_first(struct slice *field, struct slice value)
{
	if (!field->data)
		*field = value;
}

static void read_trace_field(struct slice name, struct slice value, struct http1_fields *f)
{
	if (slice_caseeq(name, "traceparent")) {
		f->traceparent_count++;
		keep_first(&f->traceparent, value);
	} else if (slice_caseeq(name, "tracestate") &&
		   f->tracestate_count < HTTP1_TRACESTATE_MAX_FIELDS) {
		f->tracestate[f->tracestate_count++] = value;
	}
}

static void read_field(struct slice name, struct slice value, struct http1_fields *f)
{
	static const struct {
		const char *name;
		size_t offset;
	} kept[] = {
		{ "host", offsetof(struct http1_fields, host) },
		{ "user-agent", offsetof(struct http1_fields, user_agent) },
		{ "forwarded", offsetof(struct http1_fields, forwarded) },
		{ "x-forwarded-for", offsetof(struct http1_fields, forwarded_for) },
		{ "x-forwarded-host", offsetof(struct http1_fields, forwarded_host) },
		{ "x-forwarded-proto", offsetof(struct http1_fields, forwarded_proto) },
	};
	size_t i;

	for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		if (slice_caseeq(name, kept[i].name)) {
			keep_first((struct slice *)(void *)((char *)f + kept[i].offset), value);
			return;
		}
	}
}

void http1_fields_read(struct slice head, struct http1_fields *ret)
{
	struct slice name, value;

	*ret = (struct http1_fields){ 0 };
	while (http1_header_next(&head, &name, &value)) {
		/* The first letter spares most fields the comparisons. */
		switch (name.len ? name.data[0] | 0x20 : 0) {
		case 'c':
			if (slice_caseeq(name, "content-length"))
				read_content_length(value, ret);
			break;
		case 't':
			if (slice_caseeq(name, "transfer-encoding"))
				read_transfer_encoding(value, ret);
			else
				read_trace_field(name, value, ret);
			break;
		case 'e':
			if (slice_caseeq(name, "expect"))
				ret->expects = slice_caseeq(value, "100-continue");
			break;
		case 'f':
		case 'h':
		case 'u':
		case 'x':
			read_field(name, value, ret);
			break;
		}
	}
}
