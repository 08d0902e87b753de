/*
 * Checks that are counted, and the result that a test program ends with. A failed check says where
 * and in which scene it stands; the program goes on.
 */
#ifndef TESTS_BPF_CHECK_H
#define TESTS_BPF_CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned int checks_passed, checks_failed;
static const char *check_scene = ""; /* what is going on, for the lines of failed checks */

static inline void __attribute__((format(printf, 4, 5)))
check_that(bool ok, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	if (ok) {
		checks_passed++;
		return;
	}
	checks_failed++;
	printf("%s:%d: %s: ", file, line, check_scene);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

#define CHECK(condition) check_that((condition), __FILE__, __LINE__, "%s", #condition)
/* With figures: a printf format and its arguments. */
#define CHECK_SAY(condition, ...) check_that((condition), __FILE__, __LINE__, __VA_ARGS__)

static inline int check_result(void)
{
	printf("%u passed, %u failed\n", checks_passed, checks_failed);
	return checks_failed != 0;
}

/* Ends the program: BPF can't run here. A failure where the environment promises that it can. */
static inline void __attribute__((noreturn)) check_skip(const char *why)
{
	const char *ci = getenv("CI");
	bool must = ci && strcmp(ci, "true") == 0;

	printf("BPF can't run here: %s\n", why);
	printf("%u passed, %u failed, %d skipped\n", checks_passed, checks_failed + (must ? 1 : 0),
	       must ? 0 : 1);
	exit(must || checks_failed);
}

#endif
