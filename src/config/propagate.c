/*
 * What is carried to the next service, and how: --propagate, and the standard's list of
 * propagators. It knows W3C trace context only, the one format that spanloom writes, and says so of
 * the others.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "config/internal.h"

enum { PROPAGATOR_NAME_BYTES = 64 };

int parse_propagate(const struct option_row *row, const char *text, struct options *o)
{
	unsigned int set;

	if (!choices_parse(row->choices, text, &set))
		return -EINVAL;
	if (set & PROPAGATE_AUTO && set != PROPAGATE_AUTO)
		return -EINVAL;
	o->propagate = set;
	return 0;
}

/* True when it is tracecontext. What else is written by nobody here is said, but for baggage, which
 * is the application's own, and none. */
static bool propagator(const char *where, const char *name)
{
	/* OpenTelemetry, "Environment Variable Specification", OTEL_PROPAGATORS. */
	static const char *const known[] = { "b3", "b3multi", "jaeger", "xray", "ottrace" };

	if (strcmp(name, "tracecontext") == 0)
		return true;
	if (strcmp(name, "baggage") == 0 || strcmp(name, "none") == 0)
		return false;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(name, known[i]) == 0) {
			log_warning("%s: %s is neither read nor written: spanloom knows "
				    "tracecontext only",
				    where, name);
			return false;
		}
	}
	log_warning("%s: unknown propagator '%s' is ignored", where, name);
	return false;
}

/* Does the list name tracecontext? */
static bool propagators_trace_context(const char *where, const char *list)
{
	bool found = false;

	for (;;) {
		size_t len = strcspn(list, ","), begin = strspn(list, " \t"), end = len;
		char name[PROPAGATOR_NAME_BYTES];

		while (end > begin && (list[end - 1] == ' ' || list[end - 1] == '\t'))
			end--;
		if (end > begin) {
			size_t bytes = end - begin < sizeof(name) ? end - begin : sizeof(name) - 1;

			memcpy(name, list + begin, bytes);
			name[bytes] = 0;
			found |= propagator(where, name);
		}
		if (!list[len])
			return found;
		list += len + 1;
	}
}

void resolve_propagate(const struct setting *settings, struct options *o)
{
	const struct setting *list = &settings[OPT_PROPAGATORS];

	if (!list->count || propagators_trace_context(list->values[0].where,
						      setting_text(settings, OPT_PROPAGATORS)))
		return;
	/* Who says --propagate=headers on the command line means it. */
	if (settings[OPT_PROPAGATE].source > list->source)
		return;
	o->no_trace_context = true;
	o->propagate &= ~(uint32_t)(PROPAGATE_HEADERS | PROPAGATE_AUTO);
}
