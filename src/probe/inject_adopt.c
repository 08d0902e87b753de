/*
 * Adoption: each socket of the process is looked at through a descriptor of our own (pidfd_getfd),
 * which is the same open file. Only connections that the process made, that don't block and have
 * nothing on the way go into the table; there the kernel side believes a request only behind an
 * answer. Those that were busy are remembered by their cookies, since a descriptor that is kept
 * would keep a connection open, and looked at again. It changes nothing of a socket but that.
 * Invariant: a connection that the first look did not find never comes in.
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

#include "base/log.h"
#include "injection.h"
#include "probe/process_sockets.h"

#define PAUSE_FIRST_NS 100000000ull /* behind the first look; then twice as long each time */
#define PAUSE_MAX_NS 5000000000ull

enum {
	ADOPT_MAX = 4096, /* sockets of one process */
	WAITING_MAX = INJECTION_SOCKETS_MAX,
	LOOKS_MAX = 12, /* with the first one: half a minute */
	LISTENED_MAX = 64,
	STATE_ESTABLISHED = 1,
};

/* The ports on which the process listens: a connection at one of them was accepted. */
struct listened {
	uint16_t ports[LISTENED_MAX];
	size_t count;
	bool more; /* than are kept */
};

/* The connections of a process that were busy whenever they were looked at. */
struct waiting {
	struct waiting *next;
	uint32_t pid;
	unsigned int looks;
	uint64_t due_ns;
	size_t count;
	uint64_t cookies[];
};

struct adopter {
	int sockets, injections;
	struct waiting *waiting;
	size_t count;    /* of all cookies */
	uint64_t due_ns; /* no later than the earliest one's; UINT64_MAX: none waits */
};

/* One look at a process. */
struct look {
	const struct waiting *only; /* these connections; NULL: all */
	int fds[ADOPT_MAX];         /* ours */
	size_t count;
	uint64_t busy[ADOPT_MAX]; /* the cookies of those that fit but for that, each once */
	size_t busy_count;
	struct listened listened;
};

enum activity { ACTIVITY_OVER, ACTIVITY_BUSY, ACTIVITY_IDLE };

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

/* Idle: everything sent was acknowledged, and what came last was an answer. */
static enum activity activity(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int queued = -1;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
	    info.tcpi_state != STATE_ESTABLISHED)
		return ACTIVITY_OVER;
	if (info.tcpi_unacked || ioctl(fd, SIOCOUTQ, &queued) || queued ||
	    info.tcpi_last_data_recv > info.tcpi_last_data_sent)
		return ACTIVITY_BUSY;
	return ACTIVITY_IDLE;
}

/* Who has a state already is in the table, or has left it for good. */
static bool was_decided(const struct adopter *a, int fd)
{
	struct injection state;

	return !bpf_map_lookup_elem(a->injections, &fd, &state);
}

static bool fits(const struct adopter *a, const struct look *l, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_NONBLOCK) && !was_accepted(&l->listened, fd) &&
	       !has_ulp(fd) && option(fd, SOL_SOCKET, SO_ZEROCOPY) != 1 && !was_decided(a, fd);
}

/* 0: not known. */
static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) ? 0 : cookie;
}

static bool enter(const struct adopter *a, int fd, uint64_t cookie)
{
	struct injection state = { .phase = INJECTION_ADOPTED, .socket = cookie };
	uint64_t value = (uint64_t)fd;

	return !bpf_map_update_elem(a->injections, &fd, &state, BPF_NOEXIST) &&
	       !bpf_map_update_elem(a->sockets, &cookie, &value, BPF_NOEXIST);
}

/* --- one look --------------------------------------------------------------------------------- */

static bool is_meant(const struct look *l, int fd)
{
	uint64_t cookie = l->only ? cookie_of(fd) : 0;
	size_t i;

	for (i = 0; l->only && i < l->only->count; i++) {
		if (l->only->cookies[i] == cookie)
			return true;
	}
	return !l->only;
}

static void look_at(void *ctx, int fd)
{
	bool listener = option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
	struct look *l = ctx;

	if (!listener && l->count < ADOPT_MAX && is_meant(l, fd)) {
		l->fds[l->count++] = fd;
		return;
	}
	if (listener)
		listens(&l->listened, fd);
	close(fd);
}

/* Several descriptors may be of the same connection. */
static void add_busy(struct look *l, uint64_t cookie)
{
	size_t i;

	for (i = 0; i < l->busy_count; i++) {
		if (l->busy[i] == cookie)
			return;
	}
	l->busy[l->busy_count++] = cookie;
}

