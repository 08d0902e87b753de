/*
 * The smallest ring and nobody reading it: what finds no room is counted, is told before whatever
 * comes next, and is known by length, so that every stream goes on in step. Both directions of the
 * connections carry the pattern, so a captured byte at the wrong place shows.
 */
#include "calls.h"
#include "sockets.h"
#include "watch.h"

enum { RING_BYTES = 64 << 10, ROUNDS_SPLIT = 6, ROUNDS_FULL = 60, ROUNDS_AFTER = 12, FILLERS = 40 };

struct pair {
	struct end client, server;
	uint64_t told_client, told_server; /* sent before the ring had room again */
};

struct talk {
	struct pair early, late; /* `late` begins when the ring is full already */
};

/* --- the traced side -------------------------------------------------------------------------- */

static int pair_open(struct pair *p)
{
	struct address a = address_make(TCP4, 0);
	int fds[2];

	if (socket_pair(&a, fds))
		return -1;
	p->client.fd = fds[0];
	p->server.fd = fds[1];
	p->client.send_seed = p->server.recv_seed = 11;
	p->client.recv_seed = p->server.send_seed = 77;
	return 0;
}

/* There with one size, back with another; never more at once than is captured. */
static bool pair_round(struct pair *p, enum call_op op, size_t there, size_t back)
{
	return call_send(&p->client, op, there, 3) &&
	       call_receive(&p->server, CALL_READ, there, 1) &&
	       call_send(&p->server, CALL_WRITE, back, 1) &&
	       call_receive(&p->client, CALL_RECVMSG, back, 3);
}

static int talk_run(void *arg)
{
	static const size_t lengths[] = { 8192, 100, 5000, 64, 4200, 8000, 1025, 1 };
	static const enum call_op senders[] = { CALL_WRITE, CALL_WRITEV, CALL_SENDMSG,
						CALL_SENDMMSG };
	struct talk *t = arg;
	size_t i;

	if (pair_open(&t->early))
		return 1;
	/* Where the large first piece finds no room, the small second one would. */
	for (i = 0; i < ROUNDS_SPLIT; i++) {
		if (!pair_round(&t->early, CALL_WRITE, 4200, 4200))
			return 2;
	}
	for (i = 0; i < ROUNDS_FULL; i++) {
		if (!pair_round(&t->early, senders[i % COUNT(senders)], lengths[i % COUNT(lengths)],
				lengths[i / 3 % COUNT(lengths)]))
			return 2;
	}
	/* What little room was left for small records is gone as well. */
	for (i = 0; i < FILLERS; i++) {
		if (!pair_round(&t->early, CALL_WRITE, 1, 1))
			return 3;
	}
	if (pair_open(&t->late) || !pair_round(&t->late, CALL_WRITE, 500, 700))
		return 4;
	t->late.told_client = t->late.client.sent;
	t->late.told_server = t->late.server.sent;
	child_says();
	for (i = 0; i < ROUNDS_AFTER; i++) {
		if (!pair_round(&t->early, senders[i % COUNT(senders)], 150 + i, 60 + i) ||
		    !pair_round(&t->late, senders[i % COUNT(senders)], 10 + i, 300 + i))
			return 5;
	}
	close(t->early.client.fd);
	close(t->early.server.fd);
	return 0;
}

/* --- the agent's side ------------------------------------------------------------------------- */

/* One end of a connection by its events. */
struct follow {
	uint64_t conn_id;
	uint64_t moved[2];
	uint32_t seq0[2];
	bool seq_known[2];
	size_t gaps;      /* events with bytes that are known by length only */
	size_t first_gap; /* place of it */
	size_t wrong;     /* captured bytes */
	size_t seq_wrong;
};

static void follow_event(struct follow *f, const struct seen *s, const struct end *e, size_t place)
{
	const struct io_event *ev = &s->io;
	uint8_t seed = ev->dir == IO_SEND ? e->send_seed : e->recv_seed;
	uint32_t i, first = ev->tcp_seq - (uint32_t)f->moved[ev->dir];

	for (i = 0; i < ev->captured; i++)
		f->wrong += ev->data[i] != pattern(seed, f->moved[ev->dir] + i);
	if (ev->captured < ev->length && !f->gaps++)
		f->first_gap = place;
	if (ev->tcp_seq) {
		f->seq_wrong += f->seq_known[ev->dir] && f->seq0[ev->dir] != first;
		f->seq0[ev->dir] = first;
		f->seq_known[ev->dir] = true;
	}
	f->moved[ev->dir] += ev->length;
}

