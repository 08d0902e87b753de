/* The samplers of the OpenTelemetry SDK specification, decided by trace id alone, so that all
 * agents agree. */
#ifndef TRACE_SAMPLE_H
#define TRACE_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

#include "trace/span.h"

enum sampler_root { SAMPLER_ALWAYS_ON, SAMPLER_ALWAYS_OFF, SAMPLER_TRACE_ID_RATIO };

struct sampler {
	enum sampler_root root;
	bool parent_based;
	double ratio; /* 0…1, for SAMPLER_TRACE_ID_RATIO */
};

/* `parent_flags` of the parent span, NULL for a root. */
bool sampler_decide(const struct sampler *s, const uint8_t trace_id[TRACE_ID_BYTES],
		    const uint8_t *parent_flags);

#endif
