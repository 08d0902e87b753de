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

int process_sockets(uint32_t pid, void (*each)(void *ctx, int fd), void *ctx)
{
	char path[64], target[16];
	struct dirent *e;
	int left = SOCKETS_MAX;
	int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	DIR *dir;

	if (pidfd < 0)
		return errno == ENOSYS ? -EOPNOTSUPP : -errno;
	snprintf(path, sizeof(path), "/proc/%u/fd", pid);
	dir = opendir(path);
	while (dir && left && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target));
		int fd;

		if (n <= 7 || memcmp(target, "socket:", 7) != 0)
			continue;
		left--;
		fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(e->d_name), 0);
		if (fd < 0)
			continue;
		if (is_tcp(fd))
			each(ctx, fd);
		else
			close(fd);
	}
	if (dir)
		closedir(dir);
	close(pidfd);
	return 0;
}
