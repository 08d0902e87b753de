/*
 * Chunked bodies (RFC 9112, 7.1), followed from message to message: sizes, their data by length,
 * trailers. Invariant: what does not fit the grammar ends the following. Included by inject.bpf.c.
 */
#ifndef SPANLOOM_CHUNKS_BPF_H
#define SPANLOOM_CHUNKS_BPF_H

#include "message.bpf.h"

enum {
	CHUNK_STEPS = 4096, /* of one message; a chunk takes about six */
	PULL_BYTES = 16,
};

struct chunks {
	struct sk_msg_md *msg;
	u64 left;
	u32 at, size; /* in the message */
	u32 pulled;   /* where the linear data begins */
	u8 phase;     /* enum injection_phase */
	u8 odd;
};

static __always_inline void chunk_size_ends(struct chunks *s)
{
	s->phase = s->left ? INJECTION_DATA : INJECTION_TRAILER;
	if (s->left)
		s->left += 2;
}

static __always_inline long chunk_byte(struct chunks *s, u8 c)
{
	u8 digit = c - '0', letter = (c | 0x20) - 'a';

	if (s->phase == INJECTION_SIZE && c != '\n' && c != '\r') {
		if (c == ';')
			s->phase = INJECTION_EXTENSION;
		else if (digit < 10 || letter < 6)
			s->left = s->left << 4 | (digit < 10 ? digit : letter + 10);
		else if (c != ' ' && c != '\t')
			s->odd = 1;
		if (s->left >= LENGTH_MAX)
			s->odd = 1;
		return s->odd != 0;
	}
	if (c == '\n') {
		if (s->phase == INJECTION_SIZE || s->phase == INJECTION_EXTENSION) {
			chunk_size_ends(s);
		} else if (s->phase == INJECTION_FIELD) {
			s->phase = INJECTION_TRAILER;
		} else {
			s->phase = INJECTION_START;
			return 1;
		}
	} else if (s->phase == INJECTION_TRAILER && c != '\r') {
		s->phase = INJECTION_FIELD;
	}
	return 0;
}

static long chunk_step(u32 index, void *context)
{
	struct chunks *s = context;
	u32 at = s->at, rest = s->size - at, upto;
	const u8 *p;

	if (at >= s->size)
		return 1;
	if (s->phase == INJECTION_DATA) {
		if (rest > s->left)
			rest = s->left;
		s->left -= rest;
		s->at = at + rest;
		if (!s->left)
			s->phase = INJECTION_SIZE;
		return 0;
	}
	p = message_at(s->msg, at - s->pulled, 1);
	if (!p || at < s->pulled) {
		upto = rest > PULL_BYTES ? at + PULL_BYTES : s->size;
		s->pulled = at;
		s->odd = bpf_msg_pull_data(s->msg, at, upto, 0) != 0;
		p = message_at(s->msg, 0, 1);
		if (!p || s->odd) {
			s->odd = 1;
			return 1;
		}
	}
	s->at = at + 1;
	return chunk_byte(s, *p);
}

/* Follows the body from `at` of the message on, whose first byte is number `seq`. 0: it is
 * understood up to in->known; else it is not. */
__noinline int message_chunks(struct sk_msg_md *msg, struct injection *in, u32 at, u32 seq)
{
	struct chunks s = {
		.msg = msg,
		.left = in ? in->left : 0,
		.at = at + unknown_zero,
		.size = msg->size,
		.pulled = ~unknown_zero, /* nothing: who was here before may have moved it */
		.phase = in ? in->phase : 0,
		.odd = unknown_zero,
	};

	if (!in)
		return 1;
	bpf_loop(CHUNK_STEPS, chunk_step, &s, 0);
	in->left = s.left;
	in->phase = s.phase;
	in->known = seq + s.at;
	return s.odd || (s.at < s.size && s.phase != INJECTION_START);
}

#endif
