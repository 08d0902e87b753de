/*
 * What the files behind link.h share: link.c keeps the books of processes and requests, link_call.c
 * those of calls, link_thread.c those of threads; link_judge.c decides where there is no runtime,
 * link_proxy.c for proxies, link_context.h is the rest; link_settle.c hands traces on, link_trust.c
 * checks what the kernel side bound. Processes, requests and calls are counted: a request lives
 * until it has ended and nothing names it, a process until it is gone and has neither requests nor
 * calls, a call until it is over and nothing was made in it. A finished call owns its span while it
 * waits.
 */
#ifndef TRACE_LINK_INTERNAL_H
#define TRACE_LINK_INTERNAL_H

#include "trace/link.h"

struct contexts;
struct link_conn;
struct node;

enum rule { RULE_NONE, RULE_THREAD, RULE_CHILD_THREAD, RULE_PROCESS };

/*
 * What hands a trace on: a request to the calls that were made for it, a call to the request at its
 * other end and to what is made in it. While it isn't settled its trace id may still change, and
 * who takes the trace over waits in `heirs`.
 */
struct link_trace {
	struct list heirs; /* link_trace.heir */
	struct list heir;  /* of the trace that it is taken from; whoever that is, is counted */
	struct list told;  /* of linker.settled */
	bool is_request;   /* of a struct request, else of a struct call */
	bool settled;
	bool given; /* others took it over: it can't be renamed */
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES];
	uint8_t flags; /* W3C, bit 0 as decided; once it is settled */
};

struct process {
	uint32_t pid;
	uint32_t refs;        /* the table, requests, calls */
	struct list requests; /* open ones */
	uint32_t open;        /* how many */
	uint32_t calls_open;
	struct call *lone; /* the only call in flight that has met no other; NULL: none */
	bool served;       /* has had a request on a socket that does not block */
	bool multiplexed;  /* has had two of them at once, or serves what we can't follow */
	bool background;   /* has made calls between requests */
	bool handoff;      /* a request was read by one thread and answered by another */
	bool direct;       /* one was read and answered by the same thread */
	uint64_t first_idle_call_ns; /* the first call outside any request; 0: none */
	uint64_t clear_ns; /* requests that began before may have had company that was not seen */
	uint32_t trust, distrust; /* enum tracer_trust: told; never (again) */
	bool trusted_ever;        /* the kernel side may leave requests of it out */
	struct list hops;         /* link_proxy.c: HTTP calls that may pass requests on, counted */
	uint32_t hop_count;
	struct remote_end *ends; /* a ring of requests that have ended; NULL: none is looked for */
	uint32_t ends_at;
	struct contexts *contexts; /* owned; NULL: nothing is told of its runtime */
};

struct thread {
	uint32_t tid, pid;
	uint32_t open; /* requests it read from blocking sockets and that have not ended */
	struct request *handling; /* one of them */
	struct request
		*born_in; /* the request in which it was made; counted reference, NULL: none */
	bool independent; /* makes calls while no request is open, and reads none */
	/* link_proxy.c: whose answer its last transfer read, and the one before that, counted */
	struct call *heard, *before;
	uint64_t heard_conn, before_conn;
	bool heard_first, heard_last, before_first, before_last;
};

/* How far a request's root is known: the context that all its work comes from. */
enum root {
	ROOT_OPEN,  /* not yet */
	ROOT_EARLY, /* the first copy out of the context that read its head; to be confirmed */
	ROOT_KNOWN, /* its answer came from there */
	ROOT_NONE,  /* it won't be known */
	ROOT_TORN,  /* two answers to the question: nothing is linked to it */
};

