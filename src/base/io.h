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
	uint32_t turn;              /* of tid, as in struct io_event */
	uint32_t connect_turn;      /* the same thread's when it connected; 0: not known */
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
