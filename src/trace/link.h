/*
 * Which request a call belongs to. It knows processes, threads, the requests that are being handled
 * and the calls that were made meanwhile; it links only where that is certain, else it leaves the
 * parent out and counts why.
 *
 * A thread that takes its request from a blocking socket handles that request alone: what it calls
 * belongs to it, and so does what its child threads call, if they end before the request does. On a
 * socket that does not block anything in the process may work for the request: then a call is
 * certain only when the process handles that one request and has never been seen to handle several
 * at once or to work between requests.
 *
 * The decision waits until the request ends, at most LINK_WAIT_NS behind the call, since the
 * evidence may come later.
 */
#ifndef TRACE_LINK_H
#define TRACE_LINK_H

#include "base/hash.h"
#include "base/list.h"
#include "base/stats.h"
#include "trace/connection.h"
#include "trace/span.h"

#define LINK_WAIT_NS 300000000ull /* the longest that a finished call waits for its parent */
#define LINK_GRACE_NS \
	50000000ull /* a child thread that was joined is gone this soon after its request */

struct linker;
struct request;
struct call;

struct linker_ops {
	/* A client span, its parent decided. The receiver owns it. `parent_flags` is NULL for a
	 * root. */
	void (*linked)(void *ctx, struct span *s, const uint8_t *parent_flags);
	void *ctx;
};

struct linker *linker_new(const struct linker_ops *ops, struct stats *stats);
/* Spans that wait are dropped. Takes NULL. */
void linker_free(struct linker *l);

/* A request of `ex` begins: its first byte was read by ex->tid. NULL when out of memory. */
struct request *link_request_begin(struct linker *l, struct exchange *ex);
/* Its ids are known now or have changed. */
void link_request_ids(struct request *r, const struct span *s, bool sampled);
/* A byte of its answer was sent by `tid`. */
void link_request_answered(struct linker *l, struct request *r, uint32_t tid);
/* Its answer is complete. Frees it once nothing waits for it. */
void link_request_end(struct linker *l, struct request *r, uint64_t now_ns);

/* A call begins in thread `tid`. NULL when out of memory. */
struct call *link_call_begin(struct linker *l, uint32_t pid, uint32_t tid, uint64_t now_ns);
/* The call is over: its span (taken over; NULL: dropped) goes to ops.linked once the parent is
 * decided. Frees the call. */
void link_call_end(struct linker *l, struct call *c, struct span *s, uint64_t now_ns);
/* Whether any request of the process is being handled. */
bool link_is_handling(struct linker *l, uint32_t pid);

void link_thread_start(struct linker *l, uint32_t pid, uint32_t tid, uint32_t parent_tid,
		       uint64_t now_ns);
void link_thread_exit(struct linker *l, uint32_t tid, uint64_t now_ns);
void link_process_exit(struct linker *l, uint32_t pid, uint64_t now_ns);
/* Events are missing: no request that is being handled now can be trusted any more. */
void link_lost(struct linker *l);
void link_tick(struct linker *l, uint64_t now_ns);
/* Decides everything that waits. */
void link_flush(struct linker *l, uint64_t now_ns);

#endif
