/*
 * Fuzzer input as the life of one connection: the first byte says how it began, then records follow
 * of an op byte (see enum), a length byte and that many bytes, which go through the whole tracer.
 * Its other end is in the same process and sees all of it as well, so that ends are joined, and
 * what is joined may go round in circles. Spans that come out are checked for what must always
 * hold.
 */
#ifndef FUZZ_EVENTS_H
#define FUZZ_EVENTS_H

#include <errno.h>
#include <stdlib.h>

#include "trace/resource.h"
#include "trace/tracer.h"

enum {
	OP_SEND = 1 << 0,
	OP_SAME_CALL = 1 << 1,
	OP_NONBLOCK = 1 << 2,
	OP_TAIL = 1 << 3, /* as many bytes again that were not captured, times 256 when the next bit
			     is set, too */
	OP_LONG = 1 << 4,
	OP_EMPTY = 1 << 5, /* an end of stream; with OP_LONG an error */
	OP_TICK = 1 << 6,
	OP_LOST = 1 << 7, /* without data; with OP_EMPTY no transfer but the ids of a request:
			     flags, whose they are, then the ids, as far as there are bytes */
};

enum { FUZZ_PID = 10, FUZZ_CONN = 1, FUZZ_OTHER_END = 2 };

static uint32_t fuzz_seq[2]; /* of either direction */

static void fuzz_span(void *ctx, struct span *s)
{
	(void)ctx;
	if (s->end_ns < s->start_ns || !s->name_len || s->attr_count > SPAN_MAX_ATTRS)
		abort();
	span_free(s);
}

static struct resource *fuzz_resource(void *ctx, uint32_t pid)
{
	(void)ctx;
	return resource_new(pid);
}

static void fuzz_random(void *ctx, uint8_t *data, size_t len)
{
	(void)ctx;
	memset(data, 0x42, len);
}

static void fuzz_request(struct tracer *t, const uint8_t *data, size_t len, uint64_t now_ns)
{
	struct request_event ev = {
		.ts_ns = now_ns,
		.conn_id = len > 1 && data[1] & 1 ? FUZZ_OTHER_END : FUZZ_CONN,
		.pid = FUZZ_PID,
		.tid = FUZZ_PID,
		.flags = len ? data[0] : 0,
		.tcp_seq = fuzz_seq[len > 1 && data[1] & 2],
		.tcp_peer_seq = fuzz_seq[!(len > 1 && data[1] & 2)],
	};

	if (len > 2)
		memcpy(ev.trace_id, data + 2, len - 2 < 16 ? len - 2 : 16);
	ev.span_id[7] = (uint8_t)now_ns;
	tracer_request(t, &ev);
}

static void fuzz_transfer(struct tracer *t, struct io_event *ev)
{
	const uint32_t seq = fuzz_seq[ev->dir], peer = fuzz_seq[!ev->dir];

	ev->tcp_seq = seq;
	ev->tcp_peer_seq = peer;
	tracer_io(t, ev);
	ev->conn_id = FUZZ_OTHER_END;
	ev->dir = ev->dir == IO_SEND ? IO_RECV : IO_SEND;
	tracer_io(t, ev);
	fuzz_seq[ev->dir == IO_RECV] += ev->error ? 0 : ev->length;
}

/* One record. The bytes are copied to the heap, so that a read behind them is seen. */
static size_t fuzz_record(struct tracer *t, const uint8_t *data, size_t size, uint64_t now_ns)
{
	uint8_t op = data[0];
	size_t len = data[1] < size - 2 ? data[1] : size - 2;
	uint8_t *copy = malloc(len ? len : 1);
	struct io_event ev = {
		.ts_ns = now_ns,
		.conn_id = FUZZ_CONN,
		.pid = FUZZ_PID,
		.tid = FUZZ_PID,
		.dir = op & OP_SEND ? IO_SEND : IO_RECV,
		.flags = (op & OP_SAME_CALL ? IO_SAME_CALL : 0) |
			 (op & OP_NONBLOCK ? IO_NONBLOCK : 0),
		.length = (uint32_t)len,
		.captured = (uint32_t)len,
		.data = copy,
	};

	if (!copy)
		abort();
	memcpy(copy, data + 2, len);
	if (op & OP_TAIL)
		ev.length += (uint32_t)len * (op & OP_LONG ? 256 : 1);
	if (op & OP_LOST) {
		ev.flags |= IO_LOST;
		ev.captured = 0;
	}
	if (op & OP_EMPTY) {
		ev.length = ev.captured = 0;
		ev.error = op & OP_LONG ? -ECONNRESET : 0;
	}
	if (op & OP_TICK)
		tracer_tick(t, now_ns);
	if ((op & OP_LOST) && (op & OP_EMPTY))
		fuzz_request(t, copy, len, now_ns);
	else
		fuzz_transfer(t, &ev);
	free(copy);
	return 2 + len;
}

static int fuzz_events(const struct protocol *const *protocols, const uint8_t *data, size_t size)
{
	struct tracer_options options = { .protocols = protocols,
					  .sampler = { .root = SAMPLER_ALWAYS_ON } };
	struct tracer_ops ops = { .span = fuzz_span,
				  .resource = fuzz_resource,
				  .random = fuzz_random };
	struct stats stats = { 0 };
	struct conn_info conn = { .ts_ns = 1,
				  .conn_id = FUZZ_CONN,
				  .pid = FUZZ_PID,
				  .tid = FUZZ_PID,
				  .peer_port = 80,
				  .socket = 1,
				  .peer_socket = 2 };
	struct tracer *t;
	uint64_t now_ns = 10;

	if (!size)
		return 0;
	conn.flags = data[0] & (CONN_FRESH | CONN_ACTIVE | CONN_PASSIVE);
	conn.family = data[0] & 8 ? CONN_UNIX : data[0] & 16 ? CONN_INET6 : CONN_INET;
	t = tracer_new(&options, &ops, &stats);
	if (!t)
		abort();
	fuzz_seq[0] = fuzz_seq[1] = 1;
	tracer_conn_open(t, &conn);
	conn.conn_id = FUZZ_OTHER_END;
	conn.flags = (conn.flags & CONN_FRESH) | (conn.flags & CONN_ACTIVE ? CONN_PASSIVE : 0) |
		     (conn.flags & CONN_PASSIVE ? CONN_ACTIVE : 0);
	conn.socket = 2;
	conn.peer_socket = 1;
	tracer_conn_open(t, &conn);
	data++;
	size--;
	while (size >= 2) {
		size_t used = fuzz_record(t, data, size, now_ns++);

		data += used;
		size -= used;
	}
	tracer_conn_close(t, FUZZ_CONN, now_ns);
	tracer_tick(t, now_ns);
	tracer_conn_close(t, FUZZ_OTHER_END, now_ns);
	tracer_flush(t, now_ns);
	tracer_free(t);
	return 0;
}

#endif
