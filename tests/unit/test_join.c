/*
 * A proxy with one thread before a service, played at random through the tracer's own front: many
 * requests that are all alike, connections made late, heads held back, answers put off, calls made
 * again, clients that go away, answers from a cache; the two ends of a connection told in either
 * order. Whose each call is is known without the tracer. No link may be wrong, ever.
 */
#include <stdlib.h>

#include "check.h"
#include "dice.h"
#include "protocols/protocols.h"
#include "trace/resource.h"
#include "trace/tracer.h"

enum {
	CLIENTS = 16,
	UPSTREAMS = 24,
	STEPS = 8000,
	TIMES = 120000,
	PROXY = 10,
	SERVICE = 20,
	ABORT_ONE_IN = 400,
	PUT_OFF_ONE_IN = 50,
	RETRY_ONE_IN = 60,
	CACHED_ONE_IN = 40,
};

enum stage { IDLE, PENDING, CALLED, HELD, OFF };

struct client {
	enum stage stage;
	unsigned int target, up; /* up: where its call is */
	uint64_t read_ns;
	bool begun; /* its answer */
};

struct upstream {
	bool busy, head_sent, head_read, body_sent, doomed;
	int client; /* -1: gone */
	uint64_t request_ns;
	uint32_t asked, answered; /* bytes each way */
	uint64_t call_ns;
};

struct seen {
	uint8_t id[SPAN_ID_BYTES], parent[SPAN_ID_BYTES], trace[TRACE_ID_BYTES];
	uint64_t start_ns;
	enum span_kind kind;
	uint32_t pid;
	bool linked;
};

/* What began at a time: a call of the request that was read then; a request of the call made then.
 */
struct truth {
	uint64_t request_ns, call_ns;
};

struct world {
	struct tracer *t;
	uint64_t now;
	struct client clients[CLIENTS];
	struct upstream ups[UPSTREAMS];
	struct truth truth[TIMES];
	struct seen *seen;
	size_t count;
	unsigned int targets;
	bool calm, held_heads; /* nothing odd happens; heads leave with bodies only */
};

static struct world w;
static struct stats stats;

static bool odd(uint32_t one_in)
{
	return !w.calm && roll(one_in) == 0;
}

/* --- the tracer's side --- */

static void on_span(void *ctx, struct span *s)
{
	struct seen *e = &w.seen[w.count];

	(void)ctx;
	if (w.count < TIMES) {
		memcpy(e->id, s->span_id, SPAN_ID_BYTES);
		memcpy(e->parent, s->parent_span_id, SPAN_ID_BYTES);
		memcpy(e->trace, s->trace_id, TRACE_ID_BYTES);
		e->linked = s->has_parent;
		e->kind = s->kind;
		e->start_ns = s->start_ns;
		e->pid = s->resource ? s->resource->pid : 0;
		w.count++;
	}
	span_free(s);
}

/* --- the kernel's side --- */

static void transfer(uint64_t conn_id, uint32_t pid, enum io_dir dir, const char *text,
		     uint32_t seq, uint32_t peer_seq)
{
	const struct io_event ev = {
		.ts_ns = ++w.now,
		.conn_id = conn_id,
		.pid = pid,
		.tid = pid,
		.dir = dir,
		.flags = IO_NONBLOCK,
		.length = (uint32_t)strlen(text),
		.captured = (uint32_t)strlen(text),
		.data = (const uint8_t *)text,
		.tcp_seq = seq,
		.tcp_peer_seq = peer_seq,
	};

	tracer_io(w.t, &ev);
}

static void open_conn(uint64_t conn_id, uint32_t pid, bool server)
{
	const struct conn_info info = {
		.ts_ns = ++w.now,
		.conn_id = conn_id,
		.pid = pid,
		.tid = pid,
		.flags = CONN_FRESH | (server ? CONN_PASSIVE : CONN_ACTIVE),
		.peer_port = (uint16_t)conn_id,
	};

	tracer_conn_open(w.t, &info);
}

static void open_up(unsigned int i)
{
	static uint32_t base = 1000;

	base += 1000003;
	w.ups[i] = (struct upstream){ .asked = base, .answered = base * 7, .client = -1 };
	open_conn(100 + i, PROXY, false);
	open_conn(200 + i, SERVICE, true);
}

