/*
 * Writing to descriptor 1. O_NONBLOCK belongs to the open file description, which the shell shares,
 * so a terminal or pipe is opened anew through /proc; a socket is sent to with MSG_DONTWAIT; what
 * is left (files) takes at most PIPE_BUF bytes after a poll without waiting.
 */
#include "export/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WIDTH_MIN = 40, WIDTH_MAX = 240, WIDTH_DEFAULT = 100 };

void terminal_open(struct terminal *t)
{
	struct stat st;

	*t = (struct terminal){ .fd = STDOUT_FILENO };
	if (fstat(STDOUT_FILENO, &st) < 0) {
		t->gone = true;
		return;
	}
	t->tty = isatty(STDOUT_FILENO);
	t->socket = S_ISSOCK(st.st_mode);
	if (t->tty || S_ISFIFO(st.st_mode)) {
		int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

		t->own_fd = fd >= 0;
		t->fd = fd >= 0 ? fd : STDOUT_FILENO;
	}
}

void terminal_close(struct terminal *t)
{
	if (t->own_fd)
		close(t->fd);
	buf_free(&t->pending);
}

static ssize_t write_some(const struct terminal *t, struct slice text)
{
	size_t len = text.len < PIPE_BUF ? text.len : PIPE_BUF;
	struct pollfd p = { .fd = t->fd, .events = POLLOUT };

	if (t->socket)
		return send(t->fd, text.data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (poll(&p, 1, 0) <= 0) {
		errno = EAGAIN;
		return -1;
	}
	return write(t->fd, text.data, len);
}

bool terminal_pump(struct terminal *t)
{
	size_t done = 0;

	while (done < t->pending.len && !t->gone) {
		ssize_t n = write_some(t, slice_of(t->pending.data + done, t->pending.len - done));

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		else
			t->gone = true;
	}
	buf_consume(&t->pending, t->gone ? t->pending.len : done);
	return !t->pending.len;
}

bool terminal_write(struct terminal *t, struct slice text)
{
	if (t->gone || t->pending.len + text.len > TERMINAL_BUFFER_MAX_BYTES ||
	    !buf_reserve(&t->pending, text.len)) {
		t->pending.failed = false;
		return false;
	}
	buf_append(&t->pending, text.data, text.len);
	return true;
}

unsigned int terminal_width(const struct terminal *t)
{
	const char *columns = getenv("COLUMNS");
	unsigned long width = 0;
	struct winsize size;

	if (t->tty && ioctl(t->fd, TIOCGWINSZ, &size) == 0)
		width = size.ws_col;
	if (!width && columns)
		width = strtoul(columns, NULL, 10);
	if (!width)
		width = WIDTH_DEFAULT;
	return width < WIDTH_MIN ? WIDTH_MIN : width > WIDTH_MAX ? WIDTH_MAX : (unsigned int)width;
}

bool terminal_colours(const struct terminal *t)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	return t->tty && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
}

bool terminal_utf8(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return strcasestr(value, "UTF-8") || strcasestr(value, "utf8");
	}
	return true;
}
