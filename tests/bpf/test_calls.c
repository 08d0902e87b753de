/*
 * The ids of calls, and how the request at the other end is joined to them: without any header, so
 * that nothing on the wire tells. Each record must come before the bytes it speaks of, name their
 * sequence number, and begin no later than they were sent.
 */
#include <sys/uio.h>

#include "peer.h"
#include "propagate.h"

static const char GET[] = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

enum { ASKED = 5 };

/* --- what the records say --------------------------------------------------------------------- */

static int asks_some(void *arg)
{
	const struct peer *p = arg;
	int fd = client_connect(p, SOCK_NONBLOCK), i;

	for (i = 0; i < ASKED; i++) {
		if (!client_asks(fd, GET))
			return 1;
	}
	close(fd);
	return 0;
}

static int asks_blocking(void *arg)
{
	const struct peer *p = arg;
	int fd = client_connect(p, 0), i;

	for (i = 0; i < ASKED; i++) {
		if (!client_asks(fd, GET))
			return 1;
	}
	close(fd);
	return 0;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	while (len--) {
		if (bytes[len])
			return false;
	}
	return true;
}

/* The send that a record stands before. */
static const struct seen *send_of(const struct watch *w, const struct request_event *r)
{
	const struct seen *s;
	size_t at = 0;

	while ((s = watch_next(w, SEEN_IO, r->pid, &at))) {
		if (s->io.dir == IO_SEND && s->conn_id == r->conn_id &&
		    s->io.tcp_seq == r->tcp_seq && s->ts_ns >= r->ts_ns)
			return s;
	}
	return NULL;
}

static void check_record(const struct watch *w, size_t i, uint32_t flags)
{
	const struct request_event *r = &requests_seen[i];
	const struct seen *s = send_of(w, r);

	CHECK_SAY(r->flags == flags, "request %zu: flags %x, not %x", i, r->flags, flags);
	CHECK(s != NULL);
	if (!s)
		return;
	CHECK_SAY((size_t)(s - w->seen) >= requests_at[i], "record %zu came behind its bytes", i);
	CHECK(s->io.tcp_peer_seq == r->tcp_peer_seq && r->added == 0);
	CHECK(!is_zero(r->trace_id, 16) && !is_zero(r->span_id, 8));
	CHECK(is_zero(r->parent_span_id, 8));
	for (; i > 0; i--)
		CHECK(memcmp(r->span_id, requests_seen[i - 1].span_id, 8) != 0);
}

static void check_ids(struct watch *w, enum family family, int (*run)(void *arg))
{
	struct peer *p = peer_start(family);
	size_t i;

	check_scene = family_names[family];
	propagate_reset(w);
	watch_run(w, run, p);
	CHECK_SAY(requests_count == ASKED, "%zu records", requests_count);
	for (i = 0; i < requests_count; i++)
		check_record(w, i,
			     REQUEST_EVENT_FIXED | REQUEST_EVENT_SAMPLED); /* it serves nobody */
	CHECK(w->stats.drops[DROP_UNSAMPLED] == 0);
	peer_end(p);
}

/* --- what is no call -------------------------------------------------------------------------- */

static int speaks_otherwise(void *arg)
{
	const struct peer *p = arg;
	struct iovec parts[3] = { { NULL, 0 }, { (void *)(uintptr_t)GET, sizeof(GET) - 1 } };
	int fd = client_connect(p, SOCK_NONBLOCK);

	/* Another protocol, words that only look alike, and the rest of a message. */
	if (!client_asks(fd, "PING\r\n!") || !client_asks(fd, "GETX / HTTP/1.1\r\n\r\n") ||
	    !client_asks(fd, "get / http\r\n\r\n") || !client_sends(fd, "POST /b HTTP/1.1\r\n") ||
	    !client_asks(fd, "GET: x\r\n\r\n"))
		return 1;
	/* A call again, behind an empty buffer. */
	if (writev(fd, parts, 2) != (ssize_t)sizeof(GET) - 1 || !client_reads(fd))
		return 2;
	close(fd);
	return 0;
}

