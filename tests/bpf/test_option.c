/*
 * The TCP option: a probe that knows the caller only and one that knows the callee only, as on two
 * hosts. Each request that is received is compared with the call that was sent: what the option
 * brings is the very call's, and where none can go the bytes arrive all the same. Runs over
 * loopback; loss is made by socket filters.
 */
#include <fcntl.h>
#include <linux/filter.h>

#include "sockets.h"
#include "watch.h"

enum {
	REQUEST_MIN = 128,
	HEAD_MAX = 2048,
	REQUEST_MAX = 4 << 20,
	OPTION_SIZE = 28, /* of a segment */
	REQUESTS_MAX = 4096,
};

enum loss { LOSS_NONE, LOSS_OF_OPTIONS, LOSS_RANDOM };

struct scene {
	const char *name;
	enum family family;
	int segment;        /* TCP_MAXSEG; 0: what the way allows */
	bool defer;         /* the connection is established by its first data */
	bool head_apart;    /* the body is sent behind the head */
	bool corked;        /* both are held back until the body is there */
	bool close_each;    /* a connection for each call */
	bool open_before;   /* the connection was made before anybody looked */
	enum loss loss;     /* on the way to the callee */
	uint32_t calls;     /* so many */
	uint32_t size;      /* bytes of the first request */
	uint32_t size_step; /* of each further one so many more */
};

/* Shared with both children. */
struct stage {
	struct scene scene;
	struct address at;
	uint32_t mss;     /* of the caller's connection */
	uint32_t wrong;   /* requests with other bytes than were sent */
	uint32_t answers; /* that the caller has received */
};

static struct stage *stage;

/* --- what goes over the wire ------------------------------------------------------------------ */

static uint32_t request_size(uint32_t n)
{
	return stage->scene.size + n * stage->scene.size_step;
}

/* Call `n`, half of it a body or more. Returns the length of its head. */
static uint32_t request_make(uint32_t n, char *to)
{
	uint32_t size = request_size(n), head = size / 2 < HEAD_MAX ? size / 2 : HEAD_MAX;
	uint32_t body = size - head, i;
	int len = snprintf(to, head, "POST /%u HTTP/1.1\r\nContent-Length: %u\r\nX: ", n, body);

	for (i = (uint32_t)len; i < head - 4; i++)
		to[i] = 'x';
	memcpy(to + head - 4, "\r\n\r\n", 4);
	for (i = head; i < size; i++)
		to[i] = (char)(i * 31 + n);
	return head;
}

static int send_all(int fd, const char *from, size_t len, int flags)
{
	while (len) {
		ssize_t n = send(fd, from, len, flags | MSG_NOSIGNAL);

		if (n <= 0)
			return -1;
		from += n;
		len -= (size_t)n;
	}
	return 0;
}

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

static int call_on(int fd, uint32_t n, char *buf)
{
	const struct scene *s = &stage->scene;
	uint32_t size = request_size(n), head = request_make(n, buf);
	uint32_t first = s->head_apart || s->corked ? head : size;
	char got[sizeof(answer)];

	if (send_all(fd, buf, first, s->corked ? MSG_MORE : 0) ||
	    send_all(fd, buf + first, size - first, 0) ||
	    recv(fd, got, sizeof(answer) - 1, MSG_WAITALL) != (ssize_t)sizeof(answer) - 1)
		return -1;
	stage->answers++;
	return 0;
}

static int caller_connects(void)
{
	const struct scene *s = &stage->scene;
	int fd = socket(stage->at.at.ss_family, SOCK_STREAM, 0), one = 1, mss = 0;
	socklen_t len = sizeof(mss);

	if (s->segment)
		setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &s->segment, sizeof(s->segment));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&stage->at.at, stage->at.len) ||
	    getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &mss, &len))
		return -1;
	stage->mss = (uint32_t)mss;
	return fd;
}

