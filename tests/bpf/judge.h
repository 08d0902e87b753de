/*
 * Compares what the probe reported of one end of a connection with what that end wrote down: every
 * call that had to be seen is there, in order, with its length; every captured byte is the byte
 * that was moved; as much is captured as ARCHITECTURE.md says; sequence numbers and threads are
 * right. It says the first difference.
 */
#ifndef TESTS_BPF_JUDGE_H
#define TESTS_BPF_JUDGE_H

#include "calls.h"
#include "watch.h"

/* "8 KiB of a transfer at most, and once 16 KiB went one way only 128 of each further". */
enum { JUDGE_RUN_BYTES = 16384, JUDGE_TAIL_BYTES = 128 };

struct judge {
	const struct watch *w;
	const struct end *end;
	enum probe_collector collector;
	bool tcp;
	size_t at; /* in w->seen */
	uint64_t conn_id;
	uint64_t moved[2]; /* by enum io_dir */
	uint32_t seq0[2];  /* TCP: sequence number of the first byte */
	bool seq_known[2];
	int dir; /* of the last transfer */
	uint32_t run_bytes;
	char why[200];
};

static inline bool __attribute__((format(printf, 2, 3)))
judge_says(struct judge *j, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->why, sizeof(j->why), fmt, ap);
	va_end(ap);
	return false;
}

static inline bool call_seen(const struct call *c)
{
	return !c->quiet && c->ret != -EAGAIN && c->ret != -EINTR && (c->ret || !c->send);
}

static inline bool judge_seq(struct judge *j, const struct io_event *ev, const struct call *c)
{
	uint32_t first = ev->tcp_seq - (uint32_t)j->moved[ev->dir];
	uint32_t other = ev->tcp_peer_seq - (uint32_t)j->moved[!ev->dir];

	uint32_t shut = j->end->shut_at && c - j->end->calls >= j->end->shut_at;

	/* Our FIN counts as one, once it was written; the peer's is left out. */
	first -= ev->dir == IO_SEND ? shut : 0;
	other -= ev->dir == IO_RECV ? shut : 0;
	if (!j->tcp || (!ev->tcp_seq && !ev->tcp_peer_seq)) /* not told: recvmmsg, sendmmsg */
		return true;
	if (j->seq_known[ev->dir] && first != j->seq0[ev->dir])
		return judge_says(j, "tcp_seq is off by %d", (int)(first - j->seq0[ev->dir]));
	if (j->seq_known[!ev->dir] && other != j->seq0[!ev->dir])
		return judge_says(j, "tcp_peer_seq is off by %d", (int)(other - j->seq0[!ev->dir]));
	j->seq0[ev->dir] = first;
	j->seq_known[ev->dir] = true;
	return true;
}

static inline bool judge_event(struct judge *j, const struct seen *s, const struct call *c)
{
	const struct io_event *ev = &s->io;
	uint8_t seed = c->send ? j->end->send_seed : j->end->recv_seed;
	bool nonblock = ev->flags & IO_NONBLOCK;
	uint32_t i;

	if (!j->conn_id)
		j->conn_id = s->conn_id;
	if (s->conn_id != j->conn_id)
		return judge_says(j, "another connection: %llu, not %llu",
				  (unsigned long long)s->conn_id, (unsigned long long)j->conn_id);
	if (s->tid != c->tid)
		return judge_says(j, "thread %u, not %u", s->tid, c->tid);
	if (s->ts_ns < c->begin_ns || s->ts_ns > c->end_ns)
		return judge_says(j, "its time is not within the call");
	if ((ev->dir == IO_SEND) != c->send)
		return judge_says(j, "the other direction");
	/* Sends tell the sock collector nothing; behind its first message recvmmsg doesn't block.
	 */
	if (nonblock != c->nonblock &&
	    !(j->collector == PROBE_COLLECTOR_SOCK && (c->send || c->op == CALL_RECVMMSG)))
		return judge_says(j, "IO_NONBLOCK is %d", nonblock);
	for (i = 0; i < ev->captured; i++) {
		if (ev->data[i] != pattern(seed, j->moved[ev->dir] + i))
			return judge_says(j, "captured byte %u of %u is wrong", i, ev->captured);
	}
	return judge_seq(j, ev, c);
}

