/* What the agent says of itself at the start: every decision, and the reason of each that is not
 * what was asked for. */
#include <stdlib.h>

#include "check.h"
#include "config/options.h"
#include "report.c"

static char text[512];

static const char *propagation(uint32_t asked, bool headers, bool tcp, const char *why)
{
	struct options o = { .propagate = asked };

	report_propagation(&o, headers, tcp, why, text, sizeof(text));
	return text;
}

static void test_propagation(void)
{
	struct options o = { .no_trace_context = true };

	CHECK_STR(propagation(PROPAGATE_AUTO, true, false, NULL),
		  "traceparent into outgoing HTTP: on");
	CHECK_STR(propagation(PROPAGATE_AUTO, true, false, "a difference, warned of elsewhere"),
		  "traceparent into outgoing HTTP: on");
	CHECK_STR(propagation(PROPAGATE_AUTO, false, false, "no cgroup v2"),
		  "traceparent into outgoing HTTP: off (no cgroup v2)");
	CHECK_STR(propagation(0, false, false, NULL),
		  "traceparent into outgoing HTTP: off (--propagate=off)");
	CHECK_STR(propagation(PROPAGATE_TCP, false, true, NULL),
		  "traceparent into outgoing HTTP: off (--propagate=tcp), TCP option: on");
	CHECK_STR(propagation(PROPAGATE_HEADERS | PROPAGATE_TCP, true, false, "no room"),
		  "traceparent into outgoing HTTP: on, TCP option: off (no room)");
	CHECK_STR(propagation(PROPAGATE_HEADERS | PROPAGATE_TCP, false, false, "no room"),
		  "traceparent into outgoing HTTP: off (no room), TCP option: off (no room)");
	report_propagation(&o, false, false, NULL, text, sizeof(text));
	CHECK_STR(text, "traceparent into outgoing HTTP: off (OTEL_PROPAGATORS has no "
			"tracecontext)");
}

static const char *sampling(struct options o)
{
	report_sampling(&o, text, sizeof(text));
	return text;
}

static void test_sampling(void)
{
	CHECK_STR(sampling((struct options){ .sampler_parent_based = true, .sampler_ratio = 1 }),
		  "all");
	CHECK_STR(sampling((struct options){
			  .sampler_root = 2, .sampler_parent_based = true, .sampler_ratio = 0.1 }),
		  "0.1");
	CHECK_STR(sampling((struct options){ .sampler_root = 1 }),
		  "none (whatever the caller decided)");
	CHECK_STR(sampling((struct options){ .sampler_root = 2,
					     .sampler_parent_based = true,
					     .sampler_ratio = 0.01,
					     .root_limit = 5,
					     .keep_errors = true,
					     .keep_slow_ms = 250 }),
		  "0.01 (at most 5 new traces/s of a service; failed requests always; requests of "
		  "250 ms and longer always)");
}

/* The rest of what is cut is the caller's. */
static void test_cut(void)
{
	struct options o = { .propagate = PROPAGATE_AUTO };
	char small[12];

	report_propagation(&o, true, false, NULL, small, sizeof(small));
	CHECK_STR(small, "traceparent");
}

int main(void)
{
	test_propagation();
	test_sampling();
	test_cut();
	return check_result();
}
