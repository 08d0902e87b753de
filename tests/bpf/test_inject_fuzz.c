/*
 * What arrives is what was sent, less the header: three threads send requests in every way a
 * program may cut them, into buffers of all sizes, one after the other and several at once, with
 * bodies that look like requests; the server compares each byte. The same with agents that are
 * killed in the middle and others that take over. `test_inject_fuzz REQUESTS` or FUZZ_REQUESTS:
 * how many, 4000 else.
 */
#include <pthread.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "inject_stream.h"
#include "propagate.h"
#include "sockets.h"

enum {
	SENDERS = 3,
	REQUESTS_DEFAULT = 4000,
	KILL_REQUESTS = 3000, /* and at least so many kills: */
	KILLS = 8,
	KILL_MS = 250,
	CONNECTION_REQUESTS = 40,
	DEPTH_MAX = 4,
	WAIT_MS = 10000,
	SMALL_BUFFER = 4608,
	HEAD_FOLLOWED = 8192,
	FILE_BYTES = 8 << 20,
};

/* How a connection is used. */
struct traits {
	uint64_t seed;
	bool blocking, small, nodelay, whole; /* whole: each head in one send */
	uint32_t depth;                       /* requests before their answers are read */
	uint32_t count;
};

struct shared {
	struct address at[SENDERS]; /* where the server's threads listen */
	uint32_t requests;          /* of each sender */
	bool headers;               /* every one that can have a header must have one */
	uint32_t done, headers_seen, headers_due, wrong;
	bool over;
};

static struct shared *shared;

static struct traits traits_make(uint32_t sender, uint32_t number)
{
	uint64_t rnd = sender * 1000003ull + number * 7919ull + 11;
	struct traits t = { .seed = rnd };

	random_next(&rnd);
	t.blocking = random_next(&rnd) % 12 == 0;
	t.small = random_next(&rnd) % 5 == 0;
	t.nodelay = random_next(&rnd) % 16 != 0;
	t.whole = random_next(&rnd) % 3 != 0;
	t.depth = random_next(&rnd) % 3 ? 1 : 1 + random_next(&rnd) % DEPTH_MAX;
	t.count = 1 + random_next(&rnd) % CONNECTION_REQUESTS;
	return t;
}

/* Every request with a fitting head gets a header here. */
static bool traits_certain(const struct traits *t)
{
	return !t->blocking && !t->small && t->whole && t->depth == 1;
}

/* --- the client ------------------------------------------------------------------------------- */

struct client {
	struct traits traits;
	int fd, file;
	off_t at; /* in the file: what was sent of it is still the kernel's for a while */
	uint64_t rnd;
};

static bool wait_until(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, WAIT_MS) == 1;
}

/* One call that sends some of the bytes; as send(). */
static ssize_t send_some(struct client *c, const uint8_t *bytes, size_t len)
{
	struct iovec parts[3];
	size_t first = random_next(&c->rnd) % (len + 1);
	off_t at = c->at;

	switch (random_next(&c->rnd) % 6) {
	case 0:
		return write(c->fd, bytes, len);
	case 1:
		parts[0] = (struct iovec){ (void *)(uintptr_t)bytes, first };
		parts[1] = (struct iovec){ NULL, 0 };
		parts[2] = (struct iovec){ (void *)(uintptr_t)(bytes + first), len - first };
		return writev(c->fd, parts, 3);
	case 2:
		return send(c->fd, bytes, len, MSG_DONTWAIT);
	case 3:
		if (c->traits.whole || pwrite(c->file, bytes, len, at) != (ssize_t)len)
			return send(c->fd, bytes, len, MSG_NOSIGNAL);
		c->at = (at + (off_t)len) % FILE_BYTES;
		return sendfile(c->fd, c->file, &at, len);
	case 4:
		return send(c->fd, bytes, len, c->traits.whole ? 0 : MSG_MORE);
	default:
		return send(c->fd, bytes, len, 0);
	}
}

