/*
 * Text from the wire as a terminal may show it: valid UTF-8 (or ASCII), nothing that moves the
 * cursor, rings or turns the writing round, and a known width in columns. Pure.
 */
#ifndef EXPORT_DISPLAY_H
#define EXPORT_DISPLAY_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/slice.h"

/*
 * Appends `text`, at most `max_cols` columns of it, the last an ellipsis when it is cut; control
 * characters as \xNN or \u{NNNN}. Without `utf8`, other than ASCII becomes '?'. Returns the
 * columns.
 */
unsigned int display_append(struct buf *out, struct slice text, unsigned int max_cols, bool utf8);
/* The columns of text that display_append made. */
unsigned int display_cols(struct slice text);
void display_pad(struct buf *out, unsigned int cols);
/* "1.23 ms": three digits of ns, µs (us without `utf8`), ms, s, min. At most DISPLAY_DURATION_COLS
 * columns. */
enum { DISPLAY_DURATION_COLS = 9 };
unsigned int display_duration(struct buf *out, uint64_t ns, bool utf8);

#endif
