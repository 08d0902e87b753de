/*
 * A growable byte buffer with a sticky error: the first failed allocation makes every later append
 * a no-op, and the caller checks `failed` once at the end. Zeroed memory is a valid empty buffer.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	bool failed;
};

/* Releases the memory and leaves an empty buffer; takes a zeroed one. */
void buf_free(struct buf *b);
/* Forgets the content and a past failure, keeps the memory. */
void buf_reset(struct buf *b);
/* Makes room for `extra` more bytes; false (and failed) when it cannot. */
bool buf_reserve(struct buf *b, size_t extra);
void buf_append(struct buf *b, const void *data, size_t len);
void buf_append_str(struct buf *b, const char *s);
void buf_append_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first `len` bytes (all when there are fewer). */
void buf_consume(struct buf *b, size_t len);
/* The content with a NUL behind it that is not counted in len; "" after a failure. Borrowed until
 * the next change. */
const char *buf_cstr(struct buf *b);

#endif
