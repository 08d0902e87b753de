#include "base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum { LOG_LINE_BYTES = 2048, LOG_ERROR_WAIT_MS = 500 };

static enum log_level threshold = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	threshold = level;
}

enum log_level log_get_level(void)
{
	return threshold;
}

void log_printf(enum log_level level, const char *fmt, ...)
{
	static const char *const words[] = { "error: ", "warning: ", "", "debug: " };
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	char line[LOG_LINE_BYTES];
	int head, n;
	va_list ap;

	if (level > threshold)
		return;
	head = snprintf(line, sizeof(line), "spanloom: %s", words[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + head, sizeof(line) - (size_t)head - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	n += head;
	if (n > LOG_LINE_BYTES - 2)
		n = LOG_LINE_BYTES - 2;
	line[n++] = '\n';
	/* A reader that has stopped reading must not stop us: what it has no room for is lost. */
	if (poll(&p, 1, level == LOG_LEVEL_ERROR ? LOG_ERROR_WAIT_MS : 0) == 0)
		return;
	/* One write, so that lines of several writers never mix. */
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}
