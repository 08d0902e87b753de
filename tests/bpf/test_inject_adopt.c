/*
 * Connections that were open before their process was traced: which of them are taken over at once,
 * which later, and which must not be. The time is the test's own.
 */
#include <fcntl.h>

#include "peer.h"
#include "propagate.h"

#define HEADER "traceparent: 00-"
#define MS 1000000ull

/* How long a held answer takes to arrive, and for TCP's clock (4 ms where HZ is 250) to tell what
 * came later. */
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
	adopted = probe_adopt(w->probe, (uint32_t)c.pid, 0);
	CHECK_SAY(adopted >= 1, "%d", adopted);
	CHECK(probe_adopt(w->probe, (uint32_t)c.pid, 0) == 0); /* once is enough */
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	/* The first request that is seen tells only that an answer comes, the second where the
	 * third begins. */
	CHECK_SAY(times(p, HEADER) == 1, "%s", p->bytes);
	peer_end(p);
}

/* --- within a message ------------------------------------------------------------------------- */

struct body {
	struct peer *peer;
	size_t pieces; /* each is a whole head */
};

/* The head of a request whose body waits for the answer, which comes. */
static int begins_body(const struct body *b)
{
	int fd = client_connect(b->peer, SOCK_NONBLOCK);
	char head[128];

	snprintf(head, sizeof(head),
		 "POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
		 b->pieces * (sizeof(GET) - 1));
	return client_asks(fd, head) ? fd : -1;
}

static int sends_piece(void *arg)
{
	int fd = begins_body(arg);

	if (fd < 0)
		return 1;
	child_says();
	return asks_times(fd, 3) ? 0 : 2;
}

/* Something is received behind the first piece as well, nothing behind the second one. */
static int sends_pieces(void *arg)
{
	int fd = begins_body(arg);

	if (fd < 0)
		return 1;
	child_says();
	if (!client_asks(fd, GET) || !client_sends(fd, GET))
		return 2;
	sleep_ms(SETTLE_MS);
	return client_sends(fd, GET) && client_reads(fd) && client_reads(fd) && asks_times(fd, 2)
		       ? 0
		       : 3;
}

/* Adopted while it looks idle, but is within a request. The last one that it sends has a header. */
static void check_within(struct watch *w, const char *scene, int (*run)(void *arg), size_t pieces)
{
	struct body b = { peer_start(TCP4), pieces };
	struct child c = child_make(run, &b);

	check_scene = scene;
	propagate_reset(w);
	child_go(&c);
	CHECK(child_wait(&c));
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_adopt(w->probe, (uint32_t)c.pid, 0) == 1);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(b.peer, GET) == pieces + 1 && times(b.peer, HEADER) == 1, "%s",
		  b.peer->bytes);
	peer_end(b.peer);
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
	adopted = probe_adopt(w->probe, (uint32_t)c.pid, 0);
	CHECK_SAY(adopted == !blocks, "%d", adopted);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(e.peer, HEADER) == before + !blocks, "%s", e.peer->bytes);
	peer_end(e.peer);
}

/* --- busy at the first look ------------------------------------------------------------------- */

struct peers {
	struct peer *busy, *later;
};

static int is_busy(void *arg)
{
	const struct peers *p = arg;
	int fd = client_connect(p->busy, SOCK_NONBLOCK), later, i;

	if (!client_asks(fd, GET))
		return 1;
	child_says();
	sleep_ms(SETTLE_MS);
	if (!client_sends(fd, GET) || dup(fd) < 0)
		return 2;
	child_says();
	later = connects_refused(p->later);
	if (!client_asks(later, GET))
		return 3;
	/* Other descriptors of it, which the first look didn't find, make it no other connection.
	 */
	for (i = 0; i < 64; i++) {
		if (dup(fd) < 0)
			return 5;
	}
	child_says();
	return client_reads(fd) && asks_times(fd, 4) && asks_times(later, 4) ? 0 : 4;
}

static void holds(struct peer *p, bool on)
{
	__atomic_store_n(&p->holds, on, __ATOMIC_RELEASE);
	sleep_ms(SETTLE_MS);
}

/* A traced child that has an answer outstanding, and a connection that is newer. */
static struct child busy_child(struct watch *w, struct peers *p, int (*run)(void *arg))
{
	struct child c;

	propagate_reset(w);
	p->busy = peer_start(TCP4);
	p->later = peer_start(TCP4);
	c = child_make(run, p);
	child_go(&c);
	CHECK(child_wait(&c));
	holds(p->busy, true);
	child_go(&c);
	CHECK(child_wait(&c));
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_adopt(w->probe, (uint32_t)c.pid, 0) == 0);
	child_go(&c);
	CHECK(child_wait(&c));
	return c;
}

