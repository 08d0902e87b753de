/*
 * Connection attempts that fail, each told once with its error, its peer, its times and who made
 * it; and those that succeed or are under way, which are not told. Only loopback: what needs a
 * network without routes or without free ports gets a network namespace of its own.
 */
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "sockets.h"
#include "watch.h"

/* A lookup without a route is told when it is clear that nothing came of it: src/probe/routes.c. */
enum { ATTEMPTS_MAX = 16, LOOKUP_MS = 100 };

/* Shared with the child. */
struct attempt {
	enum family family;
	struct address to;
	int type;         /* SOCK_NONBLOCK or 0 */
	int error;        /* of connect(), or told later; 0: none */
	bool close_early; /* while it is under way */
	uint64_t begin_ns, end_ns;
};

enum told { TOLD_EXACTLY, TOLD_UNKNOWN, TOLD_NOT };

struct attempts {
	/* With the sock collector, which sees no system call: whether its errors are told at all,
	 * or only that it failed. */
	enum told sock;
	int (*prepare)(struct attempts *all); /* in the child; may add attempts */
	uint32_t count;
	int kept[ATTEMPTS_MAX];
	struct attempt list[ATTEMPTS_MAX];
};

static struct attempt *attempt_add(struct attempts *all, enum family family, struct address to,
				   int type, int error)
{
	struct attempt *a = &all->list[all->count++];

	a->family = family;
	a->to = to;
	a->type = type;
	a->error = error;
	return a;
}

/* --- in the child ----------------------------------------------------------------------------- */

static int attempts_run(void *arg)
{
	struct attempts *all = arg;
	uint32_t i;

	if (all->prepare && all->prepare(all))
		return 1;
	for (i = 0; i < all->count; i++) {
		struct attempt *a = &all->list[i];
		struct pollfd p = { .events = POLLOUT };
		int err, one = 1;

		p.fd = socket(a->to.at.ss_family, SOCK_STREAM | a->type, 0);
		if (a->to.at.ss_family != AF_UNIX && a->error == -ETIMEDOUT)
			setsockopt(p.fd, IPPROTO_TCP, TCP_SYNCNT, &one, sizeof(one));
		a->begin_ns = now_ns();
		err = connect(p.fd, (struct sockaddr *)&a->to.at, a->to.len) ? -errno : 0;
		if (err == -EINPROGRESS && !a->close_early)
			poll(&p, 1, 5000);
		else if (err == -EINPROGRESS)
			sleep_ms(20);
		if (a->error && err != -EINPROGRESS && err != a->error)
			return 2;
		if (a->error) {
			close(p.fd);
		} else {
			all->kept[i] = p.fd; /* fills the backlog */
		}
		a->end_ns = now_ns();
	}
	return 0;
}

/* A port that was free a moment ago. */
static uint16_t port_unused(enum family family)
{
	struct address a = address_make(family, 0);
	int fd = socket_listen(&a, 1);

	close(fd);
	return address_port(&a);
}

static int file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok ? 0 : -1;
}

/* A network of our own: a loopback interface and nothing else, so no packet can leave it. */
static int network_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK };
	int fd, err;

	if (unshare(CLONE_NEWNET))
		return -1;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	err = ioctl(fd, SIOCSIFFLAGS, &lo);
	close(fd);
	return err;
}

/* Addresses for documentation, to which our network has no route. */
static struct address address_nowhere(enum family family, uint16_t port)
{
	static const char *const texts[] = {
		[TCP4] = "192.0.2.1", [TCP6] = "2001:db8::1", [TCP4_MAPPED] = "::ffff:192.0.2.1"
	};
	struct address a = address_make(family, port);

	if (family == TCP4)
		inet_pton(AF_INET, texts[family], &((struct sockaddr_in *)&a.at)->sin_addr);
	else
		inet_pton(AF_INET6, texts[family], &((struct sockaddr_in6 *)&a.at)->sin6_addr);
	return a;
}

static int network_no_route(struct attempts *all)
{
	if (network_up())
		return -1;
	attempt_add(all, TCP4, address_nowhere(TCP4, 80), 0, -ENETUNREACH);
	attempt_add(all, TCP4, address_nowhere(TCP4, 81), SOCK_NONBLOCK, -ENETUNREACH);
	attempt_add(all, TCP4_MAPPED, address_nowhere(TCP4_MAPPED, 82), 0, -ENETUNREACH);
	attempt_add(all, TCP6, address_nowhere(TCP6, 83), 0, -ENETUNREACH);
	return 0;
}

/* A network with one free port: the second connection to the same place finds none. */
static int network_one_port(struct attempts *all)
{
	struct address a = address_make(TCP4, 40000);

	if (network_up() || socket_listen(&a, 8) < 0 ||
	    file_write("/proc/sys/net/ipv4/ip_local_port_range", "50001 50001"))
		return -1;
	attempt_add(all, TCP4, a, 0, 0);
	attempt_add(all, TCP4, a, 0, -EADDRNOTAVAIL);
	attempt_add(all, TCP4, a, SOCK_NONBLOCK, -EADDRNOTAVAIL);
	return 0;
}

/* A listener that answers no more: its queue is full. */
static struct address listener_full(struct attempts *all)
{
	struct address a = address_make(TCP4, 0);

	if (socket_listen(&a, 0) < 0)
		exit(1);
	attempt_add(all, TCP4, a, 0, 0);
	return a;
}

static int backlog_closed_early(struct attempts *all)
{
	struct address a = listener_full(all);

	attempt_add(all, TCP4, a, SOCK_NONBLOCK, -ECANCELED)->close_early = true;
	return 0;
}

