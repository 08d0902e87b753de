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

static int asks_idle(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK), fresh = client_connect(arg, SOCK_NONBLOCK);
	int blocking = client_connect(arg, 0);

	if (!client_asks(fd, GET))
		return 1;
	child_says();
	return client_asks(fd, GET) && client_asks(fd, GET) && client_sends(fresh, GET) &&
			       client_sends(blocking, GET)
		       ? 0
		       : 2;
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
	/* The first request that is seen tells only that an answer comes. */
	CHECK_SAY(times(p, HEADER) == 1, "%s", p->bytes);
	peer_end(p);
}

/* --- busy at the first look ------------------------------------------------------------------- */

struct peers {
	struct peer *busy, *later;
};

static bool asks_times(int fd, int n)
{
	while (n && client_asks(fd, GET))
		n--;
	return !n;
}

/* Blocking sockets don't enter the table as they connect, so the kernel side has decided that this
 * one stays out, though nothing shows that any more. */
static int connects_refused(const struct peer *p)
{
	int fd = client_connect(p, 0);

	return fcntl(fd, F_SETFL, O_NONBLOCK) ? -1 : fd;
}

static int is_busy(void *arg)
{
	const struct peers *p = arg;
	int fd = client_connect(p->busy, SOCK_NONBLOCK), later, i;

	if (!client_asks(fd, GET))
		return 1;
	child_says();
	sleep_ms(SETTLE_MS);
	if (!client_sends(fd, GET))
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
	return client_reads(fd) && asks_times(fd, 3) && asks_times(later, 3) ? 0 : 4;
}

static void holds(struct peer *p, bool on)
{
	__atomic_store_n(&p->holds, on, __ATOMIC_RELEASE);
	sleep_ms(SETTLE_MS);
}

/* A traced child that has an answer outstanding, and a connection that is newer. */
static struct child busy_child(struct watch *w, struct peers *p)
{
	struct child c;

	propagate_reset(w);
	p->busy = peer_start(TCP4);
	p->later = peer_start(TCP4);
	c = child_make(is_busy, p);
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
	c = busy_child(w, &p);
	probe_tick(w->probe, 100 * MS);
	holds(p.busy, false);
	probe_tick(w->probe, 299 * MS); /* not due */
	probe_tick(w->probe, 300 * MS);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	/* What it sends first is not believed: it could be the rest of something. */
	CHECK_SAY(times(p.busy, GET) == 3 && times(p.busy, HEADER) == 2, "%s", p.busy->bytes);
	CHECK_SAY(times(p.later, HEADER) == 0, "%s", p.later->bytes);
	peers_end(&p);
}

static void check_not_due(struct watch *w)
{
	struct peers p;
	struct child c;

	check_scene = "not due";
	c = busy_child(w, &p);
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
	c = busy_child(w, &p);
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
	c = busy_child(w, &p);
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

int main(int argc, char **argv)
{
	struct watch w;

	(void)argc;
	run_as_curl(argv);
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	check_idle(&w);
	check_busy(&w);
	check_not_due(&w);
	check_given_up(&w);
	check_left_out(&w);
	watch_close(&w);
	return check_result();
}