static int caller_runs(void *arg)
{
	char *buf = malloc(REQUEST_MAX);
	uint32_t n;
	int fd = -1;

	(void)arg;
	for (n = 0; n < stage->scene.calls; n++) {
		if (fd < 0)
			fd = caller_connects();
		if (!n && stage->scene.open_before)
			child_says();
		if (fd < 0 || call_on(fd, n, buf))
			return 1;
		if (stage->scene.close_each) {
			close(fd);
			fd = -1;
		}
	}
	free(buf);
	return 0;
}

/* Loses a tenth of all segments, or all that have more than time stamps for options (a header of
 * more than 32 bytes) and aren't the first of a connection. */
static void lose(int fd)
{
	struct sock_filter random[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, UINT32_MAX / 10, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_filter options[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 2 /* SYN */, 3, 0),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 12),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 9 << 4, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = { COUNT(random), random };

	if (stage->scene.loss == LOSS_OF_OPTIONS)
		program = (struct sock_fprog){ COUNT(options), options };
	if (stage->scene.loss)
		CHECK(!setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
}

static int callee_listens(void)
{
	int fd = socket_listen(&stage->at, 8), seconds = 5;

	if (fd >= 0 && stage->scene.defer)
		setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
	lose(fd); /* and its connections */
	return fd;
}

static int callee_runs(void *arg)
{
	char *buf = malloc(REQUEST_MAX), *want = malloc(REQUEST_MAX);
	int listener = *(int *)arg, fd = -1;
	uint32_t n;

	for (n = 0; n < stage->scene.calls; n++) {
		size_t size = request_size(n);

		if (fd < 0)
			fd = accept(listener, NULL, NULL);
		request_make(n, want);
		if (recv(fd, buf, size, MSG_WAITALL) != (ssize_t)size)
			return 1;
		stage->wrong += memcmp(buf, want, size) != 0;
		if (send_all(fd, answer, sizeof(answer) - 1, 0))
			return 1;
		if (stage->scene.close_each) {
			close(fd);
			fd = -1;
		}
	}
	free(buf);
	free(want);
	return 0;
}

/* --- who watches ------------------------------------------------------------------------------ */

struct side {
	struct watch watch;
	struct request_event requests[REQUESTS_MAX];
	size_t count;
};

static struct side caller, callee;

static void on_request(void *ctx, const struct request_event *ev)
{
	struct watch *w = ctx; /* all sinks have it for theirs */
	struct side *side = w == &caller.watch ? &caller : &callee;

	if (side->count < REQUESTS_MAX)
		side->requests[side->count++] = *ev;
}

/* `sampler_root`: 0 all, 1 none. */
static void side_open(struct side *side, int sampler_root)
{
	const struct probe_options options = {
		.collector = PROBE_COLLECTOR_AUTO,
		.ring_bytes = WATCH_RING_BYTES,
		.capture_bytes = 512,
		.max_processes = WATCH_PROCESSES,
		.max_connections = WATCH_CONNECTIONS,
		.agent_pid = (uint32_t)getpid(),
		.sampler_root = sampler_root,
		.sampler_parent_based = true,
		.report_unsampled = true,
		.propagate = PROBE_PROPAGATE_TCP,
	};
	struct probe_sink sink;
	char *error = NULL;
	const char *why;
	int err;

	memset(side, 0, sizeof(*side));
	sink = watch_sink(&side->watch);
	sink.request = on_request;
	err = probe_open(&options, &sink, &side->watch.stats, &side->watch.probe, &error);
	if (err)
		check_skip(error ? error : strerror(-err));
	if (!(probe_propagates(side->watch.probe, &why) & PROBE_PROPAGATE_TCP) || why)
		check_skip(why ? why : "the TCP option does not work here");
}

static uint64_t dropped(struct side *side, enum drop_reason reason)
{
	return side->watch.stats.drops[reason];
}

/* --- scenes ----------------------------------------------------------------------------------- */

static void side_trace(const struct side *side, const struct child *child)
{
	CHECK(probe_trace(side->watch.probe, (uint32_t)child->pid) == 0);
	CHECK(probe_adopt(side->watch.probe, (uint32_t)child->pid) >= 0);
}

static void play(const struct scene *scene)
{
	struct child client, server;
	int listener, code;

	check_scene = scene->name;
	caller.count = callee.count = 0;
	watch_reset(&caller.watch);
	watch_reset(&callee.watch);
	memset(stage, 0, sizeof(*stage));
	stage->scene = *scene;
	stage->at = address_make(scene->family, 0);
	listener = callee_listens();
	server = child_make(callee_runs, &listener);
	client = child_make(caller_runs, NULL);
	if (scene->open_before) {
		child_go(&server);
		child_go(&client);
		CHECK(child_wait(&client));
	}
	side_trace(&callee, &server);
	side_trace(&caller, &client);
	child_go(&server);
	child_go(&client);
	code = child_end(&caller.watch, &client);
	CHECK_SAY(code == 0, "the caller ended with %d after %u answers", code, stage->answers);
	code = child_end(&callee.watch, &server);
	close(listener);
	CHECK_SAY(code == 0, "the callee ended with %d", code);
	CHECK_SAY(!stage->wrong, "%u requests arrived with other bytes", stage->wrong);
}

static const struct request_event *call_of(const struct request_event *request)
{
	size_t i;

	for (i = 0; i < caller.count; i++) {
		if (caller.requests[i].tcp_seq == request->tcp_seq &&
		    caller.requests[i].tcp_peer_seq == request->tcp_peer_seq)
			return &caller.requests[i];
	}
	return NULL;
}

/* How many requests have their call for a parent; all others must have none. */
static uint32_t parents(void)
{
	static const uint8_t none[8];
	uint32_t right = 0;
	size_t i;

	for (i = 0; i < callee.count; i++) {
		const struct request_event *r = &callee.requests[i], *c = call_of(r);

		CHECK_SAY(c != NULL, "request %zu is of no call", i);
		CHECK_SAY(!(r->flags & REQUEST_EVENT_JOINED), "request %zu is joined", i);
		if (!c || !(r->flags & REQUEST_EVENT_REMOTE)) {
			CHECK(memcmp(r->parent_span_id, none, sizeof(none)) == 0);
			continue;
		}
		CHECK_SAY(c->flags & REQUEST_EVENT_INJECTED, "call %zu was not said to be told", i);
		CHECK_SAY(memcmp(r->parent_span_id, c->span_id, sizeof(c->span_id)) == 0 &&
				  memcmp(r->trace_id, c->trace_id, sizeof(c->trace_id)) == 0,
			  "request %zu has other ids than its call", i);
		CHECK_SAY(!(r->flags & REQUEST_EVENT_SAMPLED) ==
				  !(c->flags & REQUEST_EVENT_SAMPLED),
			  "request %zu is kept where its call is not, or not where it is", i);
		right++;
	}
	return right;
}

static void check_counts(uint32_t calls)
{
	CHECK_SAY(caller.count == calls && callee.count == calls, "%zu calls, %zu requests of %u",
		  caller.count, callee.count, calls);
	CHECK(stage->answers == calls);
}

/* Every call has its option. */
static void check_all(const struct scene *scene)
{
	uint32_t right;

	play(scene);
	check_counts(scene->calls);
	right = parents();
	CHECK_SAY(right == scene->calls, "%u of %u", right, scene->calls);
	CHECK(!dropped(&caller, DROP_OPTION_SIZE));
}

/* A call has its option exactly when there is room for it. */
static void check_sizes(const struct scene *scene)
{
	uint32_t n, fit = 0, right;

	play(scene);
	check_counts(scene->calls);
	for (n = 0; n < scene->calls; n++)
		fit += request_size(n) + OPTION_SIZE <= stage->mss;
	right = parents();
	CHECK_SAY(right == fit, "%u with an option, %u fit into %u", right, fit, stage->mss);
	CHECK(dropped(&caller, DROP_OPTION_SIZE) == scene->calls - fit);
}

/* Nothing is wrong, whatever else happens. */
static uint32_t check_harmless(const struct scene *scene)
{
	play(scene);
	CHECK(stage->answers == scene->calls);
	return parents();
}

static const struct scene whole[] = {
	{ .name = "kept connection", .family = TCP4, .calls = 200, .size = 200 },
	{ .name = "IPv6", .family = TCP6, .calls = 50, .size = 300 },
	{ .name = "IPv4-mapped", .family = TCP4_MAPPED, .calls = 50, .size = 300 },
	{ .name = "a connection each",
	  .family = TCP4,
	  .calls = 50,
	  .size = 200,
	  .close_each = true },
	{ .name = "open before", .family = TCP6, .calls = 50, .size = 200, .open_before = true },
	{ .name = "first data establishes",
	  .family = TCP4,
	  .calls = 20,
	  .size = 200,
	  .defer = true,
	  .close_each = true },
	{ .name = "body behind the head",
	  .family = TCP4,
	  .calls = 50,
	  .size = 2000,
	  .head_apart = true },
	{ .name = "corked", .family = TCP4, .calls = 50, .size = 600, .corked = true },
};

static const struct scene sizes[] = {
	{ .name = "sizes, segments of 536",
	  .family = TCP4,
	  .calls = 300,
	  .size = 400,
	  .size_step = 1,
	  .segment = 536 },
	{ .name = "segments of 88",
	  .family = TCP4,
	  .calls = 50,
	  .size = REQUEST_MIN,
	  .size_step = 50,
	  .segment = 88 },
	{ .name = "large bodies", .family = TCP4, .calls = 16, .size = REQUEST_MAX },
	{ .name = "large bodies, segments of 88",
	  .family = TCP4,
	  .calls = 2,
	  .size = 1 << 18,
	  .segment = 88 },
};

static void check_corked(void)
{
	static const struct scene corked = { .name = "corked, too large",
					     .family = TCP4,
					     .calls = 20,
					     .size = 700,
					     .corked = true,
					     .segment = 536 };

	/* The head alone would have fit; it goes out with the body. */
	CHECK(check_harmless(&corked) == 0);
	CHECK(dropped(&caller, DROP_OPTION_SIZE) == corked.calls);
}

static void check_loss(void)
{
	static const struct scene random = { .name = "segments get lost",
					     .family = TCP4,
					     .calls = 60,
					     .size = 400,
					     .loss = LOSS_RANDOM };
	static const struct scene options = { .name = "options get lost",
					      .family = TCP6,
					      .calls = 30,
					      .size = 300,
					      .close_each = true,
					      .loss = LOSS_OF_OPTIONS };
	static const struct scene after = {
		.name = "the host rests", .family = TCP6, .calls = 10, .size = 300
	};

	check_harmless(&random);
	/* Three are lost, and no more go out to this host. */
	CHECK(check_harmless(&options) == 0);
	CHECK_SAY(dropped(&caller, DROP_OPTION_LOST) == 3, "%llu lost",
		  (unsigned long long)dropped(&caller, DROP_OPTION_LOST));
	CHECK(check_harmless(&after) == 0);
}

static void check_sampling(void)
{
	static const struct scene scene = {
		.name = "not sampled", .family = TCP4, .calls = 20, .size = 200
	};
	size_t i;

	side_open(&caller, 1);
	side_open(&callee, 0);
	check_all(&scene);
	for (i = 0; i < callee.count; i++)
		CHECK(!(callee.requests[i].flags & REQUEST_EVENT_SAMPLED));
	watch_close(&caller.watch);
	watch_close(&callee.watch);
}

int main(void)
{
	size_t i;

	stage = shared_memory(sizeof(*stage));
	side_open(&caller, 0);
	side_open(&callee, 0);
	for (i = 0; i < COUNT(whole); i++)
		check_all(&whole[i]);
	for (i = 0; i < COUNT(sizes); i++)
		check_sizes(&sizes[i]);
	check_corked();
	check_loss();
	watch_close(&caller.watch);
	watch_close(&callee.watch);
	check_sampling();
	return check_result();
}
