/*
 * Standard output without ever waiting for it: text is kept in a bounded buffer and written as far
 * as whoever reads takes it. It owns the buffer and, where it could open one, a non-blocking
 * description of its own of the terminal or pipe; descriptor 1 itself is shared with others and
 * left as it is.
 */
#ifndef EXPORT_TERMINAL_H
#define EXPORT_TERMINAL_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/slice.h"

enum { TERMINAL_BUFFER_MAX_BYTES = 1 << 20 };

struct terminal {
	int fd;      /* where to write */
	bool own_fd; /* opened here, not blocking */
	bool socket; /* send with MSG_DONTWAIT */
	bool gone;   /* nobody will read any more */
	bool tty;
	struct buf pending;
};

void terminal_open(struct terminal *t);
void terminal_close(struct terminal *t);
/* Takes the text, or none of it: false when there is no room or nobody reads. */
bool terminal_write(struct terminal *t, struct slice text);
/* Writes what can be written now; true when nothing is left. */
bool terminal_pump(struct terminal *t);
/* Columns: of the terminal, else COLUMNS, else 100; 40 to 240. */
unsigned int terminal_width(const struct terminal *t);
/* Whether to colour: a terminal, NO_COLOR (https://no-color.org) unset or empty, TERM not "dumb".
 */
bool terminal_colours(const struct terminal *t);
/* Whether the locale's character set, as the environment names it, is UTF-8; true when it names
 * none. */
bool terminal_utf8(void);

#endif
