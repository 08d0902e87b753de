/*
 * Which request a call belongs to. It knows processes, threads, the requests that are being handled
 * and the calls that were made meanwhile; it links only where that is certain, else it leaves the
 * parent out and counts why.
 *
 * A thread that takes its request from a blocking socket handles that request alone: what it calls
 * belongs to it, and so does what its child threads call, if they end before the request does. On a
 * socket that does not block anything in the process may work for the request: then a call is
 * linked only when the process handles that one request and has never been seen to handle several
 * at once or to work between requests. Sockets don't show work beside the requests when it happens
 * within one, so such a call must also be one step of a chain: it meets no other call, it follows
 * from what went before in its request, and what comes next there follows from it. "Follows" means:
 * by the same thread without a sleep in between, or by another thread at once. What is left open is
 * work of others that is due in the very moment in which its thread is busy with the request.
 *
 * The decision waits since the evidence may come later: until the request ends, on sockets that do
 * not block always LINK_WAIT_NS.
 *
 * Whose a call is does not depend on which trace that request is in, but its span does: it waits
 * until the request's own caller is known (link_settle.h, join.h). In proxies, where none of this
 * tells enough, header and answer do (link_proxy.h).
 *
 * In a process whose runtime tells its contexts (link_runtime) none of these guesses are needed:
 * link_context.h has the rules, and what is above serves only where they say nothing.
 */
#ifndef TRACE_LINK_H
#define TRACE_LINK_H

#include "base/hash.h"
#include "base/list.h"
#include "base/stats.h"
#include "trace/connection.h"
#include "trace/span.h"
#include "trace/trace_context.h"

#define LINK_WAIT_NS 300000000ull    /* how long a finished call waits for its parent */
#define LINK_PROMPT_NS 5000000ull    /* "at once": the time a request may be silent before a call */
#define LINK_SETUP_NS 1000000000ull  /* a process may set up this long behind its first call */
#define LINK_LOOK_NS 10000000ull     /* how often calls that wait for time alone are looked at */
#define LINK_PAUSE_NS 100000000ull   /* a task with work left does not pause so long */
#define LINK_DOUBT_NS 10000000000ull /* a request that was lost from sight may take this long */
#define LINK_JOIN_NS                                                                 \
	100000000ull /* how long a request waits for its caller, from its first byte \
		      */
#define LINK_SETTLE_NS 3000000000ull /* and, joined, for the caller's trace, from its own end */
#define LINK_GRACE_NS \
	50000000ull /* a child thread that was joined is gone this soon after its request */

/* When and where an event was. `turn` as in struct io_event. */
struct link_point {
	uint64_t ns;
	uint32_t tid, turn;
};

struct linker;
struct request;
struct call;

struct linker_ops {
	/* A span whose parent and trace are final; `flags` are W3C's, the sampler's decision in bit
	 * 0. The receiver owns it. */
	void (*linked)(void *ctx, struct span *s, uint8_t flags);
	/* What link_call_maker() gave for the call of this span isn't so. */
	void (*not_made)(void *ctx, struct span *s);
	/* The W3C flags of a span whose parent has `parent_flags` (NULL: of a root), the decision
	 * in bit 0. */
	uint8_t (*decide)(void *ctx, const uint8_t *trace_id, const uint8_t *parent_flags);
	/* As in struct tracer_ops; may be NULL. */
	void (*trust)(void *ctx, uint32_t pid, uint32_t trust);
	void (*handlers)(void *ctx, uint32_t pid, const uint64_t *contexts);
	bool (*silent)(void *ctx, uint32_t pid);
	void *ctx;
};

/* What begins a call: a client's request, a custom span. */
struct link_origin {
	uint32_t pid;
	uint64_t conn_id; /* 0: on none */
	struct link_point at;
	uint64_t context;                /* the runtime's; 0: none */
	const struct runtime_site *site; /* NULL: nothing is known of the frames */
	struct call *within;             /* the custom span that it is made in; NULL: see lineage */
	const struct span *span;         /* its own, with its ids */
	bool custom;                     /* it is a custom span */
	bool exact;                      /* a custom span whose end will be told */
};

struct linker *linker_new(const struct linker_ops *ops, struct stats *stats);
/* Spans that wait are dropped. Takes NULL. */
void linker_free(struct linker *l);

/* A request of `ex` begins: its first byte was read by ex->tid. NULL when out of memory. */
struct request *link_request_begin(struct linker *l, struct exchange *ex);
struct request *link_request_get(struct request *r);
struct call *link_call_get(struct call *c);
/* The puts take NULL. */
void link_request_put(struct request *r);
void link_call_put(struct call *c);
/* The ids that the kernel side has given to it. */
void link_request_ids(struct linker *l, struct request *r, const struct request_event *ev);
/* Its head has this traceparent. False: the kernel side knows of another parent. */
bool link_request_remote(struct request *r, const struct trace_context *tc);
/* Its head was read whole, in `context`: it may be handled from now on. */
void link_request_head(struct linker *l, struct request *r, uint64_t context);
/* The first bytes of its answer were written in `context` (0: in none, or it isn't known). */
void link_request_root(struct linker *l, struct request *r, uint64_t context, uint64_t now_ns);
/* Whether its span may be kept, as far as that is known. */
bool link_request_sampled(const struct request *r);
/* Bytes went over its connection. */
void link_request_active(struct request *r, const struct link_point *at);
/* A byte of its answer was sent by `tid`. */
void link_request_answered(struct linker *l, struct request *r, uint32_t tid);
/* Its answer is complete; its span (taken over; NULL: dropped) goes to ops.linked once trace and
 * parent are final. Frees it once nothing waits for it. */
