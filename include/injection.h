/*
 * What is remembered of a socket in the table of those that headers are put into: kept with the
 * socket (sk_storage), made by the kernel side when the socket connects, by the agent when it takes
 * over one that was open before.
 */
#ifndef SPANLOOM_INJECTION_H
#define SPANLOOM_INJECTION_H

#include "event.h"

enum injection_phase {
	INJECTION_NEW,     /* connecting: not in the table yet */
	INJECTION_TRIAL,   /* a message begins with what is sent first */
	INJECTION_ADOPTED, /* nothing is known: a request is believed only behind an answer */
	INJECTION_START,   /* at `known` a message begins */
	/* in a chunked body */
	INJECTION_SIZE,      /* digits of a chunk's size */
	INJECTION_EXTENSION, /* the rest of that line */
	INJECTION_DATA,      /* `left` bytes and a line's end */
	INJECTION_TRAILER,   /* at the beginning of a line behind the last chunk */
	INJECTION_FIELD,     /* inside of such a line */
};

enum {
	INJECTION_LEFT = 1, /* no HTTP/1, or what is known no longer fits: it is let go */
	INJECTION_TEST = 2, /* of the agent's own trial: gets a header with ids of ones */
};

struct injection {
	u64 socket; /* its cookie: the key in the table */
	u64 left;   /* of the chunk */
	u32 known;  /* sequence number of the first byte that is not understood yet */
	u8 phase;   /* enum injection_phase */
	u8 flags;   /* INJECTION_* */
	u8 zero[2];
};
RECORD_SIZE_IS(injection, 24);

enum { INJECTION_SOCKETS_MAX = 16384 };

#endif
