/*
 * Bounded reads of the small text files of /proc and /sys. Their size isn't known beforehand, so
 * the buffer grows up to the caller's limit; what is behind it is left out without an error.
 */
#include "discover/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_FIRST_BYTES = 4096 };

/* Never 0, whatever errno is: callers use their outputs on 0. */
static int last_error(void)
{
	return errno > 0 ? -errno : -EIO;
}

/* Doubles the buffer, to max_bytes and the NUL at most; false: it is as large as it may be, or
 * there is no memory. */
static bool grow(char **data, size_t *cap, size_t max_bytes)
{
	size_t want = *cap > max_bytes / 2 ? max_bytes + 1 : *cap * 2;
	char *grown = want > *cap ? realloc(*data, want) : NULL;

	if (!grown)
		return false;
	*data = grown;
	*cap = want;
	return true;
}

static int read_all(int fd, size_t max_bytes, char **ret, size_t *ret_len)
{
	size_t cap = max_bytes < FILE_FIRST_BYTES ? max_bytes + 1 : FILE_FIRST_BYTES, len = 0;
	char *data = malloc(cap);

	if (!data)
		return -ENOMEM;
	for (;;) {
		ssize_t n;

		if (len + 1 == cap && !grow(&data, &cap, max_bytes))
			break;
		n = read(fd, data + len, cap - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int err = last_error();

			free(data);
			return err;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	data[len] = 0;
	*ret = data;
	if (ret_len)
		*ret_len = len;
	return 0;
}

int file_read_at(int dir_fd, const char *name, size_t max_bytes, char **ret, size_t *ret_len)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), err;

	if (fd < 0)
		return last_error();
	err = read_all(fd, max_bytes, ret, ret_len);
	close(fd);
	return err;
}

void file_read_word(const char *path, char *buf, size_t bytes)
{
	char *text = NULL;

	buf[0] = 0;
	if (file_read_at(AT_FDCWD, path, bytes - 1, &text, NULL) || !text)
		return;
	text[strcspn(text, " \t\r\n")] = 0;
	snprintf(buf, bytes, "%s", text);
	free(text);
}

const char *path_base(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}
