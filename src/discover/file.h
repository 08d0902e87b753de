/*
 * Bounded reads of the small text files of /proc and /sys, below a directory handle. Only for
 * src/discover.
 */
#ifndef DISCOVER_FILE_H
#define DISCOVER_FILE_H

#include <stddef.h>

/*
 * The file's first `max_bytes` at most, malloc'd with a NUL behind; ret_len may be NULL. 0 or
 * -errno, outputs then untouched.
 */
int file_read_at(int dir_fd, const char *name, size_t max_bytes, char **ret, size_t *ret_len);
/* Its first line without the newline, into `buf`; "" when it can't be read. */
void file_read_word(const char *path, char *buf, size_t bytes);
/* The part behind the last '/'; borrowed. */
const char *path_base(const char *path);

#endif
