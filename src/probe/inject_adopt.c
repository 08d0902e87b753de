/*
 * Adoption: each socket of the process is looked at through a descriptor of our own (pidfd_getfd),
 * which is the same open file, one at a time and for as short as can be, since a close() by the
 * process has no effect meanwhile. Only connections that the process made, that don't block and
 * have nothing on the way go into the table; there the kernel side believes a request only behind
 * one that it could follow and an answer. Those that were busy are remembered by their cookies and
 * looked at again, under the same numbers. It changes nothing of a socket but that.
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
	BUSY_MAX = 4096, /* of one process */
	WAITING_MAX = INJECTION_SOCKETS_MAX,
	LOOKS_MAX = 12, /* with the first one: half a minute */
	LISTENED_MAX = 64,
};

/* net/tcp_states.h */
enum { STATE_ESTABLISHED = 1, STATE_SYN_SENT = 2 };

/* The ports on which the process listens: a connection at one of them was accepted. */
struct listened {
	uint16_t ports[LISTENED_MAX];
	size_t count;
	bool more; /* than are kept */
};

/* A connection that was busy whenever it was looked at. */
struct busy {
	uint64_t cookie;
	int number; /* of its descriptor in the process */
};

/* Those of a process. */
struct waiting {
	struct waiting *next;
	uint32_t pid;
	unsigned int looks;
	uint64_t due_ns;
	size_t count;
	struct busy busy[];
};

struct adopter {
	int sockets, injections, avoided;
	struct waiting *waiting;
	size_t count;    /* of all that wait */
	uint64_t due_ns; /* no later than the earliest one's; UINT64_MAX: none waits */
};

/* The first look at a process. */
struct look {
	const struct adopter *a;
	uint32_t pid;
	int entered;
	struct busy busy[BUSY_MAX]; /* each once */
	size_t count, more;         /* `more` had no room */
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

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len))
		return ACTIVITY_OVER;
	if (info.tcpi_state == STATE_SYN_SENT)
		return ACTIVITY_BUSY;
	if (info.tcpi_state != STATE_ESTABLISHED)
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

/* As bpf/avoided.bpf.h has it. */
static bool is_avoided(const struct adopter *a, uint32_t pid, int fd)
{
	struct avoided_peer peer = { .pid = pid };
	struct sockaddr_in6 at = { 0 };
	socklen_t len = sizeof(at);
	uint8_t one;

	if (a->avoided < 0)
		return false;
	if (getpeername(fd, (struct sockaddr *)&at, &len))
		return true;
	peer.port = at.sin6_port;
	if (at.sin6_family == AF_INET)
		memcpy(peer.address, &((struct sockaddr_in *)&at)->sin_addr, 4);
	else
		memcpy(peer.address, &at.sin6_addr, sizeof(peer.address));
	return !bpf_map_lookup_elem(a->avoided, &peer, &one);
}

/* 0: not known. */
static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) ? 0 : cookie;
}

/* May it go into the table, and when? */
static enum activity decide(const struct adopter *a, uint32_t pid, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	enum activity now;

	if (flags < 0 || !(flags & O_NONBLOCK) || has_ulp(fd) ||
	    option(fd, SOL_SOCKET, SO_ZEROCOPY) == 1 || was_decided(a, fd))
		return ACTIVITY_OVER;
	now = activity(fd);
	/* While it is connecting its peer has no name. */
	return now == ACTIVITY_IDLE && is_avoided(a, pid, fd) ? ACTIVITY_OVER : now;
}

static bool enter(const struct adopter *a, int fd, uint64_t cookie)
{
	struct injection state = { .phase = INJECTION_ADOPTED, .socket = cookie };
	uint64_t value = (uint64_t)fd;

	return !bpf_map_update_elem(a->injections, &fd, &state, BPF_NOEXIST) &&
	       !bpf_map_update_elem(a->sockets, &cookie, &value, BPF_NOEXIST);
}

/* --- the first look --------------------------------------------------------------------------- */

static bool is_listener(int fd)
{
	return option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
}

static void look_for_listener(void *ctx, int number, int fd)
{
	struct look *l = ctx;

	(void)number;
	if (is_listener(fd))
		listens(&l->listened, fd);
	close(fd);
}

/* Several descriptors may be of the same connection. */
static void add_busy(struct look *l, uint64_t cookie, int number)
{
	size_t i;

	for (i = 0; i < l->count; i++) {
		if (l->busy[i].cookie == cookie)
			return;
	}
	if (l->count == BUSY_MAX)
		l->more++;
	else
		l->busy[l->count++] = (struct busy){ cookie, number };
}

