/*
 * Adoption: each socket of the process is looked at through a descriptor of our own (pidfd_getfd),
 * which is the same open file, one at a time and as shortly as can be, since a close() by the
 * process has no effect meanwhile. Connections that the process made and that don't block go into
 * the table, in whatever state their messages are; there the kernel side believes a request only
 * behind one that it could follow and an answer. It changes nothing of a socket but that.
 */
#include "probe/inject_adopt.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "injection.h"
#include "probe/process_sockets.h"

enum { LISTENED_MAX = 64, STATE_ESTABLISHED = 1 };

/* The ports on which the process listens: a connection at one of them was accepted. */
struct listened {
	uint16_t ports[LISTENED_MAX];
	size_t count;
	bool more; /* than are kept */
};

struct adoption {
	int sockets, injections;
	int entered;
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

static bool is_established(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	       info.tcpi_state == STATE_ESTABLISHED;
}

static bool is_listener(int fd)
{
	return option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
}

static bool fits(const struct adoption *a, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_NONBLOCK) && is_established(fd) &&
	       !was_accepted(&a->listened, fd) && !has_ulp(fd) &&
	       option(fd, SOL_SOCKET, SO_ZEROCOPY) != 1;
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

static void look_for_listener(void *ctx, int fd)
{
	struct adoption *a = ctx;

	if (is_listener(fd))
		listens(&a->listened, fd);
	close(fd);
}

static void look_for_connection(void *ctx, int fd)
{
	struct adoption *a = ctx;

	a->entered += fits(a, fd) && enter(a, fd);
	close(fd);
}

int sockets_adopt(int sockets, int injections, uint32_t pid)
{
	struct adoption a = { .sockets = sockets, .injections = injections };
	int err = process_sockets(pid, look_for_listener, &a);

	if (!err)
		err = process_sockets(pid, look_for_connection, &a);
	return err ? err : a.entered;
}
