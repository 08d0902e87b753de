/*
 * What the BPF programs write and the agent reads: the records of the ring buffer, the constants
 * the agent sets before loading, and the few words both sides share while running. Fixed-width
 * fields, no holes, no pointers. src/probe/ring.c is the only reader.
 */
#ifndef SPANLOOM_EVENT_H
#define SPANLOOM_EVENT_H

#ifdef __BPF__
#include "kernel_types.bpf.h"
#else
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
#endif

#define RECORD_SIZE_IS(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)

enum {
	RECORD_IO = 1,
	RECORD_CONN_OPEN,
	RECORD_CONN_CLOSE,
	RECORD_CONNECT_FAILED,
	RECORD_THREAD_START,
	RECORD_THREAD_EXIT,
	RECORD_PROCESS_FORK, /* a traced process made a child, which is traced too */
	RECORD_PROCESS_EXEC, /* any process of the machine */
	RECORD_PROCESS_EXIT,
	RECORD_PROCESS_CGROUP, /* any process moved to another cgroup */
	RECORD_LISTEN,         /* any process listens on a TCP port */
	RECORD_SITE,           /* what the next record of this thread was made from */
	RECORD_ROUTE,          /* the same, of an answer: which route gives it */
	RECORD_CONTEXT,        /* contexts are handed on */
	RECORD_NATIVE_SPAN,    /* a native function that is a custom span is entered or left */
	RECORD_REQUEST,        /* a request begins on a connection: its ids */
	RECORD_RELEASE,        /* a socket should leave the table of those that are injected into */
};

enum {
	IO_RECORD_SEND = 1, /* else a receive */
	IO_RECORD_NONBLOCK = 2,
	IO_RECORD_SAME_CALL = 4, /* a further piece of the same system call */
	IO_RECORD_LOST = 8, /* `result` bytes of earlier transfers whose records found no room */
	IO_RECORD_RUNTIME = 16, /* the process's runtime was asked for its context */
	IO_RECORD_LATE = 32,    /* the bytes were written before, in `context`: their site and route
				   were reported for the connection */
};

/* The payload sizes a record can be reserved with; a longer capture becomes several records. */
#define IO_CLASS_0 64
#define IO_CLASS_1 256
#define IO_CLASS_2 1024
#define IO_CLASS_3 4096

/* One piece of a transfer; `captured` bytes follow. */
struct io_record {
	u8 type;
	u8 flags;
	u16 captured;
	s32 result; /* bytes, or a negative errno */
	u64 ts_ns;
	u64 conn_id;
	u32 pid;
	u32 tid;
	u32 tcp_seq;
	u32 tcp_peer_seq;
	u32 losses; /* how often the ring had been full before: any change means that records are
		       missing */
	u32 syscall;
	u32 turn; /* how often the thread had slept of its own will */
	u32 pad;
	u64 context; /* the runtime's current one, in which the bytes were written; 0: none */
};
RECORD_SIZE_IS(io_record, 64);

enum { CONN_RECORD_FRESH = 1, CONN_RECORD_ACTIVE = 2, CONN_RECORD_PASSIVE = 4 };

/* RECORD_CONN_OPEN and RECORD_CONNECT_FAILED. */
struct conn_record {
	u8 type;
	u8 flags;
	u16 family; /* AF_* */
	s32 error;
	u64 ts_ns;
	u64 end_ns; /* of a failed attempt */
	u64 conn_id;
	u32 pid;
	u32 tid;
	u16 local_port; /* host order */
	u16 peer_port;
	u32 path_len; /* AF_UNIX: bytes at path, which begins with NUL when abstract */
	u8 local[16]; /* AF_UNIX: in the first eight bytes the address of the socket, and in peer of
			 the other end's */
	u8 peer[16];
	u8 path[108];
	u32 losses;
	u32 turn;            /* of tid, as in io_record */
	u32 connect_turn;    /* of the thread that connected, when it did; 0: not known */
	u64 connect_context; /* the runtime's, then; 0: none */
};
RECORD_SIZE_IS(conn_record, 208);

/* Everything else. */
struct task_record {
	u8 type;
	u8 zero[3];
	u32 losses;
	u64 ts_ns;
	u64 conn_id; /* RECORD_CONN_CLOSE */
	u32 pid;
	u32 tid;
	u32 parent; /* THREAD_START: thread; PROCESS_FORK: process; LISTEN: port */
	u32 pad;
};
RECORD_SIZE_IS(task_record, 40);

enum { TRACE_CONTEXT_ID_BYTES = 16, TRACE_CONTEXT_SPAN_BYTES = 8 };

