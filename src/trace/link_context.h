/*
 * Links by the contexts of a runtime (Python's contextvars): which context was copied from which,
 * which request each belongs to, and what follows for a call. The files behind it: link_node.c
 * keeps the nodes, link_origin.c makes them, link_claim.c gives them to requests, link_decide.c
 * decides calls.
 *
 * The runtime copies the current context whenever it begins something that runs by itself, so all
 * that a request does is done in copies of copies of one context, its root, or in the root itself.
 * The kernel side reports every copy; `seq` orders all that happened. What is certain, and why:
 *
 * 1. The answer. Whoever writes the first bytes of an answer works for that request. Its context's
 *    furthest ancestor that was made after the request could have begun (its head complete, the
 *    answer before it on that connection over) is the root: it did not exist before, and it led to
 *    the answer. If another request has a claim on the way, neither is certain: torn.
 * 2. The connection's own task. If the context of the answer is older than the request, it serves
 *    the connection for longer (Sanic: one task each). What happens in it, and copies made
 *    of it, between those two moments are the request's. A context that answers on two live
 *    connections is a worker: from then on the rule is off for the process. It is a weaker claim:
 *    it counts once no other request that was pending then is left, and each of them has found a
 *    root elsewhere. The task may still work for the request before, behind its answer, when the
 *    next head comes. So what comes before the next answer counts only for the first request of a
 *    connection, or while tasks are known to rest between requests: one has let LINK_PAUSE_NS pass,
 *    and none has made a call there.
 * 3. The reader. Where bytes are read in a context of the connection's own (asyncio), the first
 *    copy of it after the head was complete is the request's. The answer confirms that; where it
 *    disagrees, the request is torn and the rule is off for the process. A request without an
 *    answer (the peer went away) counts only once the process has had a confirmation.
 * 4. The thread. Copies made, items submitted and threads made in no context by a thread that
 *    handles one blocking request are as much its own as the thread's calls (link.h).
 * 5. Executors. An item belongs to what submitted it; the worker's frames name the item it runs.
 * 6. New threads. A thread belongs to what made it, if it isn't a pool's and is gone soon after the
 *    call: threads that stay work for others later.
 * 7. The client. Where threads that are not the runtime's read and answer (granian), the contexts
 * of neither say anything. But the frames of what works for a request name the peer of its
 *    connection, by address and port as the server itself wrote them into the ASGI scope. A peer
 * has one connection, which has one request at a time; so what names it and was made since the head
 *    of the only request in flight there was complete, and before its end, is that request's, up to
 *    the furthest such ancestor. Nothing is given where requests were pipelined, where two open
 *    connections have the same peer, and to what comes from a context that may have served an
 *    earlier request of the connection: such a context is torn, as are one that names two
 *    connections and a request that two contexts claim.
 *
 * A context that answers on several connections may be a worker, or the one in which a loop handles
 * what it has read: there a server answers what it refuses. Such an answer shows nothing, and a
 * copy may still become the root of the request that it answers.
 *
 * A request may be begun in the work for the one before it on its connection, which is over for its
 * client but not for the server. What is copied from there once the next one may be there is
 * nobody's until the answer to that one proves it for a root, or shows that its root was made
 * elsewhere (may_be_next).
 *
 * The kernel side needs roots before an answer proves them, for headers and for what isn't sampled.
 * It takes the first copy that a thread makes after it has read a head, and says so (root_of of a
 * context_event); that is no rule here, but compared with these, request by request (link_trust.h).
 *
 * A call waits until its lineage is decided: while a request is pending whose head was complete
 * before the call, or before the context of the call was made: the other one may turn out to be
 * what made it. (That is rare, and a request may be pending for long: the wait is LINK_WAIT_NS,
 * until an answer has shown that here requests answer for others.) Behind the end of its own
 * request also: the task that made it may be about to answer the next one. Copies made between the
 * head of a pipelined request and the end of the one before it can't be told apart, unless the
 * second's root turns out to be younger: they count for the first until its end, then for none.
 */
#ifndef TRACE_LINK_CONTEXT_H
#define TRACE_LINK_CONTEXT_H

#include "trace/link_internal.h"
#include "trace/tracer.h"

enum {
	CONTEXTS_MAX = 65536, /* of a process; the oldest are forgotten */
	ITEMS_MAX = 16384,    /* of a process's executors; the oldest are forgotten */
	CALLS_MAX = 16384,    /* of a process that wait; the oldest get no parent */
	CHAIN_STEP = 64,  /* a chain is looked at for what can be left out every so many copies */
	CHAIN_MAX = 4096, /* ancestors that are looked at */
};