static bool send_all(struct client *c, const uint8_t *bytes, size_t len)
{
	size_t sent = 0, piece = len;

	while (sent < len) {
		ssize_t n = send_some(c, bytes + sent, piece < len - sent ? piece : len - sent);

		if (n < 0 && errno == EAGAIN) {
			if (!wait_until(c->fd, POLLOUT))
				return false;
			/* What is tried again may be cut otherwise, but for a whole head. */
			if (!c->traits.whole || sent)
				piece = random_next(&c->rnd) % 2 ? len
								 : 1 + random_next(&c->rnd) % len;
			continue;
		}
		if (n <= 0)
			return false;
		sent += (size_t)n;
	}
	return true;
}

/* A request in pieces as the connection's traits say. */
static bool request_send(struct client *c, const struct request *r)
{
	size_t at = 0, upto;

	while (at < r->len) {
		if (c->traits.whole)
			upto = !at && random_next(&c->rnd) % 2 ? r->head : r->len;
		else
			upto = at + 1 + random_next(&c->rnd) % (r->len - at);
		if (!send_all(c, r->bytes + at, upto - at))
			return false;
		at = upto;
	}
	return true;
}

static bool answers_read(struct client *c, uint32_t from, uint32_t upto)
{
	static __thread char expected[ANSWER_BODY_MAX + 128], got[ANSWER_BODY_MAX + 128];
	size_t len, have;
	ssize_t n;

	for (; from < upto; from++) {
		len = answer_make(expected, sizeof(expected), c->traits.seed, from);
		for (have = 0; have < len; have += (size_t)n) {
			if (!wait_until(c->fd, POLLIN))
				return false;
			n = recv(c->fd, got + have, len - have, 0);
			if (n < 0 && errno == EAGAIN)
				n = 0;
			else if (n <= 0)
				return false;
		}
		if (memcmp(got, expected, len) != 0)
			return false;
	}
	return true;
}

static bool client_open(struct client *c, uint32_t sender)
{
	int small = SMALL_BUFFER, one = 1;
	const struct address *at = &shared->at[sender];

	c->fd = socket(at->at.ss_family, SOCK_STREAM | (c->traits.blocking ? 0 : SOCK_NONBLOCK), 0);
	if (c->traits.small)
		setsockopt(c->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (c->traits.nodelay)
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(c->fd, (const struct sockaddr *)&at->at, at->len) && errno != EINPROGRESS)
		return false;
	return wait_until(c->fd, POLLOUT);
}

static bool client_run(struct client *c, uint32_t sender, struct request *r)
{
	uint32_t i, answered = 0;
	bool fine = client_open(c, sender);

	for (i = 0; fine && i < c->traits.count; i++) {
		request_make(r, c->traits.seed, i);
		fine = request_send(c, r);
		if (fine && (i + 1 - answered >= c->traits.depth || i + 1 == c->traits.count)) {
			fine = answers_read(c, answered, i + 1);
			answered = i + 1;
		}
	}
	if (!fine)
		printf("client %u: request %u (seed %llu): %s\n", sender, i,
		       (unsigned long long)c->traits.seed, strerror(errno));
	close(c->fd);
	return fine;
}

static void *sender_run(void *arg)
{
	uint32_t sender = (uint32_t)(uintptr_t)arg, number, sent = 0;
	struct request *r = malloc(sizeof(*r));
	struct client c = { .rnd = sender + 5, .file = memfd_create("fuzz", MFD_CLOEXEC) };

	for (number = 0; r && sent < shared->requests && !shared->wrong; number++) {
		c.traits = traits_make(sender, number);
		if (!client_run(&c, sender, r)) {
			__atomic_add_fetch(&shared->wrong, 1, __ATOMIC_RELAXED);
			break;
		}
		sent += c.traits.count;
	}
	close(c.file);
	free(r);
	return NULL;
}