static void peers_end(struct peers *p)
{
	peer_end(p->busy);
	peer_end(p->later);
}

static void check_busy(struct watch *w)
{
	struct peers p;
	struct child c;

	check_scene = "busy";
	c = busy_child(w, &p, is_busy);
	probe_tick(w->probe, 100 * MS);
	holds(p.busy, false);
	probe_tick(w->probe, 299 * MS); /* not due */
	probe_tick(w->probe, 300 * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(p.busy, GET) == 4 && times(p.busy, HEADER) == 2, "%s", p.busy->bytes);
	CHECK_SAY(times(p.later, HEADER) == 0, "%s", p.later->bytes);
	peers_end(&p);
}

static void check_not_due(struct watch *w)
{
	struct peers p;
	struct child c;

	check_scene = "not due";
	c = busy_child(w, &p, is_busy);
	probe_tick(w->probe, 100 * MS);
	holds(p.busy, false);
	probe_tick(w->probe, 299 * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK(times(p.busy, HEADER) == 0);
	probe_tick(w->probe, 300 * MS); /* it is gone */
	peers_end(&p);
}

static void check_given_up(struct watch *w)
{
	struct peers p;
	struct child c;
	uint64_t t;

	check_scene = "given up";
	c = busy_child(w, &p, is_busy);
	for (t = 0; t < 35000; t += 50)
		probe_tick(w->probe, t * MS);
	holds(p.busy, false);
	for (; t < 60000; t += 50)
		probe_tick(w->probe, t * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(p.busy, HEADER) == 0, "%s", p.busy->bytes);
	peers_end(&p);
}

/* It reports spans of its own, as turns out while its connections wait. */
static void check_left_out(struct watch *w)
{
	struct peers p;
	struct child c;

	check_scene = "left out";
	c = busy_child(w, &p, is_busy);
	holds(p.busy, false);
	CHECK(probe_set_flags(w->probe, (uint32_t)c.pid, PROBE_APART) == 0);
	probe_tick(w->probe, 100 * MS);
	CHECK(probe_set_flags(w->probe, (uint32_t)c.pid, 0) == 0);
	probe_tick(w->probe, 60000 * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK_SAY(times(p.busy, HEADER) == 0, "%s", p.busy->bytes);
	peers_end(&p);
}

/* The number of the one that was busy is another connection's when it is looked at again. */
static int replaces(void *arg)
{
	struct peers *p = arg;
	int fd = client_connect(p->busy, SOCK_NONBLOCK), other;

	if (!client_asks(fd, GET))
		return 1;
	child_says();
	if (!client_sends(fd, GET))
		return 2;
	child_says();
	other = connects_refused(p->later);
	if (!client_asks(other, GET) || dup2(other, fd) != fd)
		return 3;
	child_says();
	return asks_times(fd, 4) ? 0 : 4;
}

static void check_replaced(struct watch *w)
{
	struct peers p;
	struct child c;

	check_scene = "replaced";
	c = busy_child(w, &p, replaces);
	holds(p.busy, false);
	probe_tick(w->probe, 100 * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK(times(p.busy, HEADER) == 0);
	CHECK_SAY(times(p.later, HEADER) == 0, "%s", p.later->bytes);
	peers_end(&p);
}

/* A look takes no descriptor longer than it lasts: a close takes effect. */
static int closes(void *arg)
{
	struct peers *p = arg;
	int fd = client_connect(p->busy, SOCK_NONBLOCK);

	if (!client_asks(fd, GET))
		return 1;
	child_says();
	if (!client_sends(fd, GET))
		return 2;
	child_says();
	child_says();
	close(fd);
	return 0;
}

static void check_closed(struct watch *w)
{
	struct peers p;
	struct child c;

	check_scene = "closed";
	c = busy_child(w, &p, closes);
	probe_tick(w->probe, 100 * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	holds(p.busy, false);
	CHECK(__atomic_load_n(&p.busy->served, __ATOMIC_ACQUIRE) == 1);
	peers_end(&p);
}

int main(int argc, char **argv)
{
	struct watch w;

	(void)argc;
	run_as_curl(argv);
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	check_idle(&w);
	check_within(&w, "within", sends_piece, 1);
	check_within(&w, "within, answered", sends_pieces, 3);
	check_avoided(&w, false);
	/* The syscall collector isn't told whether a receive waits. */
	if (strcmp(probe_collector_name(w.probe), "syscall") != 0)
		check_avoided(&w, true);
	check_busy(&w);
	check_not_due(&w);
	check_given_up(&w);
	check_left_out(&w);
	check_replaced(&w);
	check_closed(&w);
	watch_close(&w);
	return check_result();
}