struct request {
	struct list node;        /* of its process, while open */
	struct list calls;       /* finished ones that wait for it */
	struct process *process; /* counted reference */
	uint32_t tid;
	uint32_t refs; /* the exchange, calls that name it, threads born in it */
	bool blocking, ended, answered;
	bool head_read;  /* before that nobody handles it */
	uint64_t number; /* never used again */
	uint64_t began_ns, ended_ns;
	struct link_point active; /* the last event on its connection, or of a call of its own */
	uint64_t opened_conn;     /* the connection that it opened last; 0: none */
	bool overlapped;          /* another request of the process was open meanwhile */
	bool shared;              /* another request of its own thread was */
	bool lost;                /* events went missing while it was open */
	/* link_claim.c; the linker's count of what happened is the clock of all `_seq`. */
	struct link_conn *conn; /* counted reference, NULL: no runtime */
	struct list by_conn;    /* of its connection, oldest first, while open */
	struct list pending;    /* of contexts.pending: head read, root open */
	enum root root;
	bool pipelined;        /* its head was read behind a request that was still open */
	bool first;            /* no request was on its connection before */
	bool rested;           /* its connection was idle for LINK_PAUSE_NS before */
	uint64_t answer_seq;   /* the first bytes of its answer were written; 0: not yet */
	bool answer_seen;      /* whether its answer shows a root was looked at */
	uint64_t head_seq;     /* its head was complete; 0: not yet */
	uint64_t end_seq;      /* its answer was */
	uint64_t quit_seq;     /* when it was no longer pending, its root not known; 0: not so */
	uint64_t behind_seq;   /* the head of the next one was, before it had ended; 0: no such */
	bool by_client;        /* its root was found by rule 7 */
	uint64_t root_seq;     /* its root was made, as its answer proved; 0: not known */
	uint64_t root_from;    /* link_next.c: out of that node; 0: of another one's work */
	struct node *early;    /* of ROOT_EARLY; counted reference */
	struct node *task;     /* answered in its connection's own task; counted reference */
	struct node *bound;    /* what the kernel side takes for its root; counted reference */
	struct node *bound_in; /* and what that was copied from; counted reference */
	bool bound_surely;     /* the kernel side relies upon it, as far as it does at all */
	/* link_settle.c */
	struct link_trace trace;
	struct list settling; /* of the linker, counted, until its trace and parent are final */
	bool own_trace;       /* the kernel side said that the trace can't change */
	bool joins;           /* the call at the other end may be found */
	bool parented;        /* its parent is final */
	bool has_parent, remote_parent;
	uint8_t parent_span_id[SPAN_ID_BYTES];
	bool remote; /* it came with this: */
	uint8_t remote_trace_id[TRACE_ID_BYTES], remote_span_id[SPAN_ID_BYTES], remote_flags;
	bool promised; /* the kernel side named its trace to others before it was settled: it is
			  that of the call at the other end, with these flags */
	uint8_t promised_flags;
	bool gone;             /* its span has left */
	struct call *caller;   /* the call at the other end, counted; NULL: not found (yet) */
	struct span *span;     /* owned, once it has ended, until it is handed on */
	struct join_end *join; /* join.c */
	/* link_proxy.c */
	uint64_t hop_key;   /* of method and target; 0: no matter */
	uint64_t hop_order; /* when its head was read */
	int status;         /* of its answer; 0: it has not begun */
	struct call *hop;   /* whose answer it passed on; that one names it; NULL: none */
	bool hop_torn;      /* several may be */
};

/* What a request at the other end knows of its call. */
struct link_name {
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES], flags;
	bool by_header; /* which may be of the call's maker */
};

struct call {
	struct list node; /* of the linker, once it waits: by the time it ended; in a process with
			     contexts of contexts.calls, until decided: by the time it began */
	uint32_t refs;
	struct list by_request;
	struct process *process; /* counted reference */
	struct request *request; /* candidate, counted reference; NULL: none */
	enum rule rule;
	enum drop_reason why_none;
	uint32_t tid;
	struct span *span;
	uint64_t conn_id;
	uint64_t began_ns, ended_ns;
	uint64_t gone_ns; /* RULE_CHILD_THREAD: when the thread ended in time; 0: it has not */
	bool loose;  /* it does not follow from what went before in its request, or what came next
			does not follow from it */
	bool proven; /* a whole chain leads from the request over it back to the request */
	bool overlapped; /* another call of the process was in flight meanwhile */
	/* link_decide.c */
	struct node *origin; /* counted reference; NULL: none */
	struct call *within; /* custom span, counted reference; NULL: none */
	uint64_t seq;        /* when it began */
	uint64_t item_maker; /* who submitted the item that it was made in; see link_maker() */
	uint64_t maker;      /* link_call_maker() gave it; 0: nothing, or not asked */
	bool maker_wrong;    /* and it wasn't so */
	bool by_lineage;     /* `within` was on the stack when its context was copied, not now */
	bool pooled;         /* the frames don't rule out that its thread is a pool's */
	bool is_custom;      /* a custom span; its own ids: */
	bool decided;        /* for whom it was made; its trace may still be open */
	bool left;           /* contexts.calls */
	bool torn;           /* events were lost */
	bool crowded;        /* link_call_crowded() */
	bool exact;   /* a custom span whose end will be seen: what is in it waits for that */
	bool over;    /* a custom span that has ended */
	bool dropped; /* a custom span that won't be */
	uint32_t open_within;
	uint64_t last_within_ns;
	struct request *of; /* decided: the request it belongs to, counted; NULL: none */
	/* link_settle.c */
	struct link_trace trace;
	bool has_parent;
	uint8_t parent_span_id[SPAN_ID_BYTES];
	bool identified;           /* the kernel side told its ids */
	bool fixed;                /* others were told its trace: the flags are in trace.flags */
	bool is_bound, in_context; /* the kernel side takes it to be made for the request */
	uint8_t bound_to[SPAN_ID_BYTES];
	bool is_named; /* the request at the other end says what its parent's ids are: */
	struct link_name name;
	uint64_t latest_start_ns; /* the request at the other end began then; 0: not joined */
	struct join_end *join;    /* join.c */
	/* link_proxy.c */
	struct request *forwarded; /* whose traceparent it carries on, counted; NULL: none */
	bool head_read;
	bool own_header; /* its maker wrote this: */
	uint8_t own_trace_id[TRACE_ID_BYTES], own_span_id[SPAN_ID_BYTES];
	struct list hop; /* of process.hops */
	uint64_t hop_key, hop_order;
	int status;             /* of its answer; 0: it has not begun */
	bool complete;          /* its answer has ended */
	struct request *passed; /* which passed its answer on, counted; NULL: none */
	bool hop_torn;
};