static int clients_run(void *arg)
{
	pthread_t threads[SENDERS];
	uintptr_t i;

	(void)arg;
	for (i = 0; i < SENDERS; i++)
		pthread_create(&threads[i], NULL, sender_run, (void *)i);
	for (i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	return shared->wrong != 0;
}

/* --- the server ------------------------------------------------------------------------------- */

struct server {
	struct request request;
	uint8_t buf[2 * REQUEST_BYTES_MAX];
	size_t have;
	bool left; /* a head that is too long has gone by: no more headers here */
	char answer[ANSWER_BODY_MAX + 128];
};

/* Must the request have a header? */
static bool header_due(struct server *s, const struct traits *t)
{
	s->left |= s->request.head > HEAD_FOLLOWED;
	return traits_certain(t) && s->request.plain && !s->left;
}

static void header_missed(bool header, const struct traits *t, uint32_t request)
{
	if (header || !shared->headers)
		return;
	printf("no header: seed %llu, request %u\n", (unsigned long long)t->seed, request);
	__atomic_add_fetch(&shared->wrong, 1, __ATOMIC_RELAXED);
}

/* Whatever of requests is there whole is compared and answered. False: the bytes are wrong. */
static bool server_answer(struct server *s, int fd, const struct traits *t, uint32_t *next)
{
	bool header = false;
	long taken;
	size_t len;

	while (s->have && *next < t->count) {
		request_make(&s->request, t->seed, *next);
		taken = request_compare(&s->request, s->buf, s->have, &header);
		if (taken < 0)
			return false;
		if (!taken)
			return true;
		memmove(s->buf, s->buf + taken, s->have - (size_t)taken);
		s->have -= (size_t)taken;
		len = answer_make(s->answer, sizeof(s->answer), t->seed, *next);
		__atomic_add_fetch(&shared->headers_seen, header, __ATOMIC_RELAXED);
		if (header_due(s, t)) {
			__atomic_add_fetch(&shared->headers_due, 1, __ATOMIC_RELAXED);
			header_missed(header, t, *next);
		}
		__atomic_add_fetch(&shared->done, 1, __ATOMIC_RELAXED);
		++*next;
		if (send(fd, s->answer, len, MSG_NOSIGNAL) != (ssize_t)len)
			return false;
	}
	return !s->have;
}

static bool server_serve(struct server *s, int fd, const struct traits *t)
{
	uint32_t next = 0;
	int one = 1;
	ssize_t n;

	s->have = 0;
	s->left = false;
	while ((n = recv(fd, s->buf + s->have, sizeof(s->buf) - s->have, 0)) > 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
		s->have += (size_t)n;
		if (!server_answer(s, fd, t, &next))
			break;
	}
	if (n == 0 && next == t->count)
		return true;
	printf("server: seed %llu, request %u, %zu bytes: %.200s\n", (unsigned long long)t->seed,
	       next, s->have, (const char *)s->buf);
	return false;
}

static void *server_run(void *arg)
{
	struct server *s = malloc(sizeof(*s));
	uint32_t number;
	int listener = ((int *)arg)[0], sender = ((int *)arg)[1], fd;

	for (number = 0; s && wait_until(listener, POLLIN); number++) {
		struct traits t = traits_make((uint32_t)sender, number);
		int small = SMALL_BUFFER;

		fd = accept(listener, NULL, NULL);
		if (fd < 0 || shared->over)
			break;
		if (t.small)
			setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		if (!server_serve(s, fd, &t))
			__atomic_add_fetch(&shared->wrong, 1, __ATOMIC_RELAXED);
		close(fd);
	}
	free(s);
	return NULL;
}

/* --- rounds ----------------------------------------------------------------------------------- */

struct servers {
	pthread_t threads[SENDERS];
	int listeners[SENDERS][2];
};

static void servers_start(struct servers *s)
{
	uint32_t i;

	for (i = 0; i < SENDERS; i++) {
		shared->at[i] = address_make(i % 2 ? TCP6 : TCP4, 0);
		s->listeners[i][0] = socket_listen(&shared->at[i], 8);
		s->listeners[i][1] = (int)i;
		pthread_create(&s->threads[i], NULL, server_run, s->listeners[i]);
	}
}

static void servers_stop(struct servers *s)
{
	uint32_t i;
	int fd;

	shared->over = true;
	for (i = 0; i < SENDERS; i++) {
		socket_connect(&shared->at[i], 0, &fd);
		pthread_join(s->threads[i], NULL);
		close(fd);
		close(s->listeners[i][0]);
	}
}

static void round_begin(uint32_t requests, bool headers)
{
	memset(shared, 0, sizeof(*shared));
	shared->requests = requests / SENDERS;
	shared->headers = headers;
}

/* Forgets what has come, but for what was counted. */
static void drops_take(struct watch *w, uint64_t drops[DROP_REASON_COUNT])
{
	size_t i;

	probe_collect_drops(w->probe);
	for (i = 0; i < DROP_REASON_COUNT; i++)
		drops[i] += w->stats.drops[i];
	watch_reset(w);
}

static void drops_print(const uint64_t drops[DROP_REASON_COUNT])
{
	size_t i;

	for (i = 0; i < DROP_REASON_COUNT; i++)
		if (drops[i])
			printf("  %s: %llu\n", drop_reason_name((enum drop_reason)i),
			       (unsigned long long)drops[i]);
}

static void check_fuzz(uint32_t requests)
{
	struct servers servers;
	uint64_t begin, drops[DROP_REASON_COUNT] = { 0 };
	struct child clients;
	struct watch w;
	int code = -1, status = 0;

	check_scene = "fuzz";
	round_begin(requests, true);
	servers_start(&servers);
	clients = child_make(clients_run, NULL);
	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	CHECK(probe_trace(w.probe, (uint32_t)clients.pid) == 0);
	begin = now_ns();
	child_go(&clients);
	while (waitpid(clients.pid, &status, WNOHANG) == 0) {
		drops_take(&w, drops);
		sleep_ms(5);
	}
	code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	CHECK_SAY(code == 0, "the clients ended with %d", code);
	if (shared->wrong)
		drops_print(drops);
	CHECK(shared->wrong == 0 && shared->done >= requests / SENDERS * SENDERS);
	CHECK(shared->headers_seen > shared->headers_due && shared->headers_due > 0);
	printf("  %u requests in %llu ms, %u with a header, of %u that had to\n", shared->done,
	       (unsigned long long)(now_ns() - begin) / 1000000, shared->headers_seen,
	       shared->headers_due);
	watch_close(&w);
	servers_stop(&servers);
}

/* Traces the clients until it is killed. */
static int agent_run(void *arg)
{
	uint32_t pid = *(uint32_t *)arg;
	struct watch w;

	propagate_open(&w, PROBE_COLLECTOR_AUTO, 0, true);
	if (probe_trace(w.probe, pid))
		return 1;
	probe_adopt(w.probe, pid);
	child_says();
	for (;;) {
		watch_reset(&w);
		sleep_ms(5);
	}
}

static void check_killed(void)
{
	struct servers servers;
	struct child clients;
	int status = 0, kills;
	uint32_t pid;

	check_scene = "killed agents";
	round_begin(100000000, false);
	servers_start(&servers);
	clients = child_make(clients_run, NULL);
	pid = (uint32_t)clients.pid;
	child_go(&clients);
	for (kills = 0; (kills < KILLS || shared->done < KILL_REQUESTS) && !shared->wrong;
	     kills++) {
		struct child agent = child_make(agent_run, &pid);

		child_go(&agent);
		CHECK(child_wait(&agent));
		child_go(&agent);
		sleep_ms(KILL_MS + 170 * (kills % 3));
		kill(agent.pid, SIGKILL);
		waitpid(agent.pid, &status, 0);
		CHECK(WIFSIGNALED(status));
		close(agent.go);
		close(agent.at);
	}
	CHECK(shared->headers_seen > 0);
	CHECK(waitpid(clients.pid, &status, WNOHANG) == 0 && shared->wrong == 0);
	/* What is under way comes to its end. */
	__atomic_store_n(&shared->requests, 0, __ATOMIC_RELAXED);
	waitpid(clients.pid, &status, 0);
	CHECK_SAY(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the clients ended with %x",
		  (unsigned)status);
	printf("  %u requests, %u with a header, %d kills\n", shared->done, shared->headers_seen,
	       kills);
	close(clients.go);
	close(clients.at);
	servers_stop(&servers);
}

int main(int argc, char **argv)
{
	const char *text = argc > 1 ? argv[1] : getenv("FUZZ_REQUESTS");
	uint32_t requests = text ? (uint32_t)strtoul(text, NULL, 10) : REQUESTS_DEFAULT;

	run_as_curl(argv);
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = shared_memory(sizeof(*shared));
	check_fuzz(requests ? requests : REQUESTS_DEFAULT);
	check_killed();
	return check_result();
}
