/*
 * What http1.c (the life of exchanges) and http1_frame.c (message framing) share: the state of a
 * connection. Invariant: reading is the request whose head or body is being read, answering the one
 * whose answer is; each is NULL or in the connection's list.
 */
#ifndef PROTOCOLS_HTTP1_STATE_H
#define PROTOCOLS_HTTP1_STATE_H

#include "trace/net_attrs.h"
#include "trace/connection.h"

enum {
	HTTP1_MAX_IN_FLIGHT = 256,    /* pipelined requests */
	HTTP1_DETECT_MAX_BYTES = 8192 /* of a request line, to recognise one */
};

enum http1_stage {
	STAGE_HEAD, /* before or in a head */
	STAGE_BODY, /* a body of known length is being passed over */
	STAGE_CHUNK_SIZE,
	STAGE_TRAILER,
	STAGE_UNTIL_CLOSE,
	STAGE_UNFRAMED, /* bytes that framing needed were not captured: look for the next head at an
			   event's start */
};

struct http1_side {
	uint8_t stage;  /* enum http1_stage */
	bool begun;     /* within a head */
	bool chunked;   /* unframed within a chunked body */
	bool at_start;  /* unframed: these bytes begin an event */
	size_t scanned; /* of the head, by http1_head_length */
	uint64_t chunk; /* unframed: stream.chunk of the last step */
};

struct http1_state {
	struct http1_side request, response;
	struct exchange *reading, *answering;
	bool lost;     /* bytes were lost: what is in flight ends when the next request begins */
	bool crowded;  /* requests are sent before the one in front has its answer */
	bool hidden;   /* bytes of requests were not captured, whole requests may be among them */
	bool unpaired; /* a client's: which request an answer is for can't be told any more */
	int error;     /* of a client's send; the answer may have come before it */
	struct net_text net;
	struct buf work;
};

/* exchange.scratch[0] */
enum {
	EX_HEAD_DONE = 1 << 0,
	EX_IS_HEAD = 1 << 1,
	EX_IS_CONNECT = 1 << 2,
	EX_HAS_STATUS = 1 << 3,
	EX_IS_EXPORT = 1 << 4,
	EX_EXPECTS = 1 << 5 /* its body waits for an answer; scratch[1]: connection.moved then */
};

enum protocol_match http1_match(const struct connection *c, enum io_dir dir, const uint8_t *data,
				size_t len, size_t total);
ssize_t http1_request_step(struct connection *c, const uint8_t *data, size_t len);
ssize_t http1_response_step(struct connection *c, const uint8_t *data, size_t len);

static inline enum io_dir http1_response_dir(const struct connection *c)
{
	return connection_request_dir(c) == IO_SEND ? IO_RECV : IO_SEND;
}

/* The exchange is over, at end_ns. */
void http1_finish(struct connection *c, struct exchange *ex, uint64_t end_ns);
/* No span; counted. */
void http1_drop(struct connection *c, struct exchange *ex);
/* Nothing more will be known of it: it ends with its answer's last byte that we saw, or is dropped.
 */
void http1_settle(struct connection *c, struct exchange *ex);
/* `ex` has its final answer. Where it waited for leave to send its body, that may never come: a
 * head may begin next. */
void http1_refuse_body(struct connection *c, struct exchange *ex);
/* Answers to requests that were not seen, or not to their end, may still come: from here on none is
 * given to any request, and what is in flight is settled. */
void http1_unpair(struct connection *c);
/* A new request proves that what was in flight when bytes were lost is over. */
void http1_settle_lost(struct connection *c);
/* It was no request. */
void http1_forget(struct http1_state *st, struct exchange *ex);

#endif