/* Of sendmmsg and recvmmsg the syscall collector takes one record a message. */
static inline uint32_t messages_captured(const struct call *c, uint32_t budget)
{
	uint32_t all = budget, i;

	for (i = 0; i < CALL_MESSAGES; i++) {
		uint32_t want = c->messages[i] < budget ? c->messages[i] : budget;

		budget -= want < IO_CLASS_3 ? want : IO_CLASS_3;
	}
	return all - budget;
}

/* As much as a transfer of this length has to have captured. */
static inline bool judge_captured(struct judge *j, const struct call *c, uint32_t captured)
{
	uint32_t budget, expected, moved = (uint32_t)c->ret;

	if (j->dir != c->send) {
		j->dir = c->send;
		j->run_bytes = 0;
	}
	budget = j->run_bytes < JUDGE_RUN_BYTES ? WATCH_CAPTURE_BYTES : JUDGE_TAIL_BYTES;
	j->run_bytes += captured;
	if (c->op == CALL_SENDFILE) /* the kernel's own pages */
		return !captured || judge_says(j, "captured %u of sendfile", captured);
	expected = c->followed < moved ? c->followed : moved;
	expected = expected < budget ? expected : budget;
	if ((c->op == CALL_SENDMMSG || c->op == CALL_RECVMMSG) &&
	    j->collector == PROBE_COLLECTOR_SYSCALL)
		expected = messages_captured(c, budget);
	return captured == expected ||
	       judge_says(j, "captured %u, not %u of %u", captured, expected, moved);
}

/* The next event of this end; NULL at their end. */
static inline const struct seen *judge_next(struct judge *j)
{
	return watch_next(j->w, SEEN_IO, j->end->pid, &j->at);
}

static inline bool judge_call(struct judge *j, const struct call *c)
{
	const struct seen *s = judge_next(j);
	uint32_t length = 0, captured = 0;
	size_t behind;

	if (!s)
		return judge_says(j, "no event");
	if (s->io.error || c->ret < 0)
		return (s->io.error == c->ret && judge_event(j, s, c)) ||
		       judge_says(j, "error %d, not %lld", s->io.error, (long long)c->ret);
	if (s->io.flags & IO_SAME_CALL)
		return judge_says(j, "begins as a further piece");
	for (;;) {
		if (!judge_event(j, s, c))
			return false;
		length += s->io.length;
		captured += s->io.captured;
		j->moved[s->io.dir] += s->io.length;
		behind = j->at;
		s = judge_next(j);
		/* In the kernel sendfile is several sends. */
		if (!s ||
		    !((s->io.flags & IO_SAME_CALL) || (c->op == CALL_SENDFILE && length < c->ret)))
			break;
	}
	j->at = behind;
	if (length != c->ret)
		return judge_says(j, "length %u", length);
	return judge_captured(j, c, captured);
}

/* One check an end: all of its calls. */
static inline void judge_end(struct judge *j, const char *who)
{
	const struct seen *extra;
	uint32_t i;

	j->dir = -1;
	CHECK_SAY(j->end->count > 0, "%s: made no call", who);
	CHECK_SAY(!j->end->wrong, "%s: the test itself moved wrong bytes", who);
	for (i = 0; i < j->end->count; i++) {
		const struct call *c = &j->end->calls[i];

		if (!call_seen(c) || judge_call(j, c))
			continue;
		CHECK_SAY(false, "%s: call %u, %s of %lld: %s", who, i, call_names[c->op],
			  (long long)c->ret, j->why);
		return;
	}
	extra = judge_next(j);
	CHECK_SAY(!extra, "%s: an event of %u bytes, error %d, that no call made", who,
		  extra ? extra->io.length : 0, extra ? extra->io.error : 0);
}

#endif