void link_request_end(struct linker *l, struct request *r, struct span *s, uint64_t now_ns);
/* Whether its caller is still looked for. */
bool link_request_waits(const struct request *r);
/* `c` is the call at the other end of `r`. */
void link_join(struct linker *l, struct call *c, struct request *r);
/* Several calls may be: none is. */
void link_join_none(struct linker *l, struct request *r);

/* What proxies are followed by (link_proxy.h): the request or call of the exchange has method and
 * target with this hash (not 0); the call's head has a traceparent of its maker's; of its answer,
 * in `ev`, the status came (not 0), or (0) the end; the same of an answer that was sent. */
void link_request_target(struct linker *l, struct request *r, uint64_t key);
void link_call_target(struct linker *l, struct call *c, uint64_t key);
/* A request with the same hash is open in the process of the call. */
bool link_call_passes_on(const struct call *c);
void link_call_header(struct linker *l, struct call *c, const struct trace_context *tc,
		      uint64_t now_ns);
void link_call_hears(struct linker *l, struct call *c, const struct io_event *ev, int status);
void link_request_passes(struct linker *l, struct request *r, const struct io_event *ev,
			 int status);
/* A thread's transfer comes (not a failed one): call before what it means is told. */
void link_transfer(struct linker *l, const struct io_event *ev);

/* A connection of the process is used for the first time; info->turn and connect_turn tell when the
 * thread asked for it. */
void link_connected(struct linker *l, const struct conn_info *info);
/* A call begins. NULL when out of memory. The caller ends it. */
struct call *link_call_begin(struct linker *l, const struct link_origin *o);
/* Bytes of other calls were sent with its first ones: its context may be another's. */
void link_call_crowded(struct call *c);
/* The ids that the kernel side has given to it. */
void link_call_ids(struct linker *l, struct call *c, const struct request_event *ev);
/* Whether its span may be kept, as far as that is known. */
bool link_call_sampled(const struct call *c);
/* The application's function that had the library make the call in a task of its own: its code
 * object, as far as that is known by now; 0: not known. For calls on whose stack there is none. */
uint64_t link_call_maker(struct call *c);
/* The call is over: its span (taken over; NULL: dropped) goes to ops.linked once the parent is
 * decided. Frees the call. */
void link_call_end(struct linker *l, struct call *c, struct span *s, const struct link_point *at);
/* Whether any request of the process is being handled, or `context` belongs to one that was. */
bool link_is_handling(struct linker *l, uint32_t pid, uint64_t context);

void link_thread_start(struct linker *l, uint32_t pid, uint32_t tid, uint32_t parent_tid,
		       uint64_t now_ns);
void link_thread_exit(struct linker *l, uint32_t pid, uint32_t tid, uint64_t now_ns);
void link_process_exit(struct linker *l, uint32_t pid, uint64_t now_ns);
/* A request is or was in flight until now whose beginning was not seen: the agent came later. */
void link_unseen(struct linker *l, uint32_t pid, uint64_t now_ns);
/* The process serves a connection that can't be followed: what it does for it may be seen any time.
 */
void link_opaque(struct linker *l, uint32_t pid);
/* Events are missing: no request that is being handled now can be trusted any more, and others may
 * be that were not seen. */
void link_lost(struct linker *l, uint64_t now_ns);
void link_tick(struct linker *l, uint64_t now_ns);

/* The contexts of the process's runtime are told from now on. */
void link_runtime(struct linker *l, uint32_t pid, uint64_t now_ns);
bool link_has_runtime(struct linker *l, uint32_t pid);
/* Custom spans of the process are told from now on. False: out of memory. */
bool link_custom(struct linker *l, uint32_t pid);
/* It runs another program: nothing that was known of its runtime holds. */
void link_process_changed(struct linker *l, uint32_t pid, uint64_t now_ns);
/* Work is handed on; `within`: the innermost custom span on the stack then, NULL: none. */
void link_context(struct linker *l, const struct context_event *ev, struct call *within);
/* What runs in `context` says which client it serves. */
void link_serves(struct linker *l, uint32_t pid, uint64_t context,
		 const struct runtime_client *client, uint64_t now_ns);
/* Bytes of a connection that is served were read in `context`. */
void link_conn_read(struct linker *l, uint32_t pid, uint64_t conn_id, uint64_t context);
void link_conn_close(struct linker *l, uint64_t conn_id);
/* A number for what runs one after the other for one request: a context or thread, with the request
 * that the thread handles and the executor's item that it runs. Two that differ have different ones
 * (but for a chance of one in 2^64). */
uint64_t link_strand(struct linker *l, uint32_t pid, uint32_t tid, uint64_t context,
		     const struct runtime_site *site);
/* Whether `context`, in which custom span `c` began, handles another request by now: the task of a
 * connection goes from one to the next. */
bool link_strand_over(const struct call *c, uint64_t context);
/* Whether the request that the custom span `c` belongs to is being handled. `*ret_known`: whether
 * it has one is decided; `*ret_ended`: it had one. */
bool link_call_request(const struct call *c, bool *ret_known, bool *ret_ended);
/* When the last of what was called in it ended; 0: none has. */
uint64_t link_call_last_within(const struct call *c);
/* Calls within it that have not ended. */
uint32_t link_call_open_within(const struct call *c);

/* Decides everything that waits. */
void link_flush(struct linker *l, uint64_t now_ns);

#endif
