#include "probe/process_sockets.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SOCKETS_MAX = 16384 }; /* more are not looked at */

static int option(int fd, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) ? -1 : value;
}

static bool is_tcp(int fd)
{
	int domain = option(fd, SO_DOMAIN);

	return (domain == AF_INET || domain == AF_INET6) && option(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

int process_handle(uint32_t pid)
{
	int handle = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);

	if (handle >= 0)
		return handle;
	return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

int process_descriptor(int handle, int number)
{
	int fd = (int)syscall(SYS_pidfd_getfd, handle, number, 0);

	return fd < 0 ? -errno : fd;
}

int process_sockets(uint32_t pid, void (*each)(void *ctx, int number, int fd), void *ctx)
{
	char path[64], target[16];
	struct dirent *e;
	int left = SOCKETS_MAX;
	int handle = process_handle(pid);
	DIR *dir;

	if (handle < 0)
		return handle;
	snprintf(path, sizeof(path), "/proc/%u/fd", pid);
	dir = opendir(path);
	while (dir && left && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target));
		int fd;

		if (n <= 7 || memcmp(target, "socket:", 7) != 0)
			continue;
		left--;
		fd = process_descriptor(handle, atoi(e->d_name));
		if (fd < 0)
			continue;
		if (is_tcp(fd))
			each(ctx, atoi(e->d_name), fd);
		else
			close(fd);
	}
	if (dir)
		closedir(dir);
	close(handle);
	return 0;
}
