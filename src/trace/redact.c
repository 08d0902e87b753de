/* The list of secret query keys and the walk over URLs. Matching ignores case, '-', '_' and
 * percent-encoding. */
#include "trace/redact.h"

#define REDACTED "REDACTED"

enum { KEY_MAX_BYTES = 64 };

/* Anywhere in the key, written without '-', '_' and '.'. */
static const char *const secret_parts[] = {
	"token",         "password",  "passwd",     "passphrase", "secret",
	"apikey",        "accesskey", "privatekey", "credential", "signature",
	"authorization", "assertion", "session",
};

/* The whole key. semconv names sig, Signature, AWSAccessKeyId and X-Goog-Signature; X-Amz-* is a
 * prefix. */
static const char *const secret_words[] = { "sig", "pwd", "pass", "code", "auth",
					    "jwt", "otp", "pin",  "key",  "sid" };
static const char secret_prefix[] = "xamz";

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Lower case, decoded, separators left out; cut at the buffer's end. */
static size_t normalize_key(struct slice key, char *out, size_t cap)
{
	size_t i, n = 0;

	for (i = 0; i < key.len && n < cap - 1; i++) {
		uint8_t c = key.data[i];

		if (c == '%' && i + 2 < key.len) {
			int high = hex_value(key.data[i + 1]), low = hex_value(key.data[i + 2]);

			if (high >= 0 && low >= 0) {
				c = (uint8_t)(high << 4 | low);
				i += 2;
			}
		}
		if (c >= 'A' && c <= 'Z')
			c |= 0x20;
		if (c == '-' || c == '_' || c == '.' || c == '\0')
			continue;
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return n;
}

bool redact_is_secret_key(struct slice key)
{
	char name[KEY_MAX_BYTES + 1];
	size_t i;

	/* Of an absurdly long key the end says most; a secret's name is never that long. */
	if (key.len > KEY_MAX_BYTES)
		key = slice_of(key.data + key.len - KEY_MAX_BYTES, KEY_MAX_BYTES);
	normalize_key(key, name, sizeof(name));
	if (strncmp(name, secret_prefix, sizeof(secret_prefix) - 1) == 0)
		return true;
	for (i = 0; i < sizeof(secret_words) / sizeof(secret_words[0]); i++) {
		if (strcmp(name, secret_words[i]) == 0)
			return true;
	}
	for (i = 0; i < sizeof(secret_parts) / sizeof(secret_parts[0]); i++) {
		if (strstr(name, secret_parts[i]))
			return true;
	}
	return false;
}

/* Appends at most what is left of `max` since `start`; false when it had to cut. */
static bool append_within(struct buf *out, size_t start, size_t max, struct slice text)
{
	size_t used = out->len - start, room = used < max ? max - used : 0;

	if (text.len > room) {
		buf_append(out, text.data, room);
		return false;
	}
	buf_append(out, text.data, text.len);
	return true;
}

static const uint8_t *find(struct slice s, uint8_t c)
{
	return s.len ? memchr(s.data, c, s.len) : NULL;
}

/* The pair at the front, without its separator ('&' or ';'). */
static struct slice next_pair(struct slice rest)
{
	const uint8_t *amp = find(rest, '&');
	struct slice pair = slice_of(rest.data, amp ? (size_t)(amp - rest.data) : rest.len);
	const uint8_t *semi = find(pair, ';');

	return slice_of(pair.data, semi ? (size_t)(semi - pair.data) : pair.len);
}

void redact_query(struct buf *out, struct slice query, size_t max)
{
	size_t start = out->len;

	while (query.len) {
		struct slice pair = next_pair(query);
		const uint8_t *eq = find(pair, '=');
		size_t advance = pair.len < query.len ? pair.len + 1 : pair.len;
		struct slice key = slice_of(pair.data, eq ? (size_t)(eq - pair.data) : pair.len);
		bool whole;

		if (eq && redact_is_secret_key(key)) {
			whole = append_within(out, start, max, slice_of(key.data, key.len + 1)) &&
				append_within(out, start, max, slice_str(REDACTED)) &&
				append_within(out, start, max,
					      slice_of(pair.data + pair.len, advance - pair.len));
		} else {
			whole = append_within(out, start, max, slice_of(pair.data, advance));
		}
		if (!whole)
			return;
		query = slice_of(query.data + advance, query.len - advance);
	}
}

/* Where the authority ends: at the first of "/?#". */
static size_t authority_end(struct slice s)
{
	size_t i;

	for (i = 0; i < s.len; i++) {
		if (s.data[i] == '/' || s.data[i] == '?' || s.data[i] == '#')
			break;
	}
	return i;
}

/* Scheme, authority without its user info; gives back what is behind them. */
static struct slice redact_authority(struct buf *out, struct slice url, size_t start, size_t max)
{
	size_t colon = authority_end(url), head;
	struct slice authority;
	const uint8_t *at;

	if (colon < 2 || colon + 2 > url.len || memcmp(url.data + colon - 1, "://", 3) != 0)
		return url;
	head = colon + 2;
	authority = slice_of(url.data + head, url.len - head);
	authority.len = authority_end(authority);
	append_within(out, start, max, slice_of(url.data, head));
	at = authority.len ? memrchr(authority.data, '@', authority.len) : NULL;
	if (at) {
		struct slice user = slice_of(authority.data, (size_t)(at - authority.data));

		append_within(out, start, max,
			      slice_str(find(user, ':') ? REDACTED ":" REDACTED : REDACTED));
		authority.len -= user.len;
		authority.data = at;
	}
	append_within(out, start, max, authority);
	authority.data += authority.len;
	return slice_of(authority.data, url.len - (size_t)(authority.data - url.data));
}

void redact_url(struct buf *out, struct slice url, size_t max)
{
	size_t start = out->len;
	struct slice rest = redact_authority(out, url, start, max);
	const uint8_t *query = find(rest, '?');
	size_t path = query ? (size_t)(query - rest.data) + 1 : rest.len;

	if (!append_within(out, start, max, slice_of(rest.data, path)) || !query)
		return;
	redact_query(out, slice_of(rest.data + path, rest.len - path), max - (out->len - start));
}
