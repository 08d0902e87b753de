/*
 * Decides by the trace id's last eight bytes, as the ratio samplers of the OpenTelemetry SDKs do,
 * so that every agent and every SDK keeps the same traces. Pure.
 */
#include "trace/sample.h"

#define TWO_POW_64 18446744073709551616.0

enum { FLAG_SAMPLED = 1 };

static bool decide_ratio(double ratio, const uint8_t trace_id[TRACE_ID_BYTES])
{
	uint64_t value = 0, bound;
	int i;

	if (!(ratio > 0))
		return false;
	if (ratio >= 1)
		return true;
	/* A double below 1 is at most 1 - 2^-53, so the product fits; the 0.5 rounds the small
	 * ones. */
	bound = (uint64_t)(ratio * TWO_POW_64 + 0.5);
	for (i = TRACE_ID_BYTES - 8; i < TRACE_ID_BYTES; i++)
		value = value << 8 | trace_id[i];
	return value < bound;
}

bool sampler_decide(const struct sampler *s, const uint8_t trace_id[TRACE_ID_BYTES],
		    const uint8_t *parent_flags)
{
	if (s->parent_based && parent_flags)
		return *parent_flags & FLAG_SAMPLED;
	switch (s->root) {
	case SAMPLER_ALWAYS_ON:
		return true;
	case SAMPLER_ALWAYS_OFF:
		return false;
	case SAMPLER_TRACE_ID_RATIO:
		return decide_ratio(s->ratio, trace_id);
	}
	return false;
}
