/* What the agent says of itself in words: what it traces, where spans go, what it has seen and
 * dropped. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/stats.h"
#include "config/options.h"

/* "--port 8000, --exe 'python*'", cut to `bytes`. */
void report_selection(const struct options *o, char *buf, size_t bytes);
/* "OTLP/gRPC http://localhost:4317 and the console". */
void report_destination(const struct options *o, char *buf, size_t bytes);
/*
 * "traceparent into outgoing HTTP: on" and the TCP option if that is on, or why not: what the user
 * chose, else `why` (may be NULL: nothing to say).
 */
void report_propagation(const struct options *o, bool headers, bool tcp_option, const char *why,
			char *buf, size_t bytes);
/* "all", "none", "0.1", and what goes beyond. */
void report_sampling(const struct options *o, char *buf, size_t bytes);
/* One line of figures, and one for each reason that dropped something, on stderr. */
void report_summary(const struct stats *s, const char *title);

#endif