/* --- the proxy --- */

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", body[] = "abc",
		  whole[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

static void answer(unsigned int k, const char *text, bool last)
{
	transfer(k + 1, PROXY, IO_SEND, text, 0, 0);
	w.clients[k].begun = true;
	if (last)
		w.clients[k] = (struct client){ .stage = IDLE };
}

/* The call leaves, and the service reads it; either may be told first. */
static void call(unsigned int k)
{
	struct client *c = &w.clients[k];
	unsigned int i = roll(UPSTREAMS);
	struct upstream *u = &w.ups[i];
	bool first = roll(4) == 0;
	char text[64];

	if (u->busy)
		return;
	snprintf(text, sizeof(text), "GET /%u HTTP/1.1\r\nHost: u\r\n\r\n", c->target);
	*u = (struct upstream){ .busy = true,
				.client = (int)k,
				.request_ns = c->read_ns,
				.asked = u->asked,
				.answered = u->answered };
	if (first) {
		transfer(200 + i, SERVICE, IO_RECV, text, u->asked, u->answered);
		w.truth[w.now].call_ns = w.now; /* a call does not begin later than that */
		w.truth[w.now].request_ns = c->read_ns;
		u->call_ns = w.now;
	}
	transfer(100 + i, PROXY, IO_SEND, text, u->asked, u->answered);
	if (!first) {
		w.truth[w.now].request_ns = c->read_ns;
		u->call_ns = w.now;
		transfer(200 + i, SERVICE, IO_RECV, text, u->asked, u->answered);
		w.truth[w.now].call_ns = u->call_ns;
	}
	u->asked += (uint32_t)strlen(text);
	c->stage = CALLED;
	c->up = i;
}

static void read_request(unsigned int k)
{
	struct client *c = &w.clients[k];
	char text[64];

	c->target = roll(w.targets);
	snprintf(text, sizeof(text), "GET /%u HTTP/1.1\r\nHost: h\r\n\r\n", c->target);
	transfer(k + 1, PROXY, IO_RECV, text, 0, 0);
	c->read_ns = w.now;
	c->stage = PENDING;
	if (odd(CACHED_ONE_IN))
		answer(k, whole, true);
	else if (roll(2))
		call(k);
}

static void serve(unsigned int i)
{
	struct upstream *u = &w.ups[i];
	const char *text = u->head_sent ? body : roll(2) ? head : whole;

	transfer(200 + i, SERVICE, IO_SEND, text, u->answered, u->asked);
	u->answered += (uint32_t)strlen(text);
	u->body_sent = text != head;
	u->head_sent = true;
}

/* What is there of the answer comes to the proxy. */
static void pass_on(unsigned int i)
{
	struct upstream *u = &w.ups[i];
	bool had_head = u->head_read, last = u->body_sent;
	struct client *c = u->client < 0 ? NULL : &w.clients[u->client];
	const char *text = had_head ? body : last ? whole : head;

	if (had_head && !last)
		return;
	transfer(100 + i, PROXY, IO_RECV, text, u->answered - (uint32_t)strlen(text), u->asked);
	u->head_read = true;
	if (last) {
		u->busy = u->head_sent = u->body_sent = u->head_read = false;
		u->client = -1;
	}
	if (!c || (!last && (w.held_heads || roll(2))))
		return;
	if (odd(PUT_OFF_ONE_IN)) {
		if (last)
			c->stage = OFF;
		return;
	}
	answer((unsigned int)(c - w.clients), !last ? head : c->begun ? body : whole, last);
}

static void go_away(unsigned int k)
{
	struct client *c = &w.clients[k];

	tracer_conn_close(w.t, k + 1, ++w.now);
	if (c->stage == CALLED)
		w.ups[c->up].client = -1;
	*c = (struct client){ .stage = IDLE };
	open_conn(k + 1, PROXY, true);
}

/* The service breaks the connection before it answers; the proxy asks another one. */
static void fail_call(unsigned int i)
{
	struct upstream *u = &w.ups[i];
	int k = u->client;

	tracer_conn_close(w.t, 200 + i, ++w.now);
	transfer(100 + i, PROXY, IO_RECV, "", 0, 0);
	tracer_conn_close(w.t, 100 + i, ++w.now);
	open_up(i);
	if (k >= 0)
		w.clients[k].stage = PENDING;
}

static void step(void)
{
	unsigned int k = roll(CLIENTS), i = roll(UPSTREAMS);
	struct client *c = &w.clients[k];
	struct upstream *u = &w.ups[i];

	if (c->stage == IDLE)
		read_request(k);
	else if (c->stage == PENDING)
		call(k);
	else if (c->stage == OFF)
		answer(k, c->begun ? body : whole, true);
	if (odd(ABORT_ONE_IN))
		go_away(k);
	if (u->busy && !u->head_sent && odd(RETRY_ONE_IN))
		fail_call(i);
	else if (u->busy && !u->body_sent && roll(2))
		serve(i);
	else if (u->busy && u->head_sent)
		pass_on(i);
	if (roll(50) == 0)
		tracer_tick(w.t, w.now);
}

static void play(uint32_t seed)
{
	static const struct tracer_options options = {
		.protocols = protocols_all,
		.sampler = { .root = SAMPLER_ALWAYS_ON, .parent_based = true },
	};
	static const struct tracer_ops ops = {
		.span = on_span,
		.resource = on_resource,
		.random = on_random,
	};
	unsigned int i;

	memset(w.truth, 0, sizeof(w.truth));
	memset(w.clients, 0, sizeof(w.clients));
	dice_seed = seed;
	w.now = 1000;
	w.count = 0;
	stats = (struct stats){ 0 };
	w.t = tracer_new(&options, &ops, &stats);
	for (i = 0; i < CLIENTS; i++)
		open_conn(i + 1, PROXY, true);
	for (i = 0; i < UPSTREAMS; i++)
		open_up(i);
	for (i = 0; i < STEPS; i++)
		step();
	tracer_flush(w.t, ++w.now);
	tracer_free(w.t);
}

/* --- what came of it --- */

struct score {
	unsigned int right, wrong, none;
};

static const struct seen *above(const struct seen *e)
{
	size_t i;

	for (i = 0; i < w.count; i++) {
		if (memcmp(w.seen[i].id, e->parent, SPAN_ID_BYTES) == 0)
			return &w.seen[i];
	}
	return NULL;
}

static void count_one(struct score *s, const struct seen *e, uint64_t parent_ns)
{
	const struct seen *p = e->linked ? above(e) : NULL;

	if (!e->linked)
		s->none++;
	else if (p && p->start_ns == parent_ns && memcmp(p->trace, e->trace, TRACE_ID_BYTES) == 0)
		s->right++;
	else
		s->wrong++;
}

static void count(struct score *calls, struct score *requests)
{
	size_t i;

	for (i = 0; i < w.count; i++) {
		const struct seen *e = &w.seen[i];

		if (e->kind == SPAN_CLIENT)
			count_one(calls, e, w.truth[e->start_ns].request_ns);
		else if (e->pid == SERVICE)
			count_one(requests, e, w.truth[e->start_ns].call_ns);
	}
}

static void play_all(const char *what, bool calm, bool held_heads, unsigned int targets,
		     unsigned int percent)
{
	struct score calls = { 0 }, requests = { 0 };
	uint32_t seed;

	w.calm = calm;
	w.held_heads = held_heads;
	w.targets = targets;
	for (seed = 1; seed <= 4; seed++) {
		play(seed * 7919);
		count(&calls, &requests);
	}
	printf("%s: calls %u right, %u wrong, %u none; requests %u right, %u wrong, %u none\n",
	       what, calls.right, calls.wrong, calls.none, requests.right, requests.wrong,
	       requests.none);
	CHECK(calls.wrong == 0);
	CHECK(requests.wrong == 0);
	CHECK(calls.right * 100 >= (calls.right + calls.none) * percent);
	CHECK(requests.right * 100 >= (requests.right + requests.none) * 98);
}

int main(void)
{
	w.seen = calloc(TIMES, sizeof(*w.seen));
	if (!w.seen)
		return 1;
	play_all("calm, heads held", true, true, 1, 98);
	play_all("calm", true, false, 1, 98);
	play_all("one target", false, true, 1, 20);
	play_all("one target, heads at once or held", false, false, 1, 20);
	play_all("four targets", false, false, 4, 50);
	free(w.seen);
	return check_result();
}