static inline struct request *link_request_of(struct link_trace *t)
{
	return list_entry(t, struct request, trace);
}

struct linker {
	struct linker_ops ops;
	struct stats *stats;
	struct hash processes, threads;
	struct list waiting;     /* finished calls, in the order they ended */
	uint64_t doubt_until_ns; /* events were lost: requests may be open that were not seen */
	uint64_t seq;            /* counts what happened */
	struct hash conns;       /* conn_id → struct link_conn, one reference each */
	struct hash peers;       /* of those; link_serve.c */
	uint64_t next_look_ns;
	struct list settling; /* requests whose trace or parent isn't final, by their begin */
	uint32_t settling_count;
	struct list decided; /* calls whose request isn't settled, in the order of decision */
	uint32_t decided_count;
	struct list settled; /* traces whose heirs haven't been told */
	bool telling;
	uint64_t hop_order; /* link_proxy.c: counts heads of requests and of calls */
};

/* link.c */
void link_call_free(struct call *c);                              /* off its lists, and put */
struct process *link_process(struct linker *l, uint32_t pid);     /* NULL: not known */
struct process *link_process_get(struct linker *l, uint32_t pid); /* made; NULL: no memory */

/* link_decide.c: the call is decided, where it came from matters no more. */
void link_call_leaves(struct call *c);

/* link_thread.c */
/* Made when new. NULL when out of memory (counted). */
struct thread *link_thread_get(struct linker *l, uint32_t pid, uint32_t tid);
/* The process is gone: its threads end with it, which joins none of them. */
void link_threads_end(struct linker *l, uint32_t pid, uint64_t now_ns);
void link_threads_free(struct linker *l);

/* link_judge.c */
enum verdict { VERDICT_WAIT, VERDICT_YES, VERDICT_NO };
/* How long the decision may still wait. */
enum patience { PATIENT, TIME_IS_UP, LAST };
enum patience link_patience(const struct call *c, uint64_t now_ns, bool last);
/* Is the candidate of the rules without a runtime the parent? `*why` says why not. */
enum verdict link_judge(const struct call *c, uint64_t now_ns, enum patience patience,
			enum drop_reason *why);
/* Is it certain that the thread that read `r` handles it? */
enum verdict link_judge_thread(const struct process *p, const struct request *r,
			       enum patience patience, enum drop_reason *why);
/* Does what happens at `at` follow from the last event of `r`? */
bool link_follows(const struct request *r, const struct link_point *at);
/* Sets the candidate of a call that begins, or why there is none. By its thread (false: that says
 * nothing), else by its process. */
bool link_choose_thread(const struct thread *t, struct call *c);
void link_choose_process(struct linker *l, struct thread *t, struct call *c,
			 const struct link_point *at);
/* Hands the span on when it is decided; true when the call is done with. `last`: no more waiting.
 */
bool link_decide(struct linker *l, struct call *c, uint64_t now_ns, bool last);

#endif
