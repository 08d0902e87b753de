/*
 * Which calls get a header and which must not, that it names the ids of the record, and that
 * sockets which carry something else, or block, are left alone. The bytes themselves are the
 * concern of test_inject_fuzz.
 */
#include <sys/ioctl.h>
#include <sys/time.h>

#include "peer.h"
#include "propagate.h"

#define HEADER "traceparent: 00-"

static const char GET[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

static uint64_t dropped(const struct watch *w, enum drop_reason reason)
{
	return w->stats.drops[reason];
}

/* One scene: a traced child talks to a peer that isn't. */
static struct peer *scene_play(struct watch *w, const char *name, int (*run)(void *arg))
{
	struct peer *p = peer_start(TCP4);

	check_scene = name;
	propagate_reset(w);
	watch_run(w, run, p);
	return p;
}

/* --- ids -------------------------------------------------------------------------------------- */

enum { ASKED = 4 };

static int asks_some(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK), i;

	for (i = 0; i < ASKED; i++) {
		if (!client_asks(fd, GET))
			return 1;
	}
	close(fd);
	return 0;
}

static void hex(char *to, const uint8_t *from, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		sprintf(to + 2 * i, "%02x", from[i]);
}

static void check_header(const struct peer *p, const struct request_event *r, const char *flags)
{
	char trace[33], span[17], expected[128];

	hex(trace, r->trace_id, 16);
	hex(span, r->span_id, 8);
	snprintf(expected, sizeof(expected), "GET /a HTTP/1.1\r\n" HEADER "%s-%s-%s\r\nHost: x\r\n",
		 trace, span, flags);
	CHECK(times(p, expected) == 1);
}

/* Every byte that the process sent is told of, at the places that it believes. */
static void check_positions(const struct watch *w)
{
	const struct seen *s;
	size_t at = 0, sends = 0;

	while ((s = watch_next(w, SEEN_IO, 0, &at))) {
		if (s->io.dir != IO_SEND)
			continue;
		CHECK(s->io.length == sizeof(GET) - 1 && s->io.captured == sizeof(GET) - 1);
		if (sends < requests_count)
			CHECK(s->io.tcp_seq == requests_seen[sends].tcp_seq);
		sends++;
	}
	CHECK(sends == ASKED);
}

static void check_ids(struct watch *w)
{
	struct peer *p = scene_play(w, "ids", asks_some);
	const struct seen *open = watch_first(w, SEEN_OPEN, 0);
	size_t i;

	CHECK(requests_count == ASKED && times(p, HEADER) == ASKED);
	CHECK(open && open->conn.flags == (CONN_FRESH | CONN_ACTIVE));
	for (i = 0; i < requests_count; i++) {
		CHECK(requests_seen[i].flags ==
		      (REQUEST_EVENT_FIXED | REQUEST_EVENT_SAMPLED | REQUEST_EVENT_INJECTED));
		CHECK(requests_seen[i].added == 70);
		check_header(p, &requests_seen[i], "01");
	}
	check_positions(w);
	peer_end(p);
}

/* What is not sampled is not reported, and says so to the next. */
static void check_unsampled(void)
{
	struct watch w;
	struct peer *p;

	propagate_open(&w, PROBE_COLLECTOR_AUTO, 1, true);
	p = scene_play(&w, "not sampled", asks_some);
	CHECK(requests_count == 0 && watch_count(&w, SEEN_IO, 0) == 0);
	CHECK(times(p, HEADER) == ASKED && times(p, "-00\r\nHost: x") == ASKED);
	CHECK(dropped(&w, DROP_UNSAMPLED) == ASKED);
	peer_end(p);
	watch_close(&w);
}

/* --- who gets none ---------------------------------------------------------------------------- */

static int sends_own(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK);

	return client_asks(fd, "GET / HTTP/1.1\r\nTRACEPARENT: 00-1\r\nHost: x\r\n\r\n") &&
			       client_asks(fd,
					   "GET / HTTP/1.1\r\nHost: x\r\ntraceParent:a\r\n\r\n") &&
			       client_asks(fd, GET)
		       ? 0
		       : 1;
}