/* Who made a context, an item or a thread, where it isn't a code object of the application. */
enum {
	MAKER_UNKNOWN = 0,
	MAKER_ABOVE = 1, /* no function of the application's was on the stack: see the parent */
};

enum claim {
	CLAIM_NONE,
	CLAIM_ROOT,   /* rules 1 and 3 */
	CLAIM_WEAK,   /* rule 2: a copy of the connection's own task */
	CLAIM_THREAD, /* rule 4 */
	CLAIM_TORN,   /* of two requests */
};

struct node {
	struct list birth; /* of contexts.nodes, oldest first */
	struct list children, siblings;
	struct node *parent; /* counted reference; NULL: none, or none that matters */
	uint32_t refs;       /* the table, children, calls, items, births, requests */
	uint64_t address;    /* 0: not in the table (any more) */
	uint64_t seq;        /* when it was made; 0: before all that we know */
	uint64_t number;     /* never used again */
	uint32_t depth;      /* of copies of copies */
	enum claim claim;
	bool forgotten;          /* nothing that it once meant counts */
	struct request *request; /* of the claim; counted reference */
	/* rule 6: a thread that was made, and when it ended (0: not yet) */
	uint32_t born_tid;
	uint64_t gone_ns;
	/* rule 3 */
	uint64_t reads_conn; /* the connection whose bytes were read in it */
	bool reads_many;
	struct request *reading; /* the first copy will be its root; counted reference */
	/* rule 2 */
	struct link_conn *task_of; /* counted reference */
	bool shared;               /* it answers on several connections */
	/* link_next.c: it may be the root of this request (counted reference; NULL: it isn't known
	 * which), and the root of the one before was made out of that node (0: of none) */
	bool may_be_next;
	struct request *next;
	uint64_t next_beside;
	struct call *within; /* the custom span it was made in; counted reference */
	/* rule 7 */
	uint64_t hands_to; /* the last client that a copy of it served; 0: none */
	bool hands_out;    /* there were different ones */
	uint64_t maker;    /* the code that had it made, or MAKER_* */
	/* link_trust.c: a request of this connection was read in no context and its root was a copy
	 * of this one; one that seemed so was none */
	uint64_t roots_conn;
	bool no_handler;
};

/* A connection that is served. Counted: the table, requests, nodes. */
struct link_conn {
	uint32_t refs;
	uint32_t pid;
	uint64_t conn_id;
	bool closed;
	bool fresh;            /* it is younger than our knowledge of contexts */
	bool has_task;         /* rule 2 has found its task */
	uint64_t first_seq;    /* the first head on it was complete; 0: not yet */
	uint64_t last_end_seq; /* its last answer was complete */
	uint64_t last_end_ns;
	struct list requests; /* open, oldest first */
	/* rule 7 */
	struct runtime_client peer;
	uint8_t local[16];
	uint16_t local_port;
	bool has_twin;        /* another one has the same peer */
	struct request *last; /* the last that ended, if it was alone; counted reference */
};

struct item {
	struct list node; /* of contexts.item_list, oldest first */
	uint64_t key;
	uint64_t number;     /* never used again */
	struct node *origin; /* counted reference; NULL: nobody's that we know */
	uint64_t maker;      /* who submitted it, as in struct node */
};

struct contexts {
	bool runtime; /* else only native custom spans are known */
	uint64_t began_ns;
	struct hash table; /* address → struct node */
	struct list nodes; /* all of them, in the order they were made */
	uint32_t node_count;
	uint64_t next_number;
	struct hash items; /* address → struct item */
	struct list item_list;
	struct hash births;  /* thread → struct node, one reference each */
	struct list pending; /* requests, by head_seq */
	struct list calls;   /* not decided yet, by seq */
	uint32_t call_count;
	uint32_t last_tid; /* the last copy, to know it when it is told twice */
	uint64_t last_object, last_from;
	bool claims_ever;  /* a root has been found */
	bool answers_bare; /* an answer came from no context, to a socket that does not block */
	bool early_proven; /* rule 3 was confirmed */
	bool early_wrong;  /* rule 3 was not */
	bool workers;      /* one task answers on several connections */
	bool crossed;      /* one request's work has answered another */
	bool rests;        /* a connection's own task was without work behind an answer */
	bool tails;        /* one had work there */
	bool weak_ever;    /* rule 2 has claimed something */
	uint64_t handlers[TRACER_HANDLERS_MAX]; /* link_trust.c: contexts by address; 0: none */
};

