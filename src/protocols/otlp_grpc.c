/*
 * Looks for the name of OTLP's trace service in the first bytes of a client's HTTP/2 connection,
 * and gives the connection up then, or when it isn't there. It makes no spans. The name is in the
 * first request's :path, which HPACK (RFC 7541) carries as it is (grpc-core, netty) or in Huffman
 * code (Go, hyper), from a whole byte on; later requests only name an entry of a table.
 */
#include "protocols/otlp_grpc.h"

#include "trace/connection.h"

enum { WATCH_MAX_BYTES = 16384 };

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; /* RFC 9113, 3.4 */
static const char service[] = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
/* "/" and the same, by RFC 7541, appendix B. */
static const uint8_t huffman[] = {
	0x60, 0xf5, 0x96, 0xa4, 0x96, 0x82, 0xd2, 0x54, 0xd9, 0xe9, 0x7a, 0xec, 0x3a, 0x4e,
	0xb9, 0x0f, 0x45, 0x05, 0x22, 0x4f, 0x62, 0xe9, 0xb0, 0x64, 0x2a, 0xfd, 0xc2, 0xbe,
	0xfb, 0x06, 0x42, 0xee, 0x2d, 0x9d, 0xcc, 0x42, 0xb1, 0x83, 0xcd, 0x67, 0xb1, 0x3f,
};

struct watch {
	uint64_t seen; /* bytes sent that were looked at */
};

static enum protocol_match watch_match(const struct connection *c, enum io_dir dir,
				       const uint8_t *data, size_t len, size_t total)
{
	size_t whole = sizeof(preface) - 1, n = len < whole ? len : whole;

	if (dir != IO_SEND || c->protocol || !n || memcmp(data, preface, n) != 0)
		return PROTOCOL_NO;
	if (n == whole)
		return PROTOCOL_REQUEST;
	return len == total ? PROTOCOL_MAYBE : PROTOCOL_NO;
}

static bool has_service(const uint8_t *data, size_t len)
{
	return len && (memmem(data, len, service, sizeof(service) - 1) ||
		       memmem(data, len, huffman, sizeof(huffman)));
}

static ssize_t watch_step(struct connection *c, enum io_dir dir, const uint8_t *data, size_t len)
{
	enum { KEEP = sizeof(service) - 2 }; /* what may be the beginning of it */
	struct stream *s = connection_stream(c, dir);
	struct watch *w = c->state;
	size_t used = s->missing || dir != IO_SEND ? len : len > KEEP ? len - KEEP : 0;

	if (s->missing)
		s->skip = s->missing;
	if (dir != IO_SEND)
		return (ssize_t)used;
	if (has_service(data, len)) {
		connection_exports(c);
		return STREAM_STOP;
	}
	w->seen += used;
	if (w->seen > WATCH_MAX_BYTES) {
		connection_count_drop(c, DROP_UNKNOWN_PROTOCOL);
		return STREAM_STOP;
	}
	return (ssize_t)used;
}

static void watch_lost(struct connection *c, enum io_dir dir)
{
	(void)c;
	(void)dir;
}

static void watch_settle(struct connection *c)
{
	(void)c;
}

static void watch_end(struct connection *c, enum io_dir dir, int error)
{
	const struct watch *w = c->state;

	(void)dir;
	(void)error;
	if (!c->event && w->seen)
		connection_count_drop(c, DROP_UNKNOWN_PROTOCOL);
}

const struct protocol otlp_grpc_protocol = {
	.name = "otlp_grpc",
	.state_size = sizeof(struct watch),
	.match = watch_match,
	.step = watch_step,
	.lost = watch_lost,
	.settle = watch_settle,
	.end = watch_end,
};
