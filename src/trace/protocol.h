/*
 * What a protocol gives to the tracer: a table of functions and the size of its state. It is
 * defined here, below src/protocols/, because connections call protocols and dependencies point one
 * way; the table of all of them is src/protocols/protocols.c.
 */
#ifndef TRACE_PROTOCOL_H
#define TRACE_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/io.h"

struct connection;

enum protocol_match {
	PROTOCOL_NO,       /* these bytes are not the beginning of a message of mine */
	PROTOCOL_MAYBE,    /* too few bytes to tell */
	PROTOCOL_REQUEST,  /* a request begins here: its sender is the client */
	PROTOCOL_RESPONSE, /* an answer begins here: its sender is the server */
};

struct protocol {
	const char *name;
	size_t state_size; /* zeroed bytes at connection.state */
	bool joins; /* a client's exchange is the very exchange of the server at the other end */
	/*
	 * Does a message begin at `data`, the first bytes of one I/O event? Called while the
	 * protocol of a connection is unknown, and to find a new message after bytes were lost.
	 * `len` captured of `total` bytes. Pure: looks at nothing but its arguments.
	 */
	enum protocol_match (*match)(const struct connection *c, enum io_dir dir,
				     const uint8_t *data, size_t len, size_t total);
	/*
	 * One step over the bytes of a direction, as stream_step says; connection_dir(c, dir) has
	 * the stream and c->event the I/O event that is being fed.
	 */
	ssize_t (*step)(struct connection *c, enum io_dir dir, const uint8_t *data, size_t len);
	/*
	 * A request is certain to begin with the event that is fed next, wherever the bytes before
	 * it seemed to lead. The protocol puts itself at a request's beginning; where it was not
	 * there, answers that are still to come are given to no request that they may not be for.
	 * May be NULL.
	 */
	void (*begins)(struct connection *c);
	/* Bytes of `dir` were lost; both streams are reset already, exchanges in flight are the
	 * protocol's to end. */
	void (*lost)(struct connection *c, enum io_dir dir);
	/*
	 * Called behind lost() when whole messages may be among the lost bytes: what is in flight
	 * can't be told from what follows any more. Each exchange is ended with the last answer
	 * byte that was seen, or dropped.
	 */
	void (*settle)(struct connection *c);
	/*
	 * The peer's or our own end of stream (error 0) or a failed transfer (negative errno); also
	 * called, with dir IO_RECV and error 0, when the connection is gone. Exchanges in flight
	 * are the protocol's to end.
	 */
	void (*end)(struct connection *c, enum io_dir dir, int error);
	/*
	 * Nothing came for a while and exchanges are in flight: those whose end could not be
	 * followed (bytes were lost or not captured) may be ended with their last answer byte. May
	 * be NULL.
	 */
	void (*quiet)(struct connection *c);
	/* Releases what the state owns (never called for a zeroed state); may be NULL. */
	void (*free)(void *state);
};

#endif
