/*
 * Decides by the trace id's last eight bytes, as the ratio samplers of the OpenTelemetry SDKs do,
 * so that every agent and every SDK keeps the same traces. Pure.
 */
#include "trace/sample.h"

#include "base/ratio.h"

enum { FLAG_SAMPLED = 1 };

static bool decide_ratio(double ratio, const uint8_t trace_id[TRACE_ID_BYTES])
{
	uint64_t value = 0, bound = 0;
	enum ratio_kind kind = ratio_bound(ratio, &bound);
	int i;

	if (kind != RATIO_BOUND)
		return kind == RATIO_ALL;
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
