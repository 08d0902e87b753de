/*
 * Version 5 UUIDs (RFC 9562, 5.5), for which SHA-1 (FIPS 180-4) is needed. Pure; not for anything
 * that must be secret.
 */
#include <stdio.h>
#include <string.h>

#include "discover/resource_detect.h"

enum { SHA1_BLOCK = 64, SHA1_DIGEST = 20, SHA1_LENGTH_AT = 56 };

struct sha1 {
	uint32_t h[5];
	uint8_t block[SHA1_BLOCK];
	size_t used;
	uint64_t total;
};

static uint32_t rotl(uint32_t x, int n)
{
	return x << n | x >> (32 - n);
}

static void sha1_block(struct sha1 *s)
{
	uint32_t w[80], a = s->h[0], b = s->h[1], c = s->h[2], d = s->h[3], e = s->h[4];

	for (int t = 0; t < 16; t++)
		w[t] = (uint32_t)s->block[t * 4] << 24 | (uint32_t)s->block[t * 4 + 1] << 16 |
		       (uint32_t)s->block[t * 4 + 2] << 8 | s->block[t * 4 + 3];
	for (int t = 16; t < 80; t++)
		w[t] = rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
	for (int t = 0; t < 80; t++) {
		uint32_t f, k, next;

		if (t < 20) {
			f = (b & c) | (~b & d);
			k = 0x5a827999;
		} else if (t < 40) {
			f = b ^ c ^ d;
			k = 0x6ed9eba1;
		} else if (t < 60) {
			f = (b & c) | (b & d) | (c & d);
			k = 0x8f1bbcdc;
		} else {
			f = b ^ c ^ d;
			k = 0xca62c1d6;
		}
		next = rotl(a, 5) + f + e + k + w[t];
		e = d;
		d = c;
		c = rotl(b, 30);
		b = a;
		a = next;
	}
	s->h[0] += a;
	s->h[1] += b;
	s->h[2] += c;
	s->h[3] += d;
	s->h[4] += e;
	s->used = 0;
}

static void sha1_update(struct sha1 *s, const void *data, size_t len)
{
	const uint8_t *p = data;

	s->total += len;
	while (len) {
		size_t n = SHA1_BLOCK - s->used < len ? SHA1_BLOCK - s->used : len;

		memcpy(s->block + s->used, p, n);
		s->used += n;
		p += n;
		len -= n;
		if (s->used == SHA1_BLOCK)
			sha1_block(s);
	}
}

static void sha1_finish(struct sha1 *s, uint8_t ret[SHA1_DIGEST])
{
	uint64_t bits = s->total * 8;
	uint8_t length[8];

	sha1_update(s, "\x80", 1);
	while (s->used != SHA1_LENGTH_AT)
		sha1_update(s, "", 1);
	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)(bits >> (56 - 8 * i));
	sha1_update(s, length, sizeof(length));
	for (int i = 0; i < SHA1_DIGEST; i++)
		ret[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

void uuid_v5(const uint8_t space[16], const void *name, size_t len, char ret[UUID_TEXT_BYTES])
{
	struct sha1 s = { .h = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 } };
	uint8_t d[SHA1_DIGEST];

	sha1_update(&s, space, 16);
	sha1_update(&s, name, len);
	sha1_finish(&s, d);
	d[6] = (uint8_t)((d[6] & 0x0f) | 0x50);
	d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
	snprintf(ret, UUID_TEXT_BYTES,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", d[0], d[1],
		 d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12], d[13], d[14],
		 d[15]);
}
