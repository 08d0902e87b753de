/*
 * What the files behind link.h share: link.c keeps the books (processes, requests, calls),
 * link_thread.c the threads, link_judge.c decides. Processes and requests are counted: a request
 * lives until it has ended and nothing names it, a process until it is gone and has neither
 * requests nor calls. A finished call owns its span while it waits.
 */
#ifndef TRACE_LINK_INTERNAL_H
#define TRACE_LINK_INTERNAL_H

#include "trace/link.h"

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
};

struct thread {
	uint32_t tid, pid;
	uint32_t open; /* requests it read from blocking sockets and that have not ended */
	struct request *handling; /* one of them */
	struct request
		*born_in; /* the request in which it was made; counted reference, NULL: none */
	bool independent; /* makes calls while no request is open, and reads none */
};

struct request {
	struct list node;        /* of its process, while open */
	struct list calls;       /* finished ones that wait for it */
	struct process *process; /* counted reference */
	uint32_t tid;
	uint32_t refs; /* the exchange, calls that name it, threads born in it */
	bool blocking, ended, answered;
	bool head_read; /* before that nobody handles it */
	uint64_t began_ns, ended_ns;
	struct link_point active; /* the last event on its connection, or of a call of its own */
	uint64_t opened_conn;     /* the connection that it opened last; 0: none */
	bool overlapped;          /* another request of the process was open meanwhile */
	bool shared;              /* another request of its own thread was */
	bool lost;                /* events went missing while it was open */
	bool known;               /* ids are set */
	uint8_t trace_id[TRACE_ID_BYTES], span_id[SPAN_ID_BYTES], flags;
};

struct call {
	struct list node; /* of the linker, once it waits: by the time it ended */
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
};

struct linker {
	struct linker_ops ops;
	struct stats *stats;
	struct hash processes, threads;
	struct list waiting;     /* finished calls, in the order they ended */
	uint64_t doubt_until_ns; /* events were lost: requests may be open that were not seen */
};

/* link.c */
void link_request_put(struct request *r);
void link_call_free(struct call *c);

/* link_thread.c */
/* Made when new. NULL when out of memory (counted). */
struct thread *link_thread_get(struct linker *l, uint32_t pid, uint32_t tid);
/* The process is gone: its threads end with it, which joins none of them. */
void link_threads_end(struct linker *l, uint32_t pid, uint64_t now_ns);
void link_threads_free(struct linker *l);

/* link_judge.c */
/* Does what happens at `at` follow from the last event of `r`? */
bool link_follows(const struct request *r, const struct link_point *at);
/* Sets the candidate of a call that begins, or why there is none. */
void link_choose(struct linker *l, struct thread *t, struct call *c, const struct link_point *at);
/* Hands the span on when it is decided; true when the call is done with. `last`: no more waiting.
 */
bool link_decide(struct linker *l, struct call *c, uint64_t now_ns, bool last);

#endif
