/*
 * What must not be seen: processes that aren't traced, the agent itself, whatever isn't a stream
 * socket, and connections that the agent has no use for.
 */
#include <fcntl.h>
#include <linux/netlink.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "sockets.h"
#include "watch.h"

enum { ROUNDS = 10, MOVED = 100 };

/* Records that tell of what a process does with its sockets and threads. */
static size_t told(const struct watch *w)
{
	size_t i, n = 0;

	for (i = 0; i < w->count; i++)
		n += w->seen[i].type != SEEN_EXEC && w->seen[i].type != SEEN_CGROUP &&
		     w->seen[i].type != SEEN_LISTEN;
	return n;
}

static int talk(enum family family)
{
	struct address a = address_make(family, 0), nobody = address_unix("\0nobody", 7);
	int fds[2], fd, i;

	if (socket_pair(&a, fds))
		return 1;
	for (i = 0; i < ROUNDS; i++) {
		if (socket_move(fds[0], fds[1], MOVED) || socket_move(fds[1], fds[0], MOVED))
			return 2;
	}
	close(fds[0]);
	close(fds[1]);
	socket_connect(&nobody, 0, &fd);
	close(fd);
	return 0;
}

static int talk_run(void *arg)
{
	pid_t pid;
	int status = 0;

	(void)arg;
	pid = fork();
	if (!pid)
		_exit(talk(TCP4));
	waitpid(pid, &status, 0);
	return talk(TCP4) || talk(TCP6) || talk(UNIX_STREAM) || status;
}

static void check_untraced(struct watch *w)
{
	struct child c;

	check_scene = "not traced";
	watch_reset(w);
	c = child_make(talk_run, NULL);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(!told(w), "%zu records", told(w));

	check_scene = "the agent itself";
	CHECK(probe_trace(w->probe, (uint32_t)getpid()) == -EINVAL);
	CHECK(talk(TCP4) == 0 && talk(UNIX_STREAM) == 0);
	watch_take(w);
	CHECK_SAY(!told(w), "%zu records", told(w));
}

/* --- what isn't a stream ---------------------------------------------------------------------- */

static int datagrams(int domain, int type)
{
	int fds[2];

	return socketpair(domain, type, 0, fds) || socket_move(fds[0], fds[1], MOVED) ||
	       socket_move(fds[1], fds[0], MOVED);
}

static int udp(void)
{
	struct address a = address_make(TCP4, 0);
	int from = socket(AF_INET, SOCK_DGRAM, 0), to = socket(AF_INET, SOCK_DGRAM, 0);

	a.len = sizeof(a.at);
	if (bind(to, (struct sockaddr *)&a.at, sizeof(struct sockaddr_in)) ||
	    getsockname(to, (struct sockaddr *)&a.at, &a.len) ||
	    connect(from, (struct sockaddr *)&a.at, a.len))
		return 1;
	return socket_move(from, to, MOVED);
}

/* Asks the kernel for its links, and reads the answer. */
static int netlink(void)
{
	struct {
		struct nlmsghdr head;
		uint8_t family[16];
	} ask = { .head = { .nlmsg_len = sizeof(ask),
			    .nlmsg_type = 18, /* RTM_GETLINK */
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP } };
	char answer[16384];
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	return send(fd, &ask, sizeof(ask), 0) != sizeof(ask) ||
	       recv(fd, answer, sizeof(answer), 0) <= 0;
}

static int others_run(void *arg)
{
	uint64_t one = 1;
	char buf[MOVED] = "";
	int fds[2], fd = eventfd(0, 0), file = memfd_create("file", 0);

	(void)arg;
	if (pipe(fds) || write(fds[1], buf, MOVED) != MOVED || read(fds[0], buf, MOVED) != MOVED)
		return 1;
	if (write(fd, &one, sizeof(one)) != sizeof(one) || read(fd, &one, sizeof(one)) != 8)
		return 2;
	if (write(file, buf, MOVED) != MOVED || pread(file, buf, MOVED, 0) != MOVED ||
	    lseek(file, 0, SEEK_SET) || read(file, buf, MOVED) != MOVED)
		return 3;
	if (udp() || netlink())
		return 4;
	/* recv with MSG_WAITALL is fine with whole messages. */
	if (datagrams(AF_UNIX, SOCK_DGRAM) || datagrams(AF_UNIX, SOCK_SEQPACKET))
		return 5;
	/* Descriptors that are none. */
	return read(-1, buf, 1) != -1 || read(100000, buf, 1) != -1 || write(fds[0], buf, 1) != -1;
}

static void check_others(struct watch *w)
{
	uint32_t pid;

	check_scene = "what is no stream socket";
	watch_reset(w);
	pid = watch_run(w, others_run, NULL);
	CHECK_SAY(told(w) == 1 && watch_count(w, SEEN_EXIT, pid) == 1, "%zu records besides",
		  told(w));
}

/* --- ignored ---------------------------------------------------------------------------------- */

static int ignored_run(void *arg)
{
	struct address a = address_make(TCP4, 0), b = address_make(TCP4, 0);
	int one[2], two[2];

	(void)arg;
	if (socket_pair(&a, one) || socket_pair(&b, two) || socket_move(one[0], one[1], MOVED) ||
	    socket_move(two[0], two[1], MOVED))
		return 1;
	child_says();
	if (socket_move(one[0], one[1], MOVED) || socket_move(two[0], two[1], MOVED))
		return 2;
	close(one[0]);
	close(one[1]);
	close(two[0]);
	close(two[1]);
	return talk(TCP4);
}

static void check_ignored(struct watch *w)
{
	struct child c = child_make(ignored_run, NULL);
	const struct seen *s;
	uint64_t ids[4];
	size_t at = 0, i, n = 0, before[2];

	check_scene = "ignored";
	watch_reset(w);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	CHECK(child_wait(&c));
	watch_take(w);
	while ((s = watch_next(w, SEEN_OPEN, 0, &at)) && n < COUNT(ids))
		ids[n++] = s->conn_id;
	CHECK(n == COUNT(ids) && watch_count(w, SEEN_IO, 0) == 4);
	probe_ignore(w->probe, ids[0]);
	probe_ignore(w->probe, ids[1]);
	before[0] = w->count;
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	before[1] = 0;
	for (i = before[0]; i < w->count; i++) {
		s = &w->seen[i];
		CHECK(s->conn_id != ids[0] && s->conn_id != ids[1]);
		before[1] += s->conn_id == ids[2] || s->conn_id == ids[3];
	}
	CHECK_SAY(before[1] == 4, "%zu records of the other connection", before[1]);
	CHECK_SAY(watch_count(w, SEEN_OPEN, 0) == 6, "%zu opened", watch_count(w, SEEN_OPEN, 0));
}

static void check_collector(enum probe_collector collector)
{
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_untraced(&w);
	check_others(&w);
	check_ignored(&w);
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
