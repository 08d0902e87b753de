/* A direction's bytes: pending tails, skips over captured and uncaptured bytes, what counts as one
 * event. */
#include "check.h"
#include "trace/stream.h"

/* A toy protocol: "<digit>" says how many bytes to pass over; "!" breaks it, "." stops it, "("
 * waits for ")". */
struct toy {
	struct stream *s;
	unsigned int numbers, ends, calls;
	bool passing;
	uint32_t missing;
};

static ssize_t toy_step(void *ctx, const uint8_t *data, size_t len)
{
	struct toy *t = ctx;

	t->calls++;
	t->missing = t->s->missing;
	if (t->passing) {
		t->passing = false;
		t->ends++;
	}
	if (!len)
		return STREAM_MORE;
	if (data[0] == '!')
		return STREAM_BAD;
	if (data[0] == '.')
		return STREAM_STOP;
	if (data[0] == '(') {
		const uint8_t *end = memchr(data, ')', len);

		return end ? end - data + 1 : STREAM_MORE;
	}
	t->numbers++;
	t->s->skip = (uint64_t)(data[0] - '0');
	t->passing = t->s->skip > 0;
	return 1;
}

static enum stream_result feed(struct stream *s, struct toy *t, const char *text, uint32_t more)
{
	uint32_t len = (uint32_t)strlen(text);

	return stream_feed(s, (const uint8_t *)text, len, len + more, toy_step, t);
}

static void test_skips(void)
{
	struct stream s = { 0 };
	struct toy t = { .s = &s };

	CHECK(feed(&s, &t, "3abc0", 0) == STREAM_OK);
	CHECK(t.numbers == 2 && t.ends == 1);
	/* The end of a skip is seen at its last byte, not at the next one. */
	CHECK(feed(&s, &t, "5ab", 0) == STREAM_OK && t.ends == 1);
	CHECK(feed(&s, &t, "cde", 0) == STREAM_OK && t.ends == 2);
	/* Over bytes that nobody has. */
	CHECK(feed(&s, &t, "9ab", 7) == STREAM_OK && t.ends == 3);
	CHECK(feed(&s, &t, "9ab", 3) == STREAM_OK && s.skip == 4);
	CHECK(feed(&s, &t, "", 3) == STREAM_OK && s.skip == 1);
	CHECK(feed(&s, &t, "x0", 0) == STREAM_OK && t.ends == 4);
	/* Uncaptured bytes where some were needed. */
	CHECK(feed(&s, &t, "3ab", 2) == STREAM_LOST);
	stream_reset(&s);
	CHECK(feed(&s, &t, "(a", 1) == STREAM_LOST && t.missing == 1);
	stream_reset(&s);
	s.skip = UINT64_MAX;
	CHECK(feed(&s, &t, "!!!!", 1000) == STREAM_OK);
	stream_free(&s);
}

static void test_pending(void)
{
	static char big[STREAM_PENDING_MAX_BYTES + 2];
	struct stream s = { 0 };
	struct toy t = { .s = &s };
	size_t i;

	CHECK(feed(&s, &t, "(a", 0) == STREAM_OK && s.pending.len == 2);
	CHECK(feed(&s, &t, "b", 0) == STREAM_OK && s.pending.len == 3);
	CHECK(feed(&s, &t, "c)2x", 0) == STREAM_OK && s.pending.len == 0 && s.skip == 1);
	CHECK(feed(&s, &t, "x(", 0) == STREAM_OK && s.pending.len == 1);
	stream_reset(&s);
	CHECK(feed(&s, &t, "!", 0) == STREAM_BROKEN);
	CHECK(feed(&s, &t, "0.", 0) == STREAM_STOPPED);
	stream_reset(&s);
	memset(big, 'x', sizeof(big) - 1);
	big[0] = '(';
	CHECK(feed(&s, &t, big, 0) == STREAM_TOO_LARGE);
	stream_reset(&s);
	for (i = 0; i < 1000; i++)
		CHECK(feed(&s, &t, "(", 0) == STREAM_OK);
	CHECK(s.pending.len == 1000);
	stream_free(&s);
}

static void test_chunks(void)
{
	struct stream s = { 0 };
	struct toy t = { .s = &s };

	feed(&s, &t, "0", 0);
	CHECK(s.chunk == 1);
	feed(&s, &t, "0", 0);
	CHECK(s.chunk == 2);
	s.same_call = true;
	feed(&s, &t, "0", 0);
	CHECK(s.chunk == 2 && !s.same_call);
	feed(&s, &t, "", 0);
	CHECK(s.chunk == 3);
	stream_free(&s);
}

int main(void)
{
	test_skips();
	test_pending();
	test_chunks();
	return check_result();
}
