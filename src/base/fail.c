/* The sentence of a failure; see the header. */
#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>

int fail(char **ret_error, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(ret_error, fmt, ap) < 0)
		*ret_error = NULL;
	va_end(ap);
	return err;
}