static void check_own(struct watch *w)
{
	struct peer *p = scene_play(w, "its own traceparent", sends_own);

	CHECK(times(p, HEADER) == 1 && requests_count == 3);
	CHECK(requests_seen[0].flags & REQUEST_EVENT_OWN);
	CHECK(requests_seen[1].flags & REQUEST_EVENT_OWN);
	CHECK(requests_seen[2].flags & REQUEST_EVENT_INJECTED);
	peer_end(p);
}

static int asks_blocking(void *arg)
{
	int fd = client_connect(arg, 0);

	return client_asks(fd, GET) && client_asks(fd, GET) ? 0 : 1;
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* A receive that waits, and is disturbed: with SA_RESTART it goes on, without it says so. */
static bool receives_disturbed(int fd, int flags, int *ret_errno)
{
	struct sigaction act = { .sa_handler = on_alarm, .sa_flags = flags };
	struct itimerval soon = { .it_value = { .tv_usec = 100000 } };
	char got[sizeof(PEER_ANSWER)];
	ssize_t n;

	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	n = recv(fd, got, sizeof(got), 0);
	*ret_errno = n < 0 ? errno : 0;
	return n > 0;
}

/* It connects without blocking, as one does for a time limit, and blocks from then on. */
static int blocks_later(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK), off = 0, error = 0;

	if (!client_asks(fd, GET))
		return 1;
	ioctl(fd, FIONBIO, &off);
	if (!client_asks(fd, GET))
		return 2;
	sleep_ms(PEER_SETTLE_MS); /* meanwhile it leaves the table */
	if (receives_disturbed(fd, 0, &error) || error != EINTR)
		return 3;
	if (!client_sends(fd, "GET /late HTTP/1.1\r\n") || receives_disturbed(fd, 0, &error) ||
	    error != EINTR || !client_sends(fd, "\r\n"))
		return 4;
	return receives_disturbed(fd, SA_RESTART, &error) ? 0 : 5;
}

static void check_blocking(struct watch *w)
{
	struct peer *p = scene_play(w, "blocking", asks_blocking);

	CHECK(times(p, HEADER) == 0 && dropped(w, DROP_HEADER_BLOCKING) == 2);
	CHECK(requests_count == 2 && requests_seen[0].added == 0);
	peer_end(p);
	p = scene_play(w, "blocking later", blocks_later);
	CHECK(times(p, HEADER) == 1 && dropped(w, DROP_HEADER_BLOCKING) == 2);
	peer_end(p);
}

/* Other protocols, also those that begin as HTTP. */
static int speaks_otherwise(void *arg)
{
	static const char *const first[] = {
		"*1\r\n$4\r\nPING\r\n!",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"CONNECT x:1 HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"GET / HTTP/1.1\n\r\n\r\n",
		"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
	};
	size_t i;

	for (i = 0; i < COUNT(first); i++) {
		int fd = client_connect(arg, SOCK_NONBLOCK);

		/* What looks like a request behind it is none, but for the one that was refused its
		 * upgrade; and a frame ends that as well. */
		if (!client_asks(fd, first[i]) || !client_asks(fd, "\x81\x05GET /!") ||
		    !client_asks(fd, GET))
			return (int)i + 1;
		close(fd);
	}
	return 0;
}

static void check_others(struct watch *w)
{
	struct peer *p = scene_play(w, "other protocols", speaks_otherwise);

	CHECK_SAY(times(p, HEADER) == 0, "%zu headers: %s", times(p, HEADER), p->bytes);
	peer_end(p);
}