static int backlog_timeout(struct attempts *all)
{
	struct address a = listener_full(all);

	attempt_add(all, TCP4, a, 0, -ETIMEDOUT);
	return 0;
}

/* --- the agent's side ------------------------------------------------------------------------- */

static void check_peer(const struct seen *s, const struct attempt *a)
{
	const struct sockaddr_in6 *in6 = (const void *)&a->to.at;
	const struct sockaddr_in *in = (const void *)&a->to.at;

	if (a->family == UNIX_STREAM) {
		const char *path = ((const struct sockaddr_un *)&a->to.at)->sun_path;

		CHECK(s->conn.family == CONN_UNIX);
		CHECK_SAY(path[0] ? !strcmp(s->conn.path, path)
				  : s->conn.path[0] == '@' && !strcmp(s->conn.path + 1, path + 1),
			  "path '%s'", s->conn.path);
		return;
	}
	CHECK(s->conn.family == (a->family == TCP6 ? CONN_INET6 : CONN_INET));
	if (a->family == TCP4)
		CHECK(!memcmp(s->conn.peer, &in->sin_addr, 4));
	else if (a->family == TCP6)
		CHECK(!memcmp(s->conn.peer, &in6->sin6_addr, 16));
	else
		CHECK(!memcmp(s->conn.peer, &in6->sin6_addr.s6_addr[12], 4));
	CHECK_SAY(s->conn.peer_port == address_port(&a->to), "port %u", s->conn.peer_port);
}

/* What was told of this attempt, by its time. */
static const struct seen *find_failure(const struct watch *w, const struct attempt *a)
{
	const struct seen *s;
	size_t at = 0;

	while ((s = watch_next(w, SEEN_CONNECT_FAILED, 0, &at))) {
		if (a->begin_ns <= s->ts_ns && s->ts_ns <= s->end_ns && s->end_ns <= a->end_ns)
			return s;
	}
	return NULL;
}

static void check_attempts(struct watch *w, const char *scene, struct attempts *all)
{
	bool sock = strcmp(probe_collector_name(w->probe), "sock") == 0;
	enum told told = sock ? all->sock : TOLD_EXACTLY;
	size_t failures = 0;
	uint32_t pid, i;

	check_scene = scene;
	watch_reset(w);
	pid = watch_run(w, attempts_run, all);
	sleep_ms(LOOKUP_MS);
	watch_take(w);
	for (i = 0; i < all->count; i++) {
		const struct attempt *a = &all->list[i];
		int error = told == TOLD_UNKNOWN ? -ERRNO_UNKNOWN : a->error;
		const struct seen *s = find_failure(w, a);

		CHECK_SAY(!s == (!a->error || told == TOLD_NOT), "attempt %u: %stold", i,
			  s ? "" : "not ");
		if (!s)
			continue;
		failures++;
		CHECK_SAY(s->error == error, "attempt %u: error %d, not %d", i, s->error, error);
		CHECK(s->tid == pid && s->pid == pid && (s->conn.flags & CONN_ACTIVE));
		check_peer(s, a);
	}
	CHECK_SAY(watch_count(w, SEEN_CONNECT_FAILED, 0) == failures, "%zu told, %zu were right",
		  watch_count(w, SEEN_CONNECT_FAILED, 0), failures);
	CHECK(!watch_count(w, SEEN_IO, 0));
	munmap(all, sizeof(*all));
}

static void check_prepared(struct watch *w, const char *scene, int (*prepare)(struct attempts *),
			   enum told sock)
{
	struct attempts *all = shared_memory(sizeof(*all));

	all->prepare = prepare;
	all->sock = sock;
	check_attempts(w, scene, all);
}

static void check_refused(struct watch *w)
{
	struct attempts *all = shared_memory(sizeof(*all));
	enum family f;

	for (f = TCP4; f <= TCP4_MAPPED; f++) {
		struct address to = address_make(f, port_unused(f));

		attempt_add(all, f, to, 0, -ECONNREFUSED);
		attempt_add(all, f, to, SOCK_NONBLOCK, -ECONNREFUSED);
	}
	check_attempts(w, "refused", all);
}

static void check_unix(struct watch *w)
{
	struct attempts *all = shared_memory(sizeof(*all));
	char dead[64];
	struct address a;

	all->sock = TOLD_NOT;
	snprintf(dead, sizeof(dead), "/tmp/spanloom-test-dead-%d", (int)getpid());
	a = address_unix(dead, strlen(dead) + 1);
	close(socket_listen(&a, 1));
	attempt_add(all, UNIX_STREAM, a, 0, -ECONNREFUSED);
	attempt_add(all, UNIX_STREAM, address_unix("/nowhere/spanloom", 18), 0, -ENOENT);
	attempt_add(all, UNIX_STREAM, address_unix("/nowhere/spanloom", 18), SOCK_NONBLOCK,
		    -ENOENT);
	attempt_add(all, UNIX_STREAM, address_unix("\0spanloom nobody", 16), 0, -ECONNREFUSED);
	check_attempts(w, "unix", all);
	unlink(dead);
}

static void check_collector(enum probe_collector collector)
{
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_refused(&w);
	check_unix(&w);
	check_prepared(&w, "no route", network_no_route, TOLD_EXACTLY);
	check_prepared(&w, "no free port", network_one_port, TOLD_UNKNOWN);
	check_prepared(&w, "closed before an answer", backlog_closed_early, TOLD_EXACTLY);
	if (collector == PROBE_COLLECTOR_SOCK) /* the same programs in both; it takes 3 s */
		check_prepared(&w, "timed out", backlog_timeout, TOLD_EXACTLY);
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