static void check_others(struct watch *w)
{
	struct peer *p = peer_start(TCP4);

	check_scene = "no calls";
	propagate_reset(w);
	watch_run(w, speaks_otherwise, p);
	CHECK_SAY(requests_count == 2, "%zu records", requests_count);
	check_record(w, 0, REQUEST_EVENT_FIXED | REQUEST_EVENT_SAMPLED);
	check_record(w, 1, REQUEST_EVENT_FIXED | REQUEST_EVENT_SAMPLED);
	peer_end(p);
}

/* --- not sampled ------------------------------------------------------------------------------ */

static void check_unsampled(void)
{
	struct peer *p;
	struct watch w;

	check_scene = "not sampled";
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 1, false);
	p = peer_start(TCP4); /* which waits for so long only */
	propagate_reset(&w);
	watch_run(&w, asks_some, p);
	CHECK(requests_count == 0 && watch_count(&w, SEEN_IO, 0) == 0);
	CHECK(watch_count(&w, SEEN_OPEN, 0) == 0);
	CHECK_SAY(w.stats.drops[DROP_UNSAMPLED] == ASKED, "%llu",
		  (unsigned long long)w.stats.drops[DROP_UNSAMPLED]);
	watch_close(&w);
	peer_end(p);
}

/* --- the join --------------------------------------------------------------------------------- */

static int serves(void *arg)
{
	struct peer *p = arg;

	p->at = address_make(p->family, 0);
	p->listener = socket_listen(&p->at, 16);
	child_says();
	while (!p->over && p->listener >= 0) {
		int fd = accept(p->listener, NULL, NULL);

		if (fd < 0)
			return 1;
		peer_serve(p, fd);
		close(fd);
	}
	return 0;
}

static const struct request_event *caller_of(const struct request_event *request)
{
	size_t i;

	for (i = 0; i < requests_count; i++) {
		if (!(requests_seen[i].flags & REQUEST_EVENT_SERVER) &&
		    requests_seen[i].tcp_seq == request->tcp_seq)
			return &requests_seen[i];
	}
	return NULL;
}

static void check_joined(const struct watch *w, bool early)
{
	size_t i, joined = 0, requests = 0;

	for (i = 0; i < requests_count; i++) {
		const struct request_event *r = &requests_seen[i], *call = caller_of(r);

		if (!(r->flags & REQUEST_EVENT_SERVER))
			continue;
		requests++;
		CHECK(call != NULL);
		if (!call || !(r->flags & REQUEST_EVENT_JOINED))
			continue;
		joined++;
		CHECK(r->flags & REQUEST_EVENT_FIXED && r->flags & REQUEST_EVENT_SAMPLED);
		CHECK(r->tcp_peer_seq == call->tcp_peer_seq && r->ts_ns >= call->ts_ns);
		CHECK(memcmp(r->trace_id, call->trace_id, 16) == 0);
		CHECK(memcmp(r->parent_span_id, call->span_id, 8) == 0);
		CHECK(memcmp(r->span_id, call->span_id, 8) != 0);
	}
	CHECK_SAY(requests == ASKED, "%zu requests", requests);
	CHECK_SAY(!early || joined == requests, "%zu of %zu joined", joined, requests);
	(void)w;
}

static void check_join(struct watch *w, enum family family)
{
	struct peer *p = shared_memory(sizeof(*p));
	struct child server;
	int fd;

	check_scene = family_names[family];
	p->family = family;
	server = child_make(serves, p);
	CHECK(probe_trace(w->probe, (uint32_t)server.pid) == 0);
	child_go(&server);
	CHECK(child_wait(&server));
	child_go(&server);
	propagate_reset(w);
	watch_run(w, asks_some, p);
	sleep_ms(PEER_SETTLE_MS);
	p->over = true;
	socket_connect(&p->at, 0, &fd);
	close(fd);
	CHECK(child_end(w, &server) == 0);
	check_joined(w, propagate_early());
	munmap(p, sizeof(*p));
}

static void check_collector(enum probe_collector collector)
{
	struct watch w;
	int family;

	printf("%s\n", collector_text(collector));
	propagate_open(&w, collector, 0, false);
	for (family = TCP4; family < FAMILIES; family++)
		check_ids(&w, (enum family)family, asks_some);
	check_ids(&w, TCP4, asks_blocking);
	check_others(&w);
	for (family = TCP4; family < UNIX_STREAM; family++)
		check_join(&w, (enum family)family);
	watch_close(&w);
}

int main(void)
{
	check_unsampled();
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
