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
};

enum {
	IO_RECORD_SEND = 1, /* else a receive */
	IO_RECORD_NONBLOCK = 2,
	IO_RECORD_SAME_CALL = 4, /* a further piece of the same system call */
	IO_RECORD_LOST = 8, /* `result` bytes of earlier transfers whose records found no room */
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
};
RECORD_SIZE_IS(io_record, 56);

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
	u8 local[16];
	u8 peer[16];
	u8 path[108];
	u32 losses;
	u32 turn;         /* of tid, as in io_record */
	u32 connect_turn; /* of the thread that connected, when it did; 0: not known */
};
RECORD_SIZE_IS(conn_record, 200);

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

/* Set by the agent before loading. */
struct probe_constants {
	u32 capture_bytes; /* of one transfer, while a message is young */
	u32 run_bytes; /* captured per run of transfers in one direction, then only tail_bytes of
			  each */
	u32 tail_bytes;
	u32 syscall_exits; /* the syscall collector is on, and exit_connect with it */
	u64 wake_bytes;    /* the agent is woken when this much waits */
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
	s32 error; /* negative errno */
	u32 zero;
};
RECORD_SIZE_IS(route_failure, 16);

enum { UNROUTABLE_MAX = 256 };

/* sk_err that no kernel has: the attempt failed, why isn't known. */
enum { ERRNO_UNKNOWN = 4095 };

enum { IGNORE_SLOTS = 16384, TRACED_MAX_DEFAULT = 4096, TRACED_HINTS = 1 << 16 };

#endif
