/*
 * One direction of a connection as a run of bytes. It carries the unconsumed tail of one chunk over
 * to the next, passes over bytes by length alone, and knows when bytes it needed were never
 * captured. It knows no protocol.
 */
#ifndef TRACE_STREAM_H
#define TRACE_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

enum {
	STREAM_PENDING_MAX_BYTES = 16384
}; /* the largest head, line or argument that is put together */

enum {
	STREAM_MORE =
		0, /* the step needs more bytes than there are; it will see the same ones again */
	STREAM_BAD = -1, /* the bytes break the protocol */
	STREAM_STOP = -2 /* nothing more of this connection is of interest */
};

enum stream_result {
	STREAM_OK,
	STREAM_LOST,
	STREAM_BROKEN,
	STREAM_TOO_LARGE,
	STREAM_STOPPED,
	STREAM_NO_MEMORY
};

struct stream {
	struct buf pending;
	uint64_t skip;  /* bytes still to pass over, whether captured or not; UINT64_MAX: until the
			   end */
	uint64_t chunk; /* counts the chunks fed: equal numbers mean the same I/O event */
	uint32_t missing; /* during a step: bytes of this I/O event that were not captured and come
			     behind `data` */
	bool same_call; /* set before a feed: these bytes belong to the chunk before (IO_SAME_CALL);
			   the feed clears it */
};

/*
 * Consumes from `data` and says how much (> 0), or STREAM_MORE, STREAM_BAD, STREAM_STOP. It may set
 * `skip` of its stream, which is then applied behind what it consumed (to pass over bytes only,
 * consume the header first). When a skip has run out the step is called at once, with len 0 if that
 * was the last byte, so that it sees the end of a body when it comes; and with len 0 when bytes
 * follow that were not captured and no skip covers: unless it sets one, they are lost. A step that
 * is given no bytes consumes none.
 */
typedef ssize_t (*stream_step)(void *ctx, const uint8_t *data, size_t len);

void stream_free(struct stream *s);
/* Forgets the pending bytes and the skip. */
void stream_reset(struct stream *s);
/*
 * Feeds `captured` bytes at `data`, followed by `length - captured` that nobody has. STREAM_LOST:
 * uncaptured bytes fell where the protocol needed them; the caller resets and waits for a new
 * message.
 */
enum stream_result stream_feed(struct stream *s, const uint8_t *data, uint32_t captured,
			       uint32_t length, stream_step step, void *ctx);

#endif
