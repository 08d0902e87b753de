/* Log lines about the collector. A collector that comes and goes is reported at most every
 * QUIET_NS. */
#include "export/otlp_health.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const uint64_t QUIET_NS = 10000000000;

bool otlp_health_init(struct otlp_health *h, const struct stats *stats, const char *url,
		      size_t max_spans, const char *speaks)
{
	*h = (struct otlp_health){
		.stats = stats, .speaks = speaks, .max_spans = max_spans, .url = strdup(url)
	};
	return h->url != NULL;
}

void otlp_health_free(struct otlp_health *h)
{
	free(h->url);
	h->url = NULL;
}

static uint64_t lost_spans(const struct otlp_health *h)
{
	return h->stats->drops[DROP_QUEUE_FULL] + h->stats->drops[DROP_EXPORT_FAILED] +
	       h->stats->drops[DROP_EXPORT_REJECTED];
}

static void note_accepted(struct otlp_health *h, const struct otlp_verdict *v, uint64_t now_ns)
{
	if (h->said) {
		log_info("the collector at %s takes spans again; %" PRIu64 " were lost meanwhile",
			 h->url, lost_spans(h) - h->lost);
		h->said = 0;
		h->quiet_until_ns = now_ns + QUIET_NS;
	}
	if (v->rejected_spans && !h->said_partial)
		log_warning("the collector at %s rejected %" PRIu64
			    " spans of a batch: %s; rejected spans are counted "
			    "from here on, not logged",
			    h->url, v->rejected_spans,
			    v->text[0] ? v->text : "it does not say why");
	else if (v->text[0] && !h->said_partial)
		log_warning("the collector at %s took a batch and says: %s", h->url, v->text);
	h->said_partial |= v->rejected_spans || v->text[0];
}

void otlp_health_note(struct otlp_health *h, const struct otlp_verdict *v, uint64_t now_ns)
{
	uint32_t bit = 1U << v->outcome;

	if (v->outcome == OTLP_ACCEPTED) {
		note_accepted(h, v, now_ns);
		return;
	}
	if (h->said & bit || now_ns < h->quiet_until_ns)
		return;
	if (!h->said)
		h->lost = lost_spans(h);
	h->said |= bit;
	if (v->outcome == OTLP_UNREACHABLE)
		log_warning("no spans get through to %s: %s; up to %zu wait, more are dropped; "
			    "start a collector that "
			    "takes %s there, or set OTEL_EXPORTER_OTLP_ENDPOINT",
			    h->url, v->text, h->max_spans, h->speaks);
	else if (v->outcome == OTLP_BUSY)
		log_warning("the collector at %s can't take spans now: %s; up to %zu wait, more "
			    "are dropped",
			    h->url, v->text, h->max_spans);
	else
		log_warning("the collector at %s refuses spans: %s; they are dropped; check that "
			    "it takes %s there, and "
			    "what OTEL_EXPORTER_OTLP_HEADERS it wants",
			    h->url, v->text, h->speaks);
}
