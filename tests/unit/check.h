/*
 * The checks of the configuration and discovery tests. Each failure is one line with its place;
 * check_result() prints the sum and gives the exit code.
 */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static unsigned int checks_passed, checks_failed;

static inline void check_count(bool ok, const char *file, int line, const char *what)
{
	if (ok) {
		checks_passed++;
		return;
	}
	checks_failed++;
	printf("%s:%d: %s\n", file, line, what);
}

static inline void check_str(const char *got, const char *expected, const char *file, int line,
			     const char *what)
{
	bool ok = got && strcmp(got, expected) == 0;

	check_count(ok, file, line, what);
	if (!ok)
		printf("  got '%s', expected '%s'\n", got ? got : "(none)", expected);
}

static inline int check_result(void)
{
	printf("%u passed, %u failed\n", checks_passed, checks_failed);
	return checks_failed != 0;
}

#define CHECK(condition) check_count((condition), __FILE__, __LINE__, #condition)
#define CHECK_STR(got, expected) check_str((got), (expected), __FILE__, __LINE__, #got)

#endif