/* A body is a body, whatever it looks like and whatever was received in between. */
static int sends_bodies(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK);

	if (!client_sends(fd, "POST /a HTTP/1.1\r\nExpect: 100-continue\r\n"
			      "Content-Length: 63\r\n\r\n") ||
	    !client_reads(fd) || !client_asks(fd, "GET /body HTTP/1.1\r\nHost: xyzw\r\n\r\n") ||
	    !client_asks(fd, "GET /2 HTTP/1.1\r\nHost: xy\r\n\r\n") || !client_asks(fd, GET))
		return 1;
	close(fd);
	return 0;
}

static void check_bodies(struct watch *w)
{
	struct peer *p = scene_play(w, "bodies", sends_bodies);

	CHECK_SAY(times(p, HEADER) == 2, "%s", p->bytes);
	CHECK(times(p, "POST /a HTTP/1.1\r\n" HEADER) == 1);
	CHECK(times(p, "GET /a HTTP/1.1\r\n" HEADER) == 1);
	peer_end(p);
}

/* Earlier bytes on their way, and heads in pieces. */
static int sends_early(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK), pieces = client_connect(arg, SOCK_NONBLOCK);
	char two[2 * sizeof(GET)];

	snprintf(two, sizeof(two), "%s%s", GET, GET);
	if (!client_asks(fd, two) || !client_asks(fd, GET))
		return 1;
	close(fd);
	if (!client_sends(pieces, "GET /a HTTP/1.1\r\n") ||
	    !client_asks(pieces, "Host: x\r\n\r\n") || !client_asks(pieces, GET))
		return 2;
	close(pieces);
	return 0;
}

static void check_early(struct watch *w)
{
	struct peer *p = scene_play(w, "early", sends_early);

	CHECK_SAY(times(p, HEADER) == 1, "%s", p->bytes);
	CHECK(dropped(w, DROP_HEADER_SHAPE) >= 1);
	peer_end(p);
}

/* --- processes -------------------------------------------------------------------------------- */

/* It serves, so what it calls belongs to a request, and it isn't certain to which. */
static int serves_and_asks(void *arg)
{
	struct address at = address_make(TCP4, 0);
	char got[256];
	int fds[2], fd;

	if (socket_pair(&at, fds) || !client_sends(fds[0], GET) || recv(fds[1], got, 256, 0) <= 0)
		return 1;
	fd = client_connect(arg, SOCK_NONBLOCK);
	return client_asks(fd, GET) ? 0 : 2;
}

static void check_unbound(struct watch *w)
{
	struct peer *p = scene_play(w, "unbound", serves_and_asks);

	CHECK(times(p, HEADER) == 0 && dropped(w, DROP_HEADER_UNBOUND) == 1);
	peer_end(p);
}

/* --- the agent goes --------------------------------------------------------------------------- */

static int asks_on(void *arg)
{
	int fd = client_connect(arg, SOCK_NONBLOCK);

	if (!client_asks(fd, GET) || !client_sends(fd, GET))
		return 1;
	child_says();
	return client_reads(fd) && client_asks(fd, GET) && client_asks(fd, GET) ? 0 : 2;
}

static void check_closed(void)
{
	struct peer *p;
	struct child c;
	struct watch w;
	int status = 0;

	check_scene = "the agent goes";
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	p = peer_start(TCP4); /* which waits for so long only */
	c = child_make(asks_on, p);
	CHECK(probe_trace(w.probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	CHECK(child_wait(&c));
	watch_close(&w);
	child_go(&c);
	CHECK(waitpid(c.pid, &status, 0) == c.pid && WIFEXITED(status) && !WEXITSTATUS(status));
	CHECK_SAY(times(p, HEADER) == 2 && times(p, GET) == 2, "%s", p->bytes);
	peer_end(p);
}

int main(int argc, char **argv)
{
	struct watch w;

	(void)argc;
	run_as_curl(argv);
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	check_ids(&w);
	check_own(&w);
	check_blocking(&w);
	check_others(&w);
	check_bodies(&w);
	check_early(&w);
	check_unbound(&w);
	watch_close(&w);
	check_unsampled();
	check_closed();
	return check_result();
}
