/*
 * An error and the sentence that goes with it, for who returns -errno and says what was wrong and
 * what to do. It logs nothing: the caller that gives up does.
 */
#ifndef BASE_FAIL_H
#define BASE_FAIL_H

/* Returns `err`. *ret_error is the sentence, the caller's to free(); NULL when there is no memory
 * for it. */
int fail(char **ret_error, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
