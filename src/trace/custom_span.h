/*
 * Custom spans: functions of the configuration that become INTERNAL spans. Of a runtime's functions
 * only the frames at each event are seen: a span lasts from the first to the last event with its
 * frame on the stack, widened to the ends of what was called in it, and says
 * spanloom.bounds=observed. A native function is seen to be entered and left: bounds=exact.
 *
 * Identity of a runtime's function: its frame, rule and arguments, within one strand (a context,
 * else a thread). It is over when the frame is seen to be another's, when its strand goes on
 * without it, or when it has been quiet long enough with no request that it belongs to being
 * handled. Whose child it is decides the linker, as for a call.
 */
#ifndef TRACE_CUSTOM_SPAN_H
#define TRACE_CUSTOM_SPAN_H

#include <stdint.h>

#include "base/io.h"

struct call;
struct tracer;

#define CUSTOM_AFTER_NS 1000000000ull /* quiet, its request answered: over */
#define CUSTOM_QUIET_NS 5000000000ull /* quiet, without a request: over */
#define CUSTOM_WAIT_NS \
	30000000000ull /* quiet, and whether it has a request isn't known: over all the same */

enum { CUSTOM_SPANS_MAX = 4096 /* open ones of a process */ };

/* Where and when something was seen. */
struct custom_point {
	uint32_t pid, tid, turn;
	uint64_t ts_ns;
	uint64_t context;
};

/* The functions on the stack at `at`. */
void custom_span_see(struct tracer *t, const struct custom_point *at,
		     const struct runtime_site *site);
/* The innermost custom span that is open there, as a call of the linker; borrowed, NULL: none. Call
 * custom_span_see() before. */
struct call *custom_span_current(struct tracer *t, uint32_t pid, uint32_t tid, uint64_t context,
				 const struct runtime_site *site);
void custom_span_native(struct tracer *t, const struct native_span_event *ev);
/* Ends what is over. */
void custom_span_tick(struct tracer *t, uint64_t now_ns);
/* A thread is gone, and with it the native functions that it was in. */
void custom_span_thread_exit(struct tracer *t, uint32_t pid, uint32_t tid);
/* Ends everything of a process; native functions that were not left are dropped. */
void custom_span_process_exit(struct tracer *t, uint32_t pid);
/* The same of all. */
void custom_span_end_all(struct tracer *t);
/* Frees all; spans in flight are dropped. */
void custom_span_free(struct tracer *t);

#endif
