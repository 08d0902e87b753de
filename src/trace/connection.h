/*
 * One socket of a traced process: who it talks to, which protocol it speaks and in which role, the
 * bytes of both directions, and the exchanges (a request and its answer) in flight on it, oldest
 * first. Protocols see a connection through this header; only connection.c and match.c change its
 * bookkeeping.
 */
#ifndef TRACE_CONNECTION_H
#define TRACE_CONNECTION_H

#include "base/io.h"
#include "base/list.h"
#include "base/stats.h"
#include "trace/protocol.h"
#include "trace/span.h"
#include "trace/stream.h"

struct tracer;
struct request;
struct call;
struct join_conn;

enum conn_role { ROLE_UNKNOWN, ROLE_CLIENT, ROLE_SERVER };

/* A request and the answer that belongs to it. Owned by its connection until it is ended or
 * dropped. */
struct exchange {
	struct list node;
	struct connection *conn;
	struct span *span;      /* owned; start_ns is set, the rest is the protocol's */
	uint32_t pid, tid;      /* who read or sent the request's first byte */
	uint32_t turn;          /* of that thread, as in struct io_event */
	bool nonblocking;       /* that call did not block */
	uint64_t chunk;         /* stream.chunk of that I/O event */
	uint64_t response_ns;   /* the last answer byte seen so far; 0: none */
	uint64_t scratch[4];    /* the protocol's own, zeroed */
	uint64_t number;        /* counts the exchanges of its connection */
	bool has_seq;           /* TCP: */
	uint32_t seq, peer_seq; /* of its first byte, as in struct io_event */
	bool first;             /* nothing was seen of its connection before */
	bool identified;        /* the kernel side gave its ids */
	bool named;             /* a call: others were told the id of its span */
	bool head_read;
	bool exports;            /* it brings spans of its process to a collector */
	bool has_code;           /* code.* of what answers */
	char *route;             /* the template that it matched, owned; NULL: not known, or none */
	struct request *request; /* link.c: the open request (server) */
	struct call *call;       /* link.c: the call in flight (client) */
};

struct connection {
	struct tracer *tracer;
	struct conn_info info;
	const struct protocol *protocol; /* NULL: not known yet */
	void *state;                     /* of the protocol */
	enum conn_role role;
	struct stream streams[2]; /* by enum io_dir */
	bool lost;                /* waiting for a new message */
	bool ignored;             /* nothing of interest; the kernel was told */
	uint32_t undetected_events;
	struct list exchanges; /* oldest first */
	uint32_t exchange_count;
	uint64_t last_number;
	uint64_t answer_number; /* of the first exchange when the transfer began that is fed */
	const struct io_event *event; /* the event being fed, NULL outside */
	uint64_t moved[2];            /* bytes, by enum io_dir, before it */
	size_t rest; /* bytes from where a step is to the end of what was captured of it */
	bool has_next;
	struct request_event next; /* ids for a request that has not begun */
	uint64_t next_bytes;       /* of its direction, since they came */
	struct join_conn *join;    /* owned */
	uint64_t last_event_ns;
	struct list node; /* tracer: by last use */
};

/* Requests travel client → server. */
static inline enum io_dir connection_request_dir(const struct connection *c)
{
	return c->role == ROLE_SERVER ? IO_RECV : IO_SEND;
}

static inline struct stream *connection_stream(struct connection *c, enum io_dir dir)
{
	return &c->streams[dir];
}

/*
 * A request begins in the event being fed. The exchange has a SERVER or CLIENT span by the
 * connection's role, its start time and its resource. NULL when out of memory (counted).
 */
struct exchange *exchange_begin(struct connection *c);
/* `ex` begins, `before` (NULL: none) was the last one: for protocols whose calls each go out with a
 * send of their own, so that two with one send may have been made by two. */
void exchange_crowded(const struct exchange *before, const struct exchange *ex);
/* The oldest exchange in flight, NULL when none. */
struct exchange *exchange_first(struct connection *c);
/* The one that began last, NULL when none. */
struct exchange *exchange_last(struct connection *c);
/* The answer is complete (or will never be): the span is finished, linked and handed on. Frees the
 * exchange. */
void exchange_end(struct exchange *ex, uint64_t end_ns);
/* It was no request, or nothing is known of its end: no span, unless others were told of it; then
 * it is a span with spanloom.answer=lost, up to the last answer byte that was seen. Counted by the
 * caller. */
void exchange_drop(struct exchange *ex);
/* What begins the request is known whole, so it may be handled: calls before that are not its own.
 */
void exchange_head_read(struct exchange *ex);
/* The final answer to the first exchange has begun in the event being fed, with this status (not
 * 0). */
void exchange_answered(struct exchange *ex, int status);
/* Method and target as they are in the request, whole. */
void exchange_set_target(struct exchange *ex, struct slice method, struct slice target);
/* The traceparent and tracestate of the request; a malformed traceparent is ignored, as W3C says.
 */
void exchange_set_context(struct exchange *ex, struct slice traceparent, struct slice tracestate);

/* Time of the event being fed. */
static inline uint64_t connection_now(const struct connection *c)
{
	return c->event ? c->event->ts_ns : c->last_event_ns;
}

/* The process sends spans of its own to a collector, in the event being fed. */
void connection_exports(struct connection *c);
/* The same, by a client's exchange; it is of no interest itself. Not so when the process passes on
 * what it was sent. */
void exchange_exports(struct exchange *ex);

void connection_count_drop(struct connection *c, enum drop_reason reason);

#endif
