/*
 * Calls and requests that are the two ends of one exchange, both seen on this host. A call's first
 * byte has the same TCP sequence number at both ends, and the other direction's counter is the same
 * too when nothing was left unread: both together are found nowhere else. Once one pair of ends
 * matched, their connections belong together, and the number alone tells (pipelined requests, whose
 * counters differ). Unix sockets name their two ends to each other; there exchanges are counted,
 * from the first bytes that were seen of both ends or from a moment when nothing is in flight, and
 * lost bytes end that; method and target have to be the same as well.
 *
 * Either end may come first. A request is joined to one call at most; where several may be, to
 * none.
 */
#ifndef TRACE_JOIN_H
#define TRACE_JOIN_H

#include "base/hash.h"
#include "base/list.h"
#include "trace/link.h"

#define JOIN_HOLD_NS 3000000000ull /* how long a call that is over waits for its request */

enum { JOIN_ENDS_MAX = 32768 };

/* One connection's part; embedded, zeroed before join_conn_open(). */
struct join_conn {
	struct list ends;       /* those that have not found their other end */
	struct join_conn *pair; /* the connection's other end; NULL: not known */
	bool is_open, is_unix;
	uint64_t socket, peer_socket;
	uint64_t last_number; /* of its exchanges; kept by the owner */
	bool counted;         /* a client's, unix: request = call + ahead */
	uint64_t ahead;
};

/* Where an exchange begins. */
struct join_point {
	bool has_seq;
	uint32_t seq, peer_seq; /* TCP: of its first byte */
	uint64_t number;        /* counts the exchanges of its connection, from 1 */
	bool alone;             /* no other one is in flight there */
	bool first;             /* nothing was seen of the connection before */
	uint64_t key;           /* of method and target; unix */
};

struct join {
	struct linker *linker;
	struct stats *stats;
	struct hash calls, requests; /* by sequence numbers → struct join_end */
	struct hash sockets;         /* unix → struct join_conn */
	struct list open;            /* calls in flight */
	struct list over;            /* those that have ended, by then */
	struct list waiting;         /* requests */
	uint32_t count;
};

void join_init(struct join *j, struct linker *l, struct stats *stats);
/* All connections are closed. */
void join_free(struct join *j);
void join_conn_open(struct join *j, struct join_conn *k, const struct conn_info *info);
void join_conn_close(struct join *j, struct join_conn *k);
/* Bytes of it were lost. */
void join_conn_lost(struct join_conn *k);
/* A call or a request begins on the connection. */
void join_call(struct join *j, struct join_conn *k, struct call *c, const struct join_point *at);
void join_request(struct join *j, struct join_conn *k, struct request *r,
		  const struct join_point *at);
/* The call is over; `idle`: nothing is in flight on its connection. */
void join_call_over(struct join *j, struct join_conn *k, struct call *c, uint64_t now_ns,
		    bool idle);
void join_tick(struct join *j, uint64_t now_ns);

#endif
