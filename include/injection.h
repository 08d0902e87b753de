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
	INJECTION_ADOPTED, /* nothing is known of where messages begin */
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
	/* Adopted: */
	INJECTION_WITHIN = 4,  /* it sends the rest of a message that began before */
	INJECTION_DOUBTED = 8, /* the message up to `known` only seemed to begin where it did */
};

struct injection {
	u64 socket; /* its cookie: the key in the table */
	u64 left;   /* of the chunk */
	u32 known;  /* sequence number of the first byte that is not understood yet */
	u32 heard;  /* adopted: that of what it is sent next, when the message was seen first */
	u8 phase;   /* enum injection_phase */
	u8 flags;   /* INJECTION_* */
	u8 zero[6];
};
RECORD_SIZE_IS(injection, 32);

enum { INJECTION_SOCKETS_MAX = 16384 };

#endif