enum {
	REQUEST_SERVER = 1,  /* it was received, else a call: it is or will be sent */
	REQUEST_SAMPLED = 2, /* the decision for the trace, known when REQUEST_FIXED is */
	REQUEST_REMOTE = 4,  /* received: trace_id and parent_span_id came with it (traceparent, TCP
				option) */
	REQUEST_JOINED = 8,  /* received: parent_span_id is the call at the other end, of a traced
				process of this host */
	REQUEST_BOUND = 16,  /* a call: parent_span_id is the request that the kernel side takes it
				to be made for; user space checks that */
	REQUEST_FIXED = 32,  /* trace_id is known to others and can't change any more */
	REQUEST_INJECTED = 64, /* a call: the header or the option that names span_id goes out */
	REQUEST_OWN = 128, /* a call: it has a traceparent of its maker's, so nothing is injected;
			      the ids here are our span's */
};

/*
 * A request begins: stands before the RECORD_IO of the transfer that completes its head (received)
 * or begins it (sent), with other records in between at most. Left out where the kernel side
 * recognises no HTTP/1 request or can't tell where one begins (pipelining): then user space makes
 * the ids. Of a request that is not sampled nothing is reported at all, this record neither.
 */
struct request_record {
	u8 type;
	u8 flags;       /* REQUEST_* */
	u8 trace_flags; /* W3C, bit 0 as decided */
	u8 added;       /* bytes that were put into the stream behind the request line */
	u32 losses;
	u64 ts_ns; /* of a call: before its first byte was queued */
	u64 conn_id;
	u32 pid;
	u32 tid;
	u32 tcp_seq;      /* of the request's first byte, as in io_record; 0: no TCP */
	u32 tcp_peer_seq; /* the other direction's counter then */
	u8 trace_id[TRACE_CONTEXT_ID_BYTES];
	u8 span_id[TRACE_CONTEXT_SPAN_BYTES];
	u8 parent_span_id[TRACE_CONTEXT_SPAN_BYTES]; /* zero: none */
};
RECORD_SIZE_IS(request_record, 72);

/*
 * A runtime's frames at a moment. A site or route without a connection stands before the record of
 * the same thread that it tells more of (nothing but the other one of the two is in between); with
 * one it belongs to the next IO_RECORD_LATE of that connection. Left out where nothing was found,
 * but for a site while custom spans or callers are looked for: it tells that none is on the stack.
 */
enum { SITE_SPANS_MAX = 4, SITE_UNKNOWN_MAX = 8, ROOT_PATH_MAX = 96, CLIENT_HOST_MAX = 40 };
/* Words at the end that mean nothing: the kernel side reads frames there, because memory of the
 * ring, unlike its stack, can be read at any place in all kernels. */
enum { SITE_SCRATCH = 16 };
enum {
	SITE_POOLED = 1,  /* the thread belongs to a pool */
	SITE_CUT = 2,     /* the stack was longer than FRAMES_MAX or could not be read to its end */
	SITE_NOBODY = 4,  /* a caller was looked for, and no frame was the application's */
	SITE_INSIDE = 8,  /* the kernel side's own note */
	SITE_LOOPED = 16, /* the same */
};

/* A custom span's function on the stack. */
struct site_span {
	u64 frame; /* its address, stable while the function runs */
	u64 args;  /* a mix of its first arguments: tells calls apart that reuse a frame's address;
		      0: not known */
	u64 code;
	u32 rule;
	u32 zero;
};

struct site_record {
	u8 type;
	u8 flags;
	u8 span_count, unknown_count;
	u32 losses;
	u64 ts_ns;
	u32 pid;
	u32 tid;
	u64 conn_id; /* not 0: the bytes are sent later */
	u64 work;    /* the executor item that the thread runs; 0: none */
	u64 caller;  /* code object of the application's innermost frame; 0: none met */
	struct site_span spans[SITE_SPANS_MAX]; /* innermost first */
	u64 unknown[SITE_UNKNOWN_MAX];          /* code objects that nobody has classified */
	u64 scope; /* an ASGI scope, where python_layout.key_client asks for it; 0: none met */
	u8 client[CLIENT_HOST_MAX];              /* its client, as text: host */
	u8 client_port[8];                       /* and port */
	u8 client_len, client_port_len, zero[6]; /* lengths; 0: it has none */
	u64 scratch[SITE_SCRATCH];
};
RECORD_SIZE_IS(site_record, 432);

struct route_record {
	u8 type;
	u8 unknown_count;
	u16 root_path_len;
	u32 losses;
	u64 ts_ns;
	u32 pid;
	u32 tid;
	u64 conn_id;                        /* not 0: the answer is sent later */
	u64 scope;                          /* the ASGI scope (a dict); 0: not found */
	u64 answerer;                       /* first local of the frame that answers */
	u64 route, route_context, endpoint; /* objects; 0: the scope has none */
	u64 router;                         /* the outermost one, under which all routes are */
	u8 root_path[ROOT_PATH_MAX];
	u64 unknown[SITE_UNKNOWN_MAX];
	u64 scratch[SITE_SCRATCH];
};
RECORD_SIZE_IS(route_record, 368);

