/*
 * The TCP option that carries a call's ids, and what is kept of it with a socket: by the kernel
 * side for calls, by the agent for a trial on sockets of its own.
 */
#ifndef SPANLOOM_TCP_OPTION_H
#define SPANLOOM_TCP_OPTION_H

#include "event.h"

/*
 * A kind for experiments, its length, who experiments, trace id, span id. With it and the time
 * stamps the 40 bytes that TCP has for options are used up to the last one, so there is no byte for
 * the flags: two experiment ids tell whether the trace is sampled. Kind and form: RFC 4727, RFC
 * 6994; the ids are not registered with IANA.
 */
enum {
	OPTION_KIND = 254,
	OPTION_BYTES = 28,
	OPTION_HEAD_BYTES = 4,
	OPTION_EXPERIMENT = 0xeb, /* both ids begin with it */
	OPTION_SAMPLED = 0x9f,
	OPTION_NOT_SAMPLED = 0x9e,
};

enum option_stage {
	OPTION_IDLE,  /* no call waits for its segment */
	OPTION_DUE,   /* one does: its option goes out with its first byte */
	OPTION_SENT,  /* it has gone out; should its segment be sent again, then without it */
	OPTION_NEVER, /* the connection carries no HTTP/1, or loses what has options: TCP needn't
			 ask any more */
	OPTION_TRIAL, /* of the agent's own trial: as OPTION_DUE for the next byte that is sent */
};

/* Of a connection that a traced process makes. The kernel side writes it with the socket locked. */
struct option_state {
	u8 option[OPTION_BYTES];
	u32 seq; /* of the call's first byte */
	u8 stage;
	u8 lost; /* segments with an option in succession that had to be sent again */
	u8 good; /* one has arrived: what was lost before on the way to this host is forgotten */
	u8 zero;
};
RECORD_SIZE_IS(option_state, 36);

/*
 * There are networks that throw away segments with options that they don't know. Of segments that
 * had to be sent again in succession, so many end the options of a connection, and those of all
 * connections to a host for a while.
 */
enum { OPTION_LOST_MAX = 2, OPTION_HOST_LOST_MAX = 3, OPTION_HOSTS_MAX = 1024 };
#define OPTION_HOST_REST_NS 600000000000ull

/* What has come, by the socket (its address) and the number of the segment's first byte. */
struct option_key {
	u64 sk;
	u32 seq;
	u32 zero;
};
RECORD_SIZE_IS(option_key, 16);

struct option_ids {
	u8 trace_id[TRACE_CONTEXT_ID_BYTES];
	u8 span_id[TRACE_CONTEXT_SPAN_BYTES];
	u8 trace_flags;
	u8 zero[7];
};
RECORD_SIZE_IS(option_ids, 32);

enum { OPTIONS_RECEIVED_MAX = 16384 };

#endif
