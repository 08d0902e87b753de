/* zlib's deflate at its quickest level: spans repeat themselves, and the agent's CPU counts for
 * more than the last byte. */
#include "export/gzip.h"

#include <stdlib.h>
#include <zlib.h>

enum {
	GZIP_WINDOW_BITS = 15 + 16,
	GZIP_MEMORY_LEVEL = 8
}; /* + 16: zlib's mark for a gzip header */

struct gzip {
	z_stream stream;
};

struct gzip *gzip_new(void)
{
	struct gzip *g = calloc(1, sizeof(*g));

	if (g && deflateInit2(&g->stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW_BITS,
			      GZIP_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
		free(g);
		return NULL;
	}
	return g;
}

void gzip_free(struct gzip *g)
{
	if (!g)
		return;
	deflateEnd(&g->stream);
	free(g);
}

bool gzip_append(struct gzip *g, struct slice data, struct buf *out)
{
	size_t bound = deflateBound(&g->stream, data.len);

	if (data.len > UINT32_MAX || bound > UINT32_MAX || !buf_reserve(out, bound))
		return false;
	deflateReset(&g->stream);
	g->stream.next_in = (Bytef *)(uintptr_t)data.data;
	g->stream.avail_in = (uInt)data.len;
	g->stream.next_out = out->data + out->len;
	g->stream.avail_out = (uInt)bound;
	if (deflate(&g->stream, Z_FINISH) != Z_STREAM_END)
		return false;
	out->len += bound - g->stream.avail_out;
	return true;
}
