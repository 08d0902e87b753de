/* Samplers: the ratio's bounds are those of the OpenTelemetry SDKs, bit for bit. */
#include "check.h"
#include "trace/sample.h"

static void set_id(uint8_t id[TRACE_ID_BYTES], uint64_t high, uint64_t low)
{
	int i;

	for (i = 0; i < 8; i++) {
		id[i] = (uint8_t)(high >> (56 - 8 * i));
		id[8 + i] = (uint8_t)(low >> (56 - 8 * i));
	}
}

static bool ratio(double r, uint64_t low)
{
	struct sampler s = { .root = SAMPLER_TRACE_ID_RATIO, .ratio = r };
	uint8_t id[TRACE_ID_BYTES];

	set_id(id, UINT64_MAX, low);
	return sampler_decide(&s, id, NULL);
}

static void test_parents(void)
{
	struct sampler s = { .root = SAMPLER_ALWAYS_OFF, .parent_based = true };
	uint8_t id[TRACE_ID_BYTES] = { 1 }, on = 3, off = 2;

	CHECK(sampler_decide(&s, id, &on));
	CHECK(!sampler_decide(&s, id, &off));
	CHECK(!sampler_decide(&s, id, NULL));
	s.root = SAMPLER_ALWAYS_ON;
	CHECK(!sampler_decide(&s, id, &off));
	CHECK(sampler_decide(&s, id, NULL));
	s.parent_based = false;
	CHECK(sampler_decide(&s, id, &off));
	s.root = SAMPLER_ALWAYS_OFF;
	CHECK(!sampler_decide(&s, id, &on));
}

int main(void)
{
	uint64_t x = 88172645463325252ull;
	unsigned int i, kept = 0;

	test_parents();
	CHECK(!ratio(0, 0) && !ratio(-1, 0) && !ratio(0.0 / 0.0, 0));
	CHECK(ratio(1, UINT64_MAX) && ratio(2, UINT64_MAX));
	/* bound = round(ratio * 2^64) */
	CHECK(ratio(0.5, 0x7fffffffffffffff) && !ratio(0.5, 0x8000000000000000));
	CHECK(ratio(0.25, 0x3fffffffffffffff) && !ratio(0.25, 0x4000000000000000));
	CHECK(ratio(0.1, 0x1999999999999999) && !ratio(0.1, 0x199999999999a000));
	CHECK(ratio(1.0 / 18446744073709551616.0, 0) && !ratio(1.0 / 18446744073709551616.0, 1));
	CHECK(!ratio(0.9999999999999999, UINT64_MAX));
	for (i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		kept += ratio(0.1, x);
	}
	CHECK(kept > 9500 && kept < 10500);
	return check_result();
}