/* Takes over what can be. Returns how many, or -errno. */
static int look(const struct adopter *a, uint32_t pid, struct look *l)
{
	int entered = 0, err = process_sockets(pid, look_at, l);
	size_t i;

	for (i = 0; i < l->count; i++) {
		int fd = l->fds[i];
		enum activity now = fits(a, l, fd) ? activity(fd) : ACTIVITY_OVER;
		uint64_t cookie = now == ACTIVITY_OVER ? 0 : cookie_of(fd);

		if (cookie && now == ACTIVITY_IDLE)
			entered += enter(a, fd, cookie);
		else if (cookie)
			add_busy(l, cookie);
		close(fd);
	}
	return err ? err : entered;
}

/* --- who waits -------------------------------------------------------------------------------- */

struct adopter *adopter_new(int sockets, int injections)
{
	struct adopter *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->sockets = sockets;
	a->injections = injections;
	a->due_ns = UINT64_MAX;
	return a;
}

void adopter_free(struct adopter *a)
{
	while (a && a->waiting)
		adopter_forget(a, a->waiting->pid);
	free(a);
}

/* The link to its entry; to NULL where there is none. */
static struct waiting **find(struct adopter *a, uint32_t pid)
{
	struct waiting **at = &a->waiting;

	while (*at && (*at)->pid != pid)
		at = &(*at)->next;
	return at;
}

static void set_due(struct adopter *a)
{
	const struct waiting *w;

	a->due_ns = UINT64_MAX;
	for (w = a->waiting; w; w = w->next) {
		if (w->due_ns < a->due_ns)
			a->due_ns = w->due_ns;
	}
}

void adopter_forget(struct adopter *a, uint32_t pid)
{
	struct waiting **at = find(a, pid), *w = *at;

	if (!w)
		return;
	*at = w->next;
	a->count -= w->count;
	free(w);
	set_due(a);
}

/* Of those that were busy, as many as there is room for. */
static void wait_for(struct adopter *a, uint32_t pid, const struct look *l, uint64_t now_ns)
{
	size_t room = WAITING_MAX - a->count, n = l->busy_count < room ? l->busy_count : room;
	struct waiting *w = n ? malloc(sizeof(*w) + n * sizeof(w->cookies[0])) : NULL;

	if (l->busy_count > n || (n && !w))
		log_debug("process %u: %zu open connections are busy and get no headers: no room",
			  pid, w ? l->busy_count - n : l->busy_count);
	if (!w)
		return;
	*w = (struct waiting){ .next = a->waiting,
			       .pid = pid,
			       .looks = 1,
			       .due_ns = now_ns + PAUSE_FIRST_NS,
			       .count = n };
	memcpy(w->cookies, l->busy, n * sizeof(w->cookies[0]));
	a->waiting = w;
	a->count += n;
	set_due(a);
}

/* Those that are still busy go on waiting, but not for ever. */
static void wait_on(struct adopter *a, struct waiting *w, const struct look *l, uint64_t now_ns)
{
	uint64_t pause = PAUSE_FIRST_NS << w->looks;

	a->count -= w->count - l->busy_count;
	w->count = l->busy_count;
	memcpy(w->cookies, l->busy, w->count * sizeof(w->cookies[0]));
	w->due_ns = now_ns + (pause < PAUSE_MAX_NS ? pause : PAUSE_MAX_NS);
	if (++w->looks < LOOKS_MAX && w->count) {
		set_due(a);
		return;
	}
	if (w->count)
		log_debug("process %u: %zu connections were busy at every look and get no headers",
			  w->pid, w->count);
	adopter_forget(a, w->pid);
}

int adopter_begin(struct adopter *a, uint32_t pid, uint64_t now_ns)
{
	struct look *l = calloc(1, sizeof(*l));
	int n;

	if (!l)
		return -ENOMEM;
	adopter_forget(a, pid);
	n = look(a, pid, l);
	wait_for(a, pid, l, now_ns);
	free(l);
	return n;
}

uint32_t adopter_due(const struct adopter *a, uint64_t now_ns)
{
	const struct waiting *w, *first = a->waiting;

	if (now_ns < a->due_ns)
		return 0;
	for (w = first; w; w = w->next) {
		if (w->due_ns < first->due_ns)
			first = w;
	}
	return first ? first->pid : 0;
}

void adopter_again(struct adopter *a, uint32_t pid, uint64_t now_ns)
{
	struct look *l = calloc(1, sizeof(*l));
	struct waiting *w = *find(a, pid);
	int n;

	if (!l || !w) {
		adopter_forget(a, pid);
		free(l);
		return;
	}
	l->only = w;
	n = look(a, pid, l);
	if (n > 0)
		log_debug("process %u: %d more open connections are taken over, which were busy",
			  pid, n);
	wait_on(a, w, l, now_ns);
	free(l);
}
