/*
 * Requests made from numbers, the same at both ends: the client sends them, the server compares
 * what it reads with them, less the one header that may be behind each request line. Nothing here
 * knows how the header gets there.
 */
#ifndef TESTS_BPF_INJECT_STREAM_H
#define TESTS_BPF_INJECT_STREAM_H

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	REQUEST_BYTES_MAX = 96 << 10,
	HEADER_LEN = 70,
	ANSWER_BODY_MAX = 3000,
	BIG_BODY = 60000,
	LONG_HEAD = 12000,
};

static const char LOOKALIKE[] = "GET /not HTTP/1.1\r\nHost: body\r\nContent-Length: 7\r\n\r\n";

struct request {
	uint8_t bytes[REQUEST_BYTES_MAX];
	size_t len, line, head;
	bool plain; /* a head that a header fits into */
};

static inline uint32_t random_next(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(*state >> 33);
}

static inline void request_add(struct request *r, const char *text)
{
	size_t len = strlen(text);

	memcpy(r->bytes + r->len, text, len);
	r->len += len;
}

static inline void request_fill(struct request *r, uint64_t *rnd, size_t len)
{
	bool lookalike = random_next(rnd) % 2;
	size_t i;

	for (i = 0; i < len; i++)
		r->bytes[r->len++] = lookalike ? (uint8_t)LOOKALIKE[i % (sizeof(LOOKALIKE) - 1)]
					       : (uint8_t)('a' + random_next(rnd) % 26);
}

static inline void request_letters(struct request *r, uint64_t *rnd, size_t len)
{
	while (len--)
		r->bytes[r->len++] = (uint8_t)('a' + random_next(rnd) % 26);
}

static inline void request_own(struct request *r, uint64_t *rnd)
{
	char name[] = "traceparent";
	size_t i;

	for (i = 0; name[i]; i++) {
		if (random_next(rnd) % 2)
			name[i] = (char)toupper(name[i]);
	}
	name[0] = 'T'; /* never as ours */
	request_add(r, name);
	request_add(r, ": 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n");
}

static inline void request_fields(struct request *r, uint64_t *rnd)
{
	uint32_t count = random_next(rnd) % 6;

	request_add(r, "Host: fuzz\r\n");
	while (count--) {
		request_add(r, "X-");
		request_letters(r, rnd, 1 + random_next(rnd) % 12);
		request_add(r, ": ");
		request_letters(r, rnd, random_next(rnd) % 80);
		request_add(r, "\r\n");
	}
}

static inline void request_chunks(struct request *r, uint64_t *rnd)
{
	uint32_t count = random_next(rnd) % 5;
	char size[32];

	while (count--) {
		size_t len = 1 + random_next(rnd) % (random_next(rnd) % 8 ? 300 : 9000);

		snprintf(size, sizeof(size), random_next(rnd) % 2 ? "%zx\r\n" : "%zX;a=b\r\n", len);
		request_add(r, size);
		request_fill(r, rnd, len);
		request_add(r, "\r\n");
	}
	request_add(r, random_next(rnd) % 4 ? "0\r\n\r\n" : "0\r\nX-Sum: 1\r\nX-B: c\r\n\r\n");
}

/* Which kinds there are: the length of a body, chunks, a traceparent of its own, a long head. */
enum request_kind {
	KIND_GET,
	KIND_GET_2,
	KIND_POST,
	KIND_POST_2,
	KIND_CHUNKS,
	KIND_OWN,
	KIND_LONG,
	KIND_PUT,
	KINDS
};

static inline void request_make(struct request *r, uint64_t seed, uint32_t index)
{
	static const char *const methods[] = { "GET",  "DELETE",  "POST", "PATCH",
					       "POST", "OPTIONS", "GET",  "PUT" };
	uint64_t rnd = seed * 0x9e3779b97f4a7c15ull + index * 0xbf58476d1ce4e5b9ull;
	size_t body = 0;
	char text[64];
	uint32_t kind;

	random_next(&rnd);
	kind = random_next(&rnd) % KINDS;
	r->len = 0;
	request_add(r, methods[kind]);
	request_add(r, " /");
	request_letters(r, &rnd, random_next(&rnd) % 300);
	request_add(r, " HTTP/1.1\r\n");
	r->line = r->len;
	if (kind == KIND_POST || kind == KIND_POST_2 || kind == KIND_PUT) {
		body = random_next(&rnd) % (random_next(&rnd) % 16 ? 3000 : BIG_BODY);
		snprintf(text, sizeof(text),
			 random_next(&rnd) % 2 ? "Content-Length: %zu\r\n"
					       : "content-length:%zu\r\n",
			 body);
		request_add(r, text);
	}
	request_fields(r, &rnd);
	if (kind == KIND_OWN)
		request_own(r, &rnd);
	if (kind == KIND_LONG) {
		request_add(r, "Cookie: ");
		request_letters(r, &rnd, random_next(&rnd) % LONG_HEAD);
		request_add(r, "\r\n");
	}
	if (kind == KIND_CHUNKS)
		request_add(r, "Transfer-encoding: chunked\r\n");
	request_fields(r, &rnd);
	request_add(r, "\r\n");
	r->head = r->len;
	r->plain = kind != KIND_OWN && kind != KIND_LONG;
	if (kind == KIND_CHUNKS)
		request_chunks(r, &rnd);
	else
		request_fill(r, &rnd, body);
}

/* The answer to a request: its length alone matters. */
static inline size_t answer_make(char *to, size_t room, uint64_t seed, uint32_t index)
{
	uint64_t rnd = seed + index * 77u;
	size_t body, len;

	random_next(&rnd);
	body = random_next(&rnd) % (random_next(&rnd) % 4 ? 64 : ANSWER_BODY_MAX);
	len = (size_t)snprintf(to, room, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body);
	memset(to + len, 'x', body);
	return len + body;
}

/* "traceparent: 00-" 32 "-" 16 "-0?\r\n", all in small letters and digits. */
static inline bool is_header(const uint8_t *p)
{
	static const char shape[] = "traceparent: 00-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-"
				    "hhhhhhhhhhhhhhhh-0f\r\n";
	size_t i;

	for (i = 0; i < HEADER_LEN; i++) {
		if (i >= 16 && shape[i] == 'h') {
			if (!isdigit(p[i]) && (p[i] < 'a' || p[i] > 'f'))
				return false;
		} else if (shape[i] == 'f') {
			if (p[i] != '0' && p[i] != '1')
				return false;
		} else if (p[i] != (uint8_t)shape[i]) {
			return false;
		}
	}
	return true;
}

/*
 * Compares what lies at `p` with the request. Returns the bytes it takes there, 0: more are needed,
 * -1: they differ. *ret_header: one is there.
 */
static inline long request_compare(const struct request *r, const uint8_t *p, size_t len,
				   bool *ret_header)
{
	size_t added = 0, line = len < r->line ? len : r->line, rest;

	if (memcmp(p, r->bytes, line) != 0)
		return -1;
	if (len >= r->line + 13 && memcmp(p + r->line, "traceparent: ", 13) == 0)
		added = HEADER_LEN;
	if (added && len < r->line + added)
		return 0;
	if (added && !is_header(p + r->line))
		return -1;
	rest = len < r->len + added ? len : r->len + added;
	if (rest > r->line + added && len >= r->line + 13 &&
	    memcmp(p + r->line + added, r->bytes + r->line, rest - r->line - added) != 0)
		return -1;
	*ret_header = added != 0;
	return len < r->len + added ? 0 : (long)(r->len + added);
}

#endif
