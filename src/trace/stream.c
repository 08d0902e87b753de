/*
 * Feeds a direction's bytes to a protocol's step: straight from the event when nothing was left
 * over, else from the pending buffer. Copies only what a step could not use yet. Refuses to hold
 * more than STREAM_PENDING_MAX_BYTES.
 */
#include "trace/stream.h"

void stream_free(struct stream *s)
{
	buf_free(&s->pending);
	s->skip = 0;
}

void stream_reset(struct stream *s)
{
	buf_reset(&s->pending);
	s->skip = 0;
}

/* Passes over up to `len` bytes; true when the skip ran out here. */
static bool pass_over(struct stream *s, uint64_t len, uint64_t *ret_passed)
{
	uint64_t n = s->skip < len ? s->skip : len;

	*ret_passed = n;
	if (s->skip == UINT64_MAX) {
		*ret_passed = len;
		return false;
	}
	s->skip -= n;
	return s->skip == 0;
}

static enum stream_result step_result(ssize_t r)
{
	return r == STREAM_STOP ? STREAM_STOPPED : STREAM_BROKEN;
}

/* Steps over `data` until the step wants more; *ret_used is how far it came. */
static enum stream_result run(struct stream *s, const uint8_t *data, size_t len, stream_step step,
			      void *ctx, size_t *ret_used)
{
	size_t used = 0;

	*ret_used = 0;
	for (;;) {
		bool woken = false;
		ssize_t r;

		if (s->skip) {
			uint64_t passed;

			woken = pass_over(s, len - used, &passed);
			used += (size_t)passed;
			if (!woken)
				break;
		}
		if (used == len && !woken)
			break;
		r = step(ctx, data + used, len - used);
		if (r < 0)
			return step_result(r);
		if (r == STREAM_MORE && !(woken && s->skip))
			break;
		if ((size_t)r > len - used)
			return STREAM_BROKEN;
		used += (size_t)r;
	}
	*ret_used = used;
	return STREAM_OK;
}

/* Passes over what was transferred but not captured. */
static enum stream_result pass_missing(struct stream *s, stream_step step, void *ctx)
{
	static const uint8_t none[1];

	while (s->missing) {
		uint64_t passed;
		ssize_t r;

		if (s->pending.len)
			return STREAM_LOST;
		/* No length is known that passes over them: the protocol may know that they don't
		 * matter. */
		if (s->skip) {
			if (!pass_over(s, s->missing, &passed))
				return STREAM_OK;
			s->missing -= (uint32_t)passed;
		}
		r = step(ctx, none, 0);
		if (r < 0)
			return step_result(r);
		if (s->missing && !s->skip)
			return STREAM_LOST;
	}
	return STREAM_OK;
}

enum stream_result stream_feed(struct stream *s, const uint8_t *data, uint32_t captured,
			       uint32_t length, stream_step step, void *ctx)
{
	enum stream_result result;
	size_t used;

	if (!s->same_call)
		s->chunk++;
	s->same_call = false;
	if (captured > length)
		captured = length;
	s->missing = length - captured;
	if (s->pending.len) {
		buf_append(&s->pending, data, captured);
		if (s->pending.failed)
			return STREAM_NO_MEMORY;
		result = run(s, s->pending.data, s->pending.len, step, ctx, &used);
		if (result == STREAM_OK)
			buf_consume(&s->pending, used);
	} else {
		result = run(s, data, captured, step, ctx, &used);
		if (result == STREAM_OK && used < captured)
			buf_append(&s->pending, data + used, captured - used);
	}
	if (result != STREAM_OK)
		return result;
	if (s->pending.failed)
		return STREAM_NO_MEMORY;
	if (s->missing)
		return pass_missing(s, step, ctx);
	return s->pending.len > STREAM_PENDING_MAX_BYTES ? STREAM_TOO_LARGE : STREAM_OK;
}
