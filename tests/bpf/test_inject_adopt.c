/*
 * Connections that were open before their process was traced: when they get their first header,
 * which get none, and that nothing is put into what only looks like a request.
 */
#include <fcntl.h>

#include "peer.h"
#include "propagate.h"

#define HEADER "traceparent: 00-"

/* How long a held answer takes to arrive. */
enum { SETTLE_MS = 30 };

static const char GET[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

static bool asks_times(int fd, int n)
{
	while (n && client_asks(fd, GET))
		n--;
	return !n;
}

static int asks_idle(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK), fresh = client_connect(arg, SOCK_NONBLOCK);
	int blocking = client_connect(arg, 0);

	if (!client_asks(fd, GET))
		return 1;
	child_says();
	return asks_times(fd, 3) && client_sends(fresh, GET) && client_sends(blocking, GET) ? 0 : 2;
}

static void check_idle(struct watch *w)
{
	struct peer *p = peer_start(TCP4);
	struct child c = child_make(asks_idle, p);
	int adopted;

	check_scene = "idle";
	propagate_reset(w);
	child_go(&c);
	CHECK(child_wait(&c));
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	adopted = probe_adopt(w->probe, (uint32_t)c.pid);
	CHECK_SAY(adopted >= 1, "%d", adopted);
	CHECK(probe_adopt(w->probe, (uint32_t)c.pid) == 0); /* once is enough */
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	/* The first request that is seen tells where the second one begins. */
	CHECK_SAY(times(p, HEADER) == 2, "%s", p->bytes);
	peer_end(p);
}

/* --- within a message ------------------------------------------------------------------------- */

/* The head of a request whose body of `length` bytes waits for an interim answer, which comes. */
static bool begins_body(int fd, size_t length)
{
	char head[128];

	snprintf(head, sizeof(head),
		 "POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %04zu\r\n\r\n",
		 length);
	return client_asks(fd, head);
}

static void holds(struct peer *p, bool on)
{
	__atomic_store_n(&p->holds, on, __ATOMIC_RELEASE);
}

/* A body that is a whole head. */
static int sends_piece(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK);

	if (!begins_body(fd, sizeof(GET) - 1))
		return 1;
	child_says();
	return asks_times(fd, 3) ? 0 : 2;
}

/* Pieces of a body, each a whole head, which are answered when all have been sent. The peer reads
 * those behind the first at once. */
static bool sends_unanswered(struct peer *p, int fd, int n)
{
	int i;

	holds(p, true);
	for (i = 0; i < n; i++) {
		if (!client_sends(fd, GET))
			return false;
		sleep_ms(SETTLE_MS);
	}
	holds(p, false);
	return client_reads(fd) && client_reads(fd);
}

static int sends_pieces(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK);

	if (!begins_body(fd, 3 * (sizeof(GET) - 1)))
		return 1;
	child_says();
	return sends_unanswered(arg, fd, 3) && asks_times(fd, 2) ? 0 : 2;
}

/* Something is received within what seems to be a message of two pieces, nothing behind it. */
static int sends_answered(void *arg)
{
	static const char piece[] = "POST /q HTTP/1.1\r\nContent-Length: 0028\r\n\r\n";
	struct peer *p = arg;
	int fd = client_connect(p, SOCK_NONBLOCK);

	if (!begins_body(fd, sizeof(piece) - 1 + 2 * (sizeof(GET) - 1)))
		return 1;
	child_says();
	return client_asks(fd, piece) && sends_unanswered(p, fd, 2) && asks_times(fd, 2) ? 0 : 2;
}

/* The body seems to be a head, whose body the next head just fills; that one's body follows. */
static int sends_twice(void *arg)
{
	static const char piece[] = "POST /q HTTP/1.1\r\nContent-Length: 0064\r\n\r\n";
	int fd = client_connect(arg, SOCK_NONBLOCK);

	if (!begins_body(fd, sizeof(piece) - 1))
		return 1;
	child_says();
	return client_asks(fd, piece) && begins_body(fd, sizeof(GET) - 1) && asks_times(fd, 3) ? 0
											       : 2;
}

/* A request is on the way, and the connection has more than one descriptor. */
static int is_busy(void *arg)
{
	struct peer *p = arg;
	int fd = client_connect(p, SOCK_NONBLOCK);

	if (!client_asks(fd, GET))
		return 1;
	holds(p, true);
	if (!client_sends(fd, GET) || dup(fd) < 0)
		return 2;
	child_says();
	holds(p, false);
	return client_reads(fd) && asks_times(fd, 3) ? 0 : 3;
}

/* Of what it sends, `plain` are a GET without a header and `headers` have one. */
static void check_within(struct watch *w, const char *scene, int (*run)(void *arg), size_t plain,
			 size_t headers)
{
	struct peer *p = peer_start(TCP4);
	struct child c = child_make(run, p);

	check_scene = scene;
	propagate_reset(w);
	child_go(&c);
	CHECK(child_wait(&c));
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_adopt(w->probe, (uint32_t)c.pid) == 1);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(p, GET) == plain && times(p, HEADER) == headers, "%s", p->bytes);
	peer_end(p);
}

/* --- left out for what is known of the peer --------------------------------------------------- */

/* Blocking sockets don't enter the table as they connect, so the kernel side has decided that this
 * one stays out, though nothing shows that any more. */
static int connects_refused(const struct peer *p)
{
	int fd = client_connect(p, 0);

	return fcntl(fd, F_SETFL, O_NONBLOCK) ? -1 : fd;
}

struct earlier {
	struct peer *peer;
	bool blocks;
};

/* A connection to the same peer came before, which waited in its receives or not. */
static int blocked_earlier(void *arg)
{
	const struct earlier *e = arg;
	int other = client_connect(e->peer, SOCK_NONBLOCK), fd;

	if ((e->blocks && fcntl(other, F_SETFL, 0)) || !client_asks(other, GET))
		return 1;
	close(other);
	fd = connects_refused(e->peer);
	if (!client_asks(fd, GET))
		return 2;
	child_says();
	return asks_times(fd, 3) ? 0 : 3;
}

static void check_avoided(struct watch *w, bool blocks)
{
	struct earlier e = { peer_start(TCP4), blocks };
	struct child c = child_make(blocked_earlier, &e);
	size_t before;
	int adopted;

	check_scene = blocks ? "avoided" : "not avoided";
	propagate_reset(w);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	CHECK(child_wait(&c));
	before = times(e.peer, HEADER);
	adopted = probe_adopt(w->probe, (uint32_t)c.pid);
	CHECK_SAY(adopted == 1, "%d", adopted);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(e.peer, HEADER) == before + 2 * !blocks, "%s", e.peer->bytes);
	peer_end(e.peer);
}

int main(int argc, char **argv)
{
	struct watch w;

	(void)argc;
	run_as_curl(argv);
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	check_idle(&w);
	check_within(&w, "a piece", sends_piece, 1, 2);
	check_within(&w, "pieces", sends_pieces, 4, 1);
	check_within(&w, "pieces, answered", sends_answered, 3, 1);
	check_within(&w, "twice", sends_twice, 1, 2);
	check_within(&w, "busy", is_busy, 3, 2);
	check_avoided(&w, false);
	/* The syscall collector isn't told whether a receive waits. */
	if (strcmp(probe_collector_name(w.probe), "syscall") != 0)
		check_avoided(&w, true);
	watch_close(&w);
	return check_result();
}
