/*
 * Adoption: each socket of the process is looked at through a descriptor of our own (pidfd_getfd),
 * which is the same open file. Only connections that the process made, that don't block and have
 * nothing on the way go into the table; there the kernel side believes a request only behind an
 * answer. It changes nothing of a socket but that.
 */
#include "probe/inject_adopt.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "injection.h"
#include "probe/process_sockets.h"

enum { ADOPT_MAX = 4096, LISTENED_MAX = 64, STATE_ESTABLISHED = 1 };

/* The ports on which the process listens: a connection at one of them was accepted. */
struct listened {
	uint16_t ports[LISTENED_MAX];
	size_t count;
	bool more; /* than are kept */
};

struct adoption {
	int sockets, injections;
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

/* Its own port, 0: not known. It lies where it is in both families. */
static uint16_t own_port(int fd)
{
	struct sockaddr_in6 at = { 0 };
	socklen_t len = sizeof(at);

	return getsockname(fd, (struct sockaddr *)&at, &len) ? 0 : at.sin6_port;
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

static void look_at(void *ctx, int fd)
{
	struct adoption *a = ctx;

	if (option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1 && a->count < ADOPT_MAX) {
		a->fds[a->count++] = fd;
		return;
	}
	if (option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1)
		listens(&a->listened, fd);
	close(fd);
}

int sockets_adopt(int sockets, int injections, uint32_t pid)
{
	struct adoption *a = calloc(1, sizeof(*a));
	int entered = 0, err;
	size_t i;

	if (!a)
		return -ENOMEM;
	a->sockets = sockets;
	a->injections = injections;
	err = process_sockets(pid, look_at, a);
	for (i = 0; i < a->count; i++) {
		entered += fits(a, a->fds[i]) && enter(a, a->fds[i]);
		close(a->fds[i]);
	}
	free(a);
	return err ? err : entered;
}
