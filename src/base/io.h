/*
 * What a traced process did with a socket, as every layer above the ring buffer sees it. probe/
 * makes these from the kernel's records, tools/replay and the tests from text; trace/ consumes
 * them. All times are CLOCK_MONOTONIC nanoseconds. Nothing here is owned: the data is borrowed for
 * the call.
 */
#ifndef BASE_IO_H
#define BASE_IO_H

#include <stdbool.h>
#include <stdint.h>

enum io_dir { IO_RECV, IO_SEND };

enum io_flag {
	IO_NONBLOCK = 1 << 0,  /* the socket does not block in this call */
	IO_SAME_CALL = 1 << 1, /* a further piece of the same system call as the event before it on
				  this connection */
	IO_LOST = 1 << 2,      /* no transfer: so many bytes went by whose records were lost */
	IO_RUNTIME = 1 << 3, /* the process's runtime was asked: context 0 means that it has none */
};

/*
 * What the runtime of the process (an interpreter) says of a moment. Addresses are of the process
 * and are identities, nothing else; 0 is none.
 */
enum { RUNTIME_SPANS_MAX = 4 };

/* A function on the stack that is a custom span. */
struct runtime_span {
	uint64_t frame; /* the same while the function runs */
	uint64_t args;  /* differs from that of another call, mostly */
	uint64_t code;  /* 0: not known */
	uint32_t rule;  /* index into tracer_options.span_rules */
};

/* Whom the running code serves, as the application itself was told. */
struct runtime_client {
	bool known;
	bool v6;             /* else IPv4, in the first four bytes; v4-mapped IPv6 comes as IPv4 */
	uint8_t address[16]; /* network order */
	uint16_t port;
};

struct runtime_site {
	uint64_t work;   /* the executor item that the thread runs */
	uint64_t caller; /* the code of the application's innermost frame */
	bool pooled;     /* the thread belongs to a pool: who made it says nothing */
	bool cut;        /* the stack was not seen to its end */
	bool nobody;     /* a caller was looked for: no function of the application's is there */
	uint32_t span_count;
	struct runtime_span spans[RUNTIME_SPANS_MAX]; /* innermost first */
	struct runtime_client client;
};

struct runtime_route {
	uint64_t scope, route, route_context, endpoint, router;
	const char *root_path; /* not ended */
	uint32_t root_path_len;
};

enum context_event_kind {
	CONTEXT_EVENT_COPIED,
	CONTEXT_EVENT_SUBMITTED,
	CONTEXT_EVENT_BORN,
	CONTEXT_EVENT_UNKNOWN,
};

/* Work was handed on: a context copied, an item given to an executor, a thread made. Or a context
 * may have been made of which nothing is known. */
struct context_event {
	enum context_event_kind kind;
	uint64_t ts_ns;
	uint32_t pid, tid;
	uint64_t context; /* current in the thread; 0: none */
	uint64_t object;  /* COPIED, UNKNOWN: the new context; SUBMITTED: the item; BORN: the new
			     thread */
	uint32_t turn;
	const struct runtime_site *site; /* NULL: nothing is known of the frames */
	uint64_t root_of; /* COPIED: the kernel side takes it for the root of the request that was
			     read last on this connection; 0: it doesn't */
	bool bound; /* and binds to it what is done there; else it would if it had been told of
		       `context` (tracer_ops.handlers) */
};

/* A native function that is a custom span was entered or left. */
struct native_span_event {
	uint64_t ts_ns;
	uint32_t pid, tid;
	uint32_t rule;
	bool left;
	uint64_t context;
	uint64_t stack; /* the same at the entry and the exit of one call */
	uint32_t turn;
};