/* All events of the connection that `role` is the end of. `from`: what had been moved before. */
static struct follow follow_end(const struct watch *w, const struct end *e, uint64_t conn_id,
				uint64_t sent, uint64_t received)
{
	struct follow f = { .conn_id = conn_id,
			    .moved = { [IO_SEND] = sent, [IO_RECV] = received } };
	size_t i;

	for (i = 0; i < w->count; i++) {
		const struct seen *s = &w->seen[i];

		if (s->type == SEEN_IO && s->conn_id == conn_id)
			follow_event(&f, s, e, i);
	}
	return f;
}

static void check_end(const struct watch *w, const char *who, const struct end *e, uint64_t conn_id,
		      uint64_t sent, uint64_t received, bool has_gap)
{
	struct follow f = follow_end(w, e, conn_id, sent, received);
	const struct seen *lost = watch_first(w, SEEN_LOST, 0);

	CHECK(!e->wrong);
	CHECK_SAY(f.moved[IO_SEND] == e->sent && f.moved[IO_RECV] == e->received,
		  "%s: %llu of %llu sent, %llu of %llu received", who,
		  (unsigned long long)f.moved[IO_SEND], (unsigned long long)e->sent,
		  (unsigned long long)f.moved[IO_RECV], (unsigned long long)e->received);
	CHECK_SAY(!f.wrong, "%s: %zu captured bytes are not where they belong", who, f.wrong);
	CHECK_SAY(!f.seq_wrong, "%s: %zu sequence numbers are off", who, f.seq_wrong);
	CHECK_SAY(has_gap == (f.gaps > 0), "%s: %zu gaps", who, f.gaps);
	CHECK_SAY(!has_gap || (lost && (size_t)(lost - w->seen) < f.first_gap),
		  "%s: a gap before it was told", who);
}

static void check_collector(enum probe_collector collector)
{
	struct talk *t = shared_memory(sizeof(*t));
	const struct seen *open[4] = { NULL };
	uint64_t full;
	struct child c;
	struct watch w;
	size_t at = 0, i;

	check_scene = collector_text(collector);
	watch_open(&w, collector, RING_BYTES);
	c = child_make(talk_run, t);
	CHECK(probe_trace(w.probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	CHECK(child_wait(&c));
	probe_collect_drops(w.probe);
	full = w.stats.drops[DROP_RING_FULL];
	CHECK_SAY(full > 0, "%llu records lost", (unsigned long long)full);
	watch_take(&w);
	child_go(&c);
	CHECK(child_end(&w, &c) == 0);
	CHECK_SAY(w.stats.drops[DROP_RING_FULL] == full, "%llu more were lost",
		  (unsigned long long)(w.stats.drops[DROP_RING_FULL] - full));
	CHECK(watch_count(&w, SEEN_LOST, 0) > 0);
	for (i = 0; i < COUNT(open); i++)
		open[i] = watch_next(&w, SEEN_OPEN, (uint32_t)c.pid, &at);
	CHECK(open[3] && !watch_next(&w, SEEN_OPEN, 0, &at));
	if (open[3]) {
		check_end(&w, "client", &t->early.client, open[0]->conn_id, 0, 0, true);
		check_end(&w, "server", &t->early.server, open[1]->conn_id, 0, 0, true);
		CHECK(!(open[2]->conn.flags & CONN_FRESH) && !(open[3]->conn.flags & CONN_FRESH));
		check_end(&w, "late client", &t->late.client, open[2]->conn_id, t->late.told_client,
			  t->late.told_server, false);
		check_end(&w, "late server", &t->late.server, open[3]->conn_id, t->late.told_server,
			  t->late.told_client, false);
	}
	CHECK(watch_count(&w, SEEN_CLOSE, 0) == 4 && watch_count(&w, SEEN_EXIT, 0) == 1);
	watch_close(&w);
	munmap(t, sizeof(*t));
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