static void look_at(void *ctx, int number, int fd)
{
	struct look *l = ctx;
	uint64_t cookie = cookie_of(fd);
	enum activity now = ACTIVITY_OVER;

	if (cookie && !is_listener(fd) && !was_accepted(&l->listened, fd))
		now = decide(l->a, l->pid, fd);
	if (now == ACTIVITY_IDLE)
		l->entered += enter(l->a, fd, cookie);
	close(fd);
	if (now == ACTIVITY_BUSY)
		add_busy(l, cookie, number);
}

/* --- who waits -------------------------------------------------------------------------------- */

struct adopter *adopter_new(int sockets, int injections, int avoided)
{
	struct adopter *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->sockets = sockets;
	a->injections = injections;
	a->avoided = avoided;
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
static void wait_for(struct adopter *a, const struct look *l, uint64_t now_ns)
{
	size_t room = WAITING_MAX - a->count, n = l->count < room ? l->count : room;
	struct waiting *w = n ? malloc(sizeof(*w) + n * sizeof(w->busy[0])) : NULL;
	size_t out = l->count + l->more - (w ? n : 0);

	if (out)
		log_debug("process %u: %zu open connections are busy and get no headers: no room",
			  l->pid, out);
	if (!w)
		return;
	*w = (struct waiting){ .next = a->waiting,
			       .pid = l->pid,
			       .looks = 1,
			       .due_ns = now_ns + PAUSE_FIRST_NS,
			       .count = n };
	memcpy(w->busy, l->busy, n * sizeof(w->busy[0]));
	a->waiting = w;
	a->count += n;
	set_due(a);
}

int adopter_begin(struct adopter *a, uint32_t pid, uint64_t now_ns)
{
	struct look *l = calloc(1, sizeof(*l));
	int err, entered;

	if (!l)
		return -ENOMEM;
	l->a = a;
	l->pid = pid;
	adopter_forget(a, pid);
	err = process_sockets(pid, look_for_listener, l);
	if (!err)
		err = process_sockets(pid, look_at, l);
	wait_for(a, l, now_ns);
	entered = l->entered;
	free(l);
	return err ? err : entered;
}

/* --- later looks ------------------------------------------------------------------------------ */

/* Busy: it goes on waiting, also where it can't be looked at just now. */
static enum activity look_again(const struct adopter *a, uint32_t pid, int handle,
				const struct busy *b, int *entered)
{
	int fd = process_descriptor(handle, b->number);
	enum activity now = ACTIVITY_OVER;

	if (fd < 0)
		return fd == -EBADF || fd == -ESRCH ? ACTIVITY_OVER : ACTIVITY_BUSY;
	/* The number may be another file's by now. */
	if (cookie_of(fd) == b->cookie)
		now = decide(a, pid, fd);
	if (now == ACTIVITY_IDLE)
		*entered += enter(a, fd, b->cookie);
	close(fd);
	return now;
}

/* Keeps those that are still busy. Returns how many went into the table. */
static int look_at_waiting(struct adopter *a, struct waiting *w)
{
	int entered = 0, handle = process_handle(w->pid);
	size_t i, kept = 0;

	if (handle < 0 && handle != -ESRCH)
		return 0;
	for (i = 0; handle >= 0 && i < w->count; i++) {
		if (look_again(a, w->pid, handle, &w->busy[i], &entered) == ACTIVITY_BUSY)
			w->busy[kept++] = w->busy[i];
	}
	if (handle >= 0)
		close(handle);
	a->count -= w->count - kept;
	w->count = kept;
	return entered;
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
	struct waiting *w = *find(a, pid);
	uint64_t pause;
	int entered;

	if (!w)
		return;
	entered = look_at_waiting(a, w);
	if (entered)
		log_debug("process %u: %d more open connections are taken over, which were busy",
			  pid, entered);
	pause = PAUSE_FIRST_NS << w->looks;
	w->due_ns = now_ns + (pause < PAUSE_MAX_NS ? pause : PAUSE_MAX_NS);
	if (w->count && ++w->looks < LOOKS_MAX) {
		set_due(a);
		return;
	}
	if (w->count)
		log_debug("process %u: %zu connections were busy at every look and get no headers",
			  pid, w->count);
	adopter_forget(a, pid);
}