/* link_node.c */
struct contexts *link_contexts_new(void);
/* Forgets all that is known of contexts, items and births. */
void link_contexts_clear(struct contexts *x);
/* Takes NULL. Calls must be decided before. */
void link_contexts_free(struct contexts *x);
struct node *link_node_get(struct node *n);
/* Takes NULL. */
void link_node_put(struct contexts *x, struct node *n);
/* The node of a context: an ancient one where none is known. NULL: no memory. Borrowed. */
struct node *link_node_of(struct linker *l, struct contexts *x, uint64_t address);
/* A new node below `parent` (NULL: none); address 0: of no context. NULL: no memory. Borrowed when
 * it has an address, else the caller's. */
struct node *link_node_new(struct linker *l, struct contexts *x, uint64_t address,
			   struct node *parent);
/* What was known of the context at `address`, if anything, doesn't count any more. */
void link_node_leave(struct contexts *x, uint64_t address);
void link_node_claim(struct node *n, enum claim claim, struct request *r);
/* The nearest of `n` and its ancestors that says whose it is, or that nobody knows, or a
 * connection's own task; NULL: there is none. Borrowed. Takes NULL. */
struct node *link_node_owned(struct node *n);
/* NULL: no memory. Borrowed. */
struct item *link_item_put(struct linker *l, struct contexts *x, uint64_t key, struct node *origin);

/* link_claim.c */
struct link_conn *link_conn_get(struct linker *l, uint32_t pid, uint64_t conn_id);
void link_conn_put(struct link_conn *k);
/* From which moment on the request could have begun. */
uint64_t link_since(const struct request *r);
void link_claim_begin(struct linker *l, struct request *r, const struct exchange *ex);
void link_claim_end(struct linker *l, struct request *r);
/* The request can't be found by contexts (any more). */
void link_claim_give_up(struct request *r, enum root root);
/* A copy was made of `from`; `root_of` as in struct context_event. */
void link_claim_copied(struct contexts *x, struct node *from, struct node *to, uint64_t root_of);
/* A call begins: does it show that a connection's own task works between requests? */
void link_claim_called(struct contexts *x, const struct call *c);
/* The request that is answered in the connection's own task `n` and open; NULL: none. */
struct request *link_task_request(const struct node *n);

/* Nothing can be found for the requests that are open now. */
void link_claims_lost(struct linker *l, struct process *p);

/* link_next.c */
/* Where `from` works for a request, and its copy `to` may be the root of the next one on that
 * connection, it is nobody's until that is known. */
void link_next_copied(const struct contexts *x, const struct context_event *ev, struct node *from,
		      struct node *to);
/* The root of `r` has been proven. */
void link_next_rooted(struct request *r, const struct node *root);
/* Whether `n` may still be, or have been, the root of the next request. It isn't where that one's
 * has been proven, and was made earlier, or out of the same context as that of the one before. */
bool link_next_is(const struct node *n);

/* link_serve.c */
/* A connection is new; it is over. */
void link_peer_open(struct linker *l, struct link_conn *k, const struct conn_info *info);
void link_peer_close(struct linker *l, struct link_conn *k);
void link_peer_ended(struct link_conn *k, struct request *r);

/* link_origin.c */
/* Where what a thread does in `context` comes from; counted, NULL: not known. */
struct node *link_origin_of(struct linker *l, struct process *p, uint32_t tid, uint64_t context,
			    const struct runtime_site *site);
/* The custom span that what comes from `n` was begun in; NULL: none. Borrowed. */
struct call *link_within_by_lineage(const struct node *n);
/* The application's function that had something of the request made: its code object; 0: not known.
 * `first`: who made the thing itself, where it is not `n`, else MAKER_ABOVE. A request's root was
 * made by the server: nothing is looked for there. */
uint64_t link_maker(uint64_t first, const struct node *n);
/* Who submitted the item that a thread runs in `context`, where what it does comes from `origin`;
 * MAKER_ABOVE: it runs none. */
uint64_t link_item_maker(const struct contexts *x, uint64_t context,
			 const struct runtime_site *site, const struct node *origin);
/* The process ends: its threads end with it, which joins none of them. */
void link_births_end(struct contexts *x, uint64_t now_ns);
void link_birth_gone(struct contexts *x, uint32_t tid, uint64_t now_ns);

/* link_decide.c */
/* Where the call of a process with contexts comes from. */
void link_call_origin(struct linker *l, struct call *c, const struct link_origin *o);
/* As link_decide() for such a process. */
bool link_decide_by_context(struct linker *l, struct call *c, uint64_t now_ns, bool last);
/* Looks at all calls of the process that wait. */
void link_look(struct linker *l, struct process *p, uint64_t now_ns, bool last);
/* Events were lost: nothing that waits can be decided any more, nor found for open requests. */
void link_contexts_lost(struct linker *l, struct process *p);

#endif
