/*
 * What is said of the collector in the agent's log: one line when it goes wrong, one for each other
 * kind of trouble until it is well again, and one when it is; never one a batch. It decides nothing
 * but that.
 */
#ifndef EXPORT_OTLP_HEALTH_H
#define EXPORT_OTLP_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"
#include "export/otlp_answer.h"

struct otlp_health {
	const struct stats *stats;
	char *url;          /* owned */
	const char *speaks; /* what is spoken to it, "OTLP/gRPC" */
	size_t max_spans;
	uint32_t said;     /* a bit for each kind of trouble that was logged since the collector was
			      last well */
	bool said_partial; /* that spans were rejected in part */
	uint64_t lost;     /* spans lost when the trouble began */
	uint64_t quiet_until_ns;
};

/* `stats` and `speaks` are borrowed. False when out of memory. */
bool otlp_health_init(struct otlp_health *h, const struct stats *stats, const char *url,
		      size_t max_spans, const char *speaks);
void otlp_health_free(struct otlp_health *h);
/* How a request ended. */
void otlp_health_note(struct otlp_health *h, const struct otlp_verdict *verdict, uint64_t now_ns);

#endif