enum {
	CONTEXT_COPIED = 1, /* object: the new context, a copy of `context` */
	CONTEXT_SUBMITTED,  /* object: an item for an executor */
	CONTEXT_BORN,       /* object: the number of a new thread */
	CONTEXT_UNKNOWN,    /* object: perhaps a new context; whose it was before doesn't count */
};

struct context_record {
	u8 type;
	u8 what; /* CONTEXT_* */
	u16 zero;
	u32 losses;
	u64 ts_ns;
	u64 context; /* current in this thread; 0: none */
	u64 object;
	u32 pid;
	u32 tid;
	u32 turn;
	u32 bound;   /* with root_of: what is done in it is bound to that request; 0: it may be,
			user space has to know more (HANDLERS_MAX) */
	u64 root_of; /* CONTEXT_COPIED: the kernel side takes the new context for the root of the
			request that is being read on this connection; 0: it doesn't */
};
RECORD_SIZE_IS(context_record, 56);

struct native_span_record {
	u8 type;
	u8 left; /* else entered */
	u16 zero;
	u32 losses;
	u64 ts_ns;
	u64 context;
	u64 stack; /* stack pointer, the same at entry and exit of one call */
	u32 pid;
	u32 tid;
	u32 rule;
	u32 turn;
};
RECORD_SIZE_IS(native_span_record, 48);

/* Set by the agent before loading. */
struct probe_constants {
	u32 capture_bytes; /* of one transfer, while a message is young */
	u32 run_bytes; /* captured per run of transfers in one direction, then only tail_bytes of
			  each */
	u32 tail_bytes;
	u32 syscall_exits; /* the syscall collector is on, and exit_connect with it */
	u64 wake_bytes;    /* the agent is woken when this much waits */
	u64 sample_below;  /* SAMPLE_RATIO: a trace is kept when its id's last eight bytes, big
			      endian, are below this */
	u32 root_limit;    /* new traces of a service per second; 0: no limit */
	u8 sample;         /* enum sample_root */
	u8 parent_based;   /* the flag of a parent decides */
	u8 requests;       /* the kernel side recognises requests (needs bpf_loop, 5.17) */
	u8 mute;           /* what is not sampled is not reported */
	u8 inject;         /* headers are put into calls */
	u8 tcp_option;     /* the TCP option is sent and read */
	u8 calls_early;    /* TCP: a call has its ids before its bytes leave, whatever its socket */
	u8 zero;
};

enum sample_root { SAMPLE_ALL, SAMPLE_NONE, SAMPLE_RATIO };

/*
 * Values of the traced map: flags, and in the upper half the number of the service (for
 * root_limit; a child has its parent's until the agent knows better).
 */
enum {
	TRACED = 1,
	TRACED_PYTHON = 2,   /* its contexts and frames are read */
	TRACED_CONTEXTS = 4, /* user space has proven that the kernel side finds the roots of its
				requests: what is bound by contexts may be relied upon */
	TRACED_THREADS = 8,  /* the same of the threads that read requests from blocking sockets */
	TRACED_SERVES = 16,  /* set by the kernel side: it has received a request */
	TRACED_INJECT = 32,  /* headers may be put into its calls */
	TRACED_SILENT = 64,  /* nothing of it is wanted: it reports its own spans. Its connections
				are neither reported nor injected into nor joined */
	TRACED_APART = 128,  /* it may be reporting its own spans, nobody knows yet: its calls are
				neither injected into nor joined, and nothing of it is muted, so
				that the agent sees its exports */
	TRACED_RINGS = 256,  /* if it has an io_uring, that is for other things than its sockets */
	TRACED_SERVICE_SHIFT = 16,
};

/* A connection attempt for which no route was found, and what the lookup said. */
struct route_key {
	u32 pid;
	u32 tid;
	u16 family; /* AF_* */
	u16 port;   /* host order */
	u8 address[16];
	u32 zero;
};
RECORD_SIZE_IS(route_key, 32);

struct route_failure {
	u64 ts_ns;
	u64 context; /* the runtime's, then; 0: none */
	s32 error;   /* negative errno */
	u32 zero;
};
RECORD_SIZE_IS(route_failure, 24);

enum { UNROUTABLE_MAX = 256 };

/* sk_err that no kernel has: the attempt failed, why isn't known. */
enum { ERRNO_UNKNOWN = 4095 };

enum { IGNORE_SLOTS = 16384, TRACED_MAX_DEFAULT = 4096, TRACED_HINTS = 1 << 16 };

#endif
