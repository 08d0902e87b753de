/*
 * Sockets for the BPF tests: loopback and unix only. It refuses any other address.
 */
#ifndef TESTS_BPF_SOCKETS_H
#define TESTS_BPF_SOCKETS_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum family { TCP4, TCP6, TCP4_MAPPED, UNIX_STREAM, FAMILIES };

static const char *const family_names[] = { "IPv4", "IPv6", "IPv4-mapped", "unix" };

struct address {
	struct sockaddr_storage at;
	socklen_t len;
};

/* Loopback and `port` (0: the kernel picks one), or an abstract name that the kernel picks. */
static inline struct address address_make(enum family family, uint16_t port)
{
	struct address a = { .len = sizeof(struct sockaddr_in6) };
	struct sockaddr_in *in = (struct sockaddr_in *)&a.at;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&a.at;

	switch (family) {
	case TCP4:
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		a.len = sizeof(*in);
		break;
	case UNIX_STREAM:
		a.at.ss_family = AF_UNIX;
		a.len = sizeof(sa_family_t);
		break;
	default:
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		if (family == TCP6)
			in6->sin6_addr = in6addr_loopback;
		else
			inet_pton(AF_INET6, "::ffff:127.0.0.1", &in6->sin6_addr);
	}
	return a;
}

/* A unix address of `len` bytes, which begin with NUL when it is abstract. */
static inline struct address address_unix(const void *name, size_t len)
{
	struct address a = { .len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len) };

	a.at.ss_family = AF_UNIX;
	memcpy(((struct sockaddr_un *)&a.at)->sun_path, name, len);
	return a;
}

static inline uint16_t address_port(const struct address *a)
{
	return ntohs(((const struct sockaddr_in *)&a->at)->sin_port);
}

/* A listener at *a, which becomes its real address; -1 with errno. */
static inline int socket_listen(struct address *a, int backlog)
{
	int fd = socket(a->at.ss_family, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a->at, a->len) || listen(fd, backlog))
		return -1;
	a->len = sizeof(a->at);
	return getsockname(fd, (struct sockaddr *)&a->at, &a->len) ? -1 : fd;
}

/* 0, or -errno; the socket is *ret_fd either way. */
static inline int socket_connect(const struct address *a, int type, int *ret_fd)
{
	*ret_fd = socket(a->at.ss_family, SOCK_STREAM | type, 0);
	return connect(*ret_fd, (const struct sockaddr *)&a->at, a->len) ? -errno : 0;
}

/* A connection through a listener at *a: client, server. 0, or -errno. */
static inline int socket_pair(struct address *a, int fds[2])
{
	int listener = socket_listen(a, 1), err;

	fds[0] = fds[1] = -1;

	if (listener < 0)
		return -errno;
	err = socket_connect(a, 0, &fds[0]);
	fds[1] = err ? -1 : accept(listener, NULL, NULL);
	close(listener);
	return err;
}

/* Moves `len` bytes of nothing. */
static inline int socket_move(int from, int to, size_t len)
{
	char buf[512] = "";

	return len <= sizeof(buf) && write(from, buf, len) == (ssize_t)len &&
			       recv(to, buf, len, MSG_WAITALL) == (ssize_t)len
		       ? 0
		       : -1;
}

#endif