enum request_flag {
	REQUEST_EVENT_SERVER = 1 << 0,  /* received, else a call */
	REQUEST_EVENT_SAMPLED = 1 << 1, /* with FIXED: the decision */
	REQUEST_EVENT_REMOTE = 1 << 2,  /* received: its parent came with it */
	REQUEST_EVENT_JOINED = 1 << 3,  /* received: parent_span_id is the call at the other end */
	REQUEST_EVENT_BOUND = 1 << 4,   /* a call: parent_span_id is the request that it is taken to
					   be   made for */
	REQUEST_EVENT_FIXED = 1 << 5,   /* trace_id is known to others: it stays as it is */
	REQUEST_EVENT_INJECTED = 1 << 6, /* a call: others were told span_id */
	REQUEST_EVENT_OWN = 1 << 7,      /* a call: its maker wrote a traceparent himself */
};

/* The kernel side recognised that a request begins (struct request_record): comes before the
 * transfer that completes its head (received) or begins it (sent). */
struct request_event {
	uint64_t ts_ns; /* of a call: before its first byte was sent */
	uint64_t conn_id;
	uint32_t pid, tid;
	uint32_t flags; /* enum request_flag */
	uint32_t added; /* bytes put into the stream behind the request line */
	uint32_t tcp_seq, tcp_peer_seq;
	uint8_t trace_flags;
	uint8_t trace_id[16], span_id[8];
	uint8_t parent_span_id[8]; /* zero: none */
};

/* One piece of a transfer, a refused one (error), or the peer's end of stream (a receive with
 * length 0). */
struct io_event {
	uint64_t ts_ns;   /* when the system call had done it */
	uint64_t conn_id; /* unique for the life of the agent */
	uint32_t pid;     /* thread group */
	uint32_t tid;
	enum io_dir dir;
	uint32_t flags;    /* enum io_flag */
	int32_t error;     /* negative errno of a failed transfer (never EAGAIN or EINTR), else 0 */
	uint32_t length;   /* bytes transferred */
	uint32_t captured; /* of these, the first that are at `data`; the rest is known by length
			      only */
	const uint8_t *data;
	uint32_t tcp_seq;      /* TCP: own sequence number of the first byte (send: write_seq, recv:
				  copied_seq) */
	uint32_t tcp_peer_seq; /* TCP: the other direction's counter at that moment */
	uint32_t turn;         /* changes when the thread sleeps of its own will; 0: not known */
	uint64_t context;      /* the runtime's, in which the bytes were written or read; 0: none */
	const struct runtime_site *site;   /* NULL: nothing is known of the frames */
	const struct runtime_route *route; /* of an answer; NULL: not known */
};

enum conn_family { CONN_INET, CONN_INET6, CONN_UNIX };

enum conn_flag {
	CONN_FRESH = 1 << 0,   /* nothing had been transferred before the first event */
	CONN_ACTIVE = 1 << 1,  /* this side connected */
	CONN_PASSIVE = 1 << 2, /* this side accepted; neither flag: not known */
};

enum { CONN_PATH_BYTES = 108 };

struct conn_info {
	uint64_t ts_ns;
	uint64_t conn_id;
	uint32_t pid;
	uint32_t tid;
	uint32_t flags; /* enum conn_flag */
	enum conn_family family;
	uint8_t local[16], peer[16]; /* network order; IPv4 in the first four; v4-mapped IPv6 comes
					as CONN_INET */
	uint16_t local_port, peer_port;
	uint32_t turn;                /* of tid, as in struct io_event */
	uint32_t connect_turn;        /* the same thread's when it connected; 0: not known */
	uint64_t connect_context;     /* the runtime's, then; 0: none */
	uint64_t socket, peer_socket; /* unix: names of the two ends, the other way round at the
					 other end; 0: not known */
	char path[CONN_PATH_BYTES]; /* unix: the listener's address, "@name" when abstract, "" when
				       it has none */
};

/* A connection attempt of a traced process that failed. */
struct connect_failure {
	struct conn_info conn; /* ts_ns: when the attempt began; conn_id unused */
	uint64_t end_ns;
	int32_t error; /* negative errno; -ECANCELED: closed by the process itself before an answer
			  came */
};

#endif
