/*
 * What the files behind link.h share: link.c keeps the books of processes and requests, link_call.c
 * those of calls, link_thread.c those of threads; link_judge.c decides where there is no runtime,
 * link_context.h is the rest. Processes, requests and calls are counted: a request lives until it
 * has ended and nothing names it, a process until it is gone and has neither requests nor calls, a
 * call until it is over and nothing was made in it. A finished call owns its span while it waits.
 */
#ifndef TRACE_LINK_INTERNAL_H
#define TRACE_LINK_INTERNAL_H

#include "trace/link.h"

struct contexts;
struct link_conn;
struct node;

enum rule { RULE_NONE, RULE_THREAD, RULE_CHILD_THREAD, RULE_PROCESS };

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
	struct contexts *contexts; /* owned; NULL: nothing is told of its runtime */
};

struct thread {
	uint32_t tid, pid;
	uint32_t open; /* requests it read from blocking sockets and that have not ended */
	struct request *handling; /* one of them */
	struct request
		*born_in; /* the request in which it was made; counted reference, NULL: none */
	bool independent; /* makes calls while no request is open, and reads none */
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
	bool pipelined;      /* its head was read behind a request that was still open */
	bool first;          /* no request was on its connection before */
	bool rested;         /* its connection was idle for LINK_PAUSE_NS before */
	uint64_t answer_seq; /* the first bytes of its answer were written; 0: not yet */
	bool answer_seen;    /* whether its answer shows a root was looked at */
	uint64_t head_seq;   /* its head was complete; 0: not yet */
	uint64_t end_seq;    /* its answer was */
	uint64_t quit_seq;   /* when it was no longer pending, its root not known; 0: not so */
	uint64_t behind_seq; /* the head of the next one was, before it had ended; 0: no such */
	struct node *early;  /* of ROOT_EARLY; counted reference */
	struct node *task;   /* answered in its connection's own task; counted reference */
	bool known;          /* ids are set */
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES], flags;
};

/* Who is the parent: filled when decided. */
struct link_parent {
	bool exists;
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES], flags;
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
	bool decided;
	bool torn;    /* events were lost */
	bool exact;   /* a custom span whose end will be seen: what is in it waits for that */
	bool over;    /* a custom span that has ended */
	bool dropped; /* a custom span that won't be */
	uint32_t open_within;
	uint64_t last_within_ns;
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES];
	struct link_parent parent;
	struct request *of; /* decided: the request it belongs to, counted; NULL: none */
};

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
};

/* link.c */
struct request *link_request_get(struct request *r);
/* The puts take NULL. */
void link_request_put(struct request *r);
struct call *link_call_get(struct call *c);
void link_call_put(struct call *c);
void link_call_free(struct call *c);                              /* off its lists, and put */
struct process *link_process(struct linker *l, uint32_t pid);     /* NULL: not known */
struct process *link_process_get(struct linker *l, uint32_t pid); /* made; NULL: no memory */

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
