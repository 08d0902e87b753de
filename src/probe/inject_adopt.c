/*
 * Adoption: each socket of the process is looked at through a descriptor of our own (pidfd_getfd),
 * which is the same open file. Only connections that the process made, that don't block and have
 * nothing on the way go into the table; there the kernel side believes a request only behind an
 * answer. It changes nothing of a socket but that.
 */
#include "probe/inject_adopt.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "injection.h"

enum { ADOPT_MAX = 4096, LISTENED_MAX = 64, STATE_ESTABLISHED = 1 };

/* The ports on which the process listens: a connection at one of them was accepted. */
struct listened {
	uint16_t ports[LISTENED_MAX];
	size_t count;
	bool more; /* than are kept */
};

struct adoption {
	int sockets, injections;
	int pidfd;
	int fds[ADOPT_MAX]; /* ours */
	size_t count;
	struct listened listened;
};

static int option(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

static bool is_tcp(int fd)
{
	int domain = option(fd, SOL_SOCKET, SO_DOMAIN);

	return (domain == AF_INET || domain == AF_INET6) &&
	       option(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
}

/* Its own port, 0: not known. */
static uint16_t own_port(int fd)
{
	struct sockaddr_storage at;
	socklen_t len = sizeof(at);

	if (getsockname(fd, (struct sockaddr *)&at, &len))
		return 0;
	return at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
					: ((struct sockaddr_in *)&at)->sin_port;
}

static void listens(struct listened *l, int fd)
{
	if (l->count == LISTENED_MAX)
		l->more = true;
	else
		l->ports[l->count++] = own_port(fd);
}

static bool was_accepted(const struct listened *l, int fd)
{
	uint16_t port = own_port(fd);
	size_t i;

	for (i = 0; i < l->count; i++) {
		if (l->ports[i] == port)
			return true;
	}
	return l->more || !port;
}

/* Has the kernel a protocol of its own on it, as TLS? */
static bool has_ulp(int fd)
{
	char name[16] = "";
	socklen_t len = sizeof(name);

	return !getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &len) && len && name[0];
}

/* Established, everything sent was acknowledged, and what came last was an answer. */
static bool is_idle(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int queued = -1;

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	       info.tcpi_state == STATE_ESTABLISHED && !info.tcpi_unacked &&
	       !ioctl(fd, SIOCOUTQ, &queued) && !queued &&
	       info.tcpi_last_data_recv <= info.tcpi_last_data_sent;
}

static bool fits(const struct adoption *a, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_NONBLOCK) && !was_accepted(&a->listened, fd) &&
	       !has_ulp(fd) && option(fd, SOL_SOCKET, SO_ZEROCOPY) != 1 && is_idle(fd);
}

static bool enter(const struct adoption *a, int fd)
{
	struct injection state = { .phase = INJECTION_ADOPTED };
	socklen_t len = sizeof(state.socket);
	uint64_t value = (uint64_t)fd;

	/* Who has a state already is in the table, or has left it for good. */
	return !getsockopt(fd, SOL_SOCKET, SO_COOKIE, &state.socket, &len) &&
	       !bpf_map_update_elem(a->injections, &fd, &state, BPF_NOEXIST) &&
	       !bpf_map_update_elem(a->sockets, &state.socket, &value, BPF_NOEXIST);
}

/* Takes one descriptor of the process to us, when it is TCP. */
static void look_at(struct adoption *a, int theirs)
{
	int fd = (int)syscall(SYS_pidfd_getfd, a->pidfd, theirs, 0);

	if (fd < 0)
		return;
	if (is_tcp(fd)) {
		if (option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1) {
			a->fds[a->count++] = fd;
			return;
		}
		listens(&a->listened, fd);
	}
	close(fd);
}

static void look_at_all(struct adoption *a, uint32_t pid)
{
	char path[64], target[16];
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%u/fd", pid);
	dir = opendir(path);
	while (dir && a->count < ADOPT_MAX && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target));

		if (n > 7 && memcmp(target, "socket:", 7) == 0)
			look_at(a, atoi(e->d_name));
	}
	if (dir)
		closedir(dir);
}

int sockets_adopt(int sockets, int injections, uint32_t pid)
{
	struct adoption *a = calloc(1, sizeof(*a));
	int entered = 0;
	size_t i;

	if (!a)
		return -ENOMEM;
	a->sockets = sockets;
	a->injections = injections;
	a->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	if (a->pidfd < 0) {
		entered = errno == ENOSYS ? -EOPNOTSUPP : -errno;
		free(a);
		return entered;
	}
	look_at_all(a, pid);
	for (i = 0; i < a->count; i++) {
		entered += fits(a, a->fds[i]) && enter(a, a->fds[i]);
		close(a->fds[i]);
	}
	close(a->pidfd);
	free(a);
	return entered;
}
