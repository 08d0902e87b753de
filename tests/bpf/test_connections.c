/*
 * What is told of a connection: family, addresses, ports, unix names, who connected, whether it is
 * new; connections older than the probe; their ends; and that a number is never used twice, though
 * the kernel uses the memory of a socket again.
 */
#include "sockets.h"
#include "watch.h"

enum { SOCKETPAIRS = 200, MOVED = 30 };

/* Shared with the child: what it made. */
struct made {
	enum family family;
	struct address listener; /* or what to listen on */
	struct address client;   /* the client's own */
};

/* --- names and addresses ---------------------------------------------------------------------- */

static int fresh_run(void *arg)
{
	struct made *m = arg;
	int fds[2];

	if (socket_pair(&m->listener, fds))
		return 1;
	m->client.len = sizeof(m->client.at);
	getsockname(fds[0], (struct sockaddr *)&m->client.at, &m->client.len);
	if (socket_move(fds[0], fds[1], MOVED) || socket_move(fds[1], fds[0], MOVED))
		return 2;
	close(fds[0]);
	close(fds[1]);
	return 0;
}

static bool is_loopback(enum family family, const uint8_t address[16])
{
	static const uint8_t four[4] = { 127, 0, 0, 1 };

	return family == TCP6 ? !memcmp(address, &in6addr_loopback, 16)
			      : !memcmp(address, four, sizeof(four));
}

static void check_tcp_end(const struct seen *s, const struct made *m, bool client)
{
	uint16_t here = address_port(client ? &m->client : &m->listener);
	uint16_t there = address_port(client ? &m->listener : &m->client);

	CHECK(s->conn.family == (m->family == TCP6 ? CONN_INET6 : CONN_INET));
	CHECK_SAY(s->conn.flags == (CONN_FRESH | (client ? CONN_ACTIVE : CONN_PASSIVE)),
		  "%s: flags %u", client ? "client" : "server", s->conn.flags);
	CHECK(is_loopback(m->family, s->conn.local) && is_loopback(m->family, s->conn.peer));
	CHECK_SAY(s->conn.local_port == here && s->conn.peer_port == there,
		  "ports %u and %u, not %u and %u", s->conn.local_port, s->conn.peer_port, here,
		  there);
}

static void check_tcp(struct watch *w, enum family family)
{
	struct made *m = shared_memory(sizeof(*m));
	const struct seen *client, *server, *s, *last_io = NULL;
	size_t at = 0, closed = 0;
	uint32_t pid;

	m->family = family;
	m->listener = address_make(family, 0);
	check_scene = family_names[family];
	watch_reset(w);
	pid = watch_run(w, fresh_run, m);
	client = watch_next(w, SEEN_OPEN, pid, &at);
	server = watch_next(w, SEEN_OPEN, pid, &at);
	CHECK(client && server && !watch_next(w, SEEN_OPEN, 0, &at));
	if (client && server) {
		check_tcp_end(client, m, true);
		check_tcp_end(server, m, false);
		CHECK(client->tid == pid && client->conn_id != server->conn_id);
		for (at = 0; (s = watch_next(w, SEEN_CLOSE, 0, &at));)
			closed += s->conn_id == client->conn_id || s->conn_id == server->conn_id;
		CHECK(closed == 2 && watch_count(w, SEEN_CLOSE, 0) == 2);
		for (at = 0; (s = watch_next(w, SEEN_IO, 0, &at));)
			last_io = s;
		s = watch_first(w, SEEN_CLOSE, 0);
		CHECK(s && last_io && s > last_io && s->ts_ns > last_io->ts_ns);
	}
	CHECK(watch_count(w, SEEN_CONNECT_FAILED, 0) == 0);
	munmap(m, sizeof(*m));
}

/* `name` is what the socket is bound to, `shown` how it is to be told. */
static void check_unix(struct watch *w, const char *scene, const void *name, size_t len,
		       const char *shown)
{
	struct made *m = shared_memory(sizeof(*m));
	const struct seen *client, *server;
	size_t at = 0;

	m->family = UNIX_STREAM;
	m->listener = address_unix(name, len);
	check_scene = scene;
	watch_reset(w);
	watch_run(w, fresh_run, m);
	client = watch_next(w, SEEN_OPEN, 0, &at);
	server = watch_next(w, SEEN_OPEN, 0, &at);
	CHECK(client && server);
	if (client && server) {
		CHECK(client->conn.family == CONN_UNIX && server->conn.family == CONN_UNIX);
		CHECK_SAY((client->conn.flags & (CONN_ACTIVE | CONN_PASSIVE)) == CONN_ACTIVE,
			  "client: flags %u", client->conn.flags);
		CHECK_SAY((server->conn.flags & (CONN_ACTIVE | CONN_PASSIVE)) == CONN_PASSIVE,
			  "server: flags %u", server->conn.flags);
		CHECK_SAY(strcmp(client->conn.path, shown) == 0, "client: '%s'", client->conn.path);
		CHECK_SAY(strcmp(server->conn.path, shown) == 0, "server: '%s'", server->conn.path);
	}
	munmap(m, sizeof(*m));
}

static void check_unix_names(struct watch *w)
{
	char path[64], longest[108], shown[CONN_PATH_BYTES];

	snprintf(path, sizeof(path), "/tmp/spanloom-test-%d", (int)getpid());
	check_unix(w, "a path", path, strlen(path) + 1, path);
	unlink(path);
	check_unix(w, "a path without its NUL", path, strlen(path), path);
	unlink(path);
	check_unix(w, "an abstract name", "\0spanloom test", 14, "@spanloom test");
	memset(longest, 'n', sizeof(longest));
	longest[0] = '\0';
	memset(shown, 'n', sizeof(shown));
	shown[0] = '@';
	shown[sizeof(shown) - 1] = '\0';
	check_unix(w, "the longest abstract name", longest, sizeof(longest), shown);
}

/* --- older than the probe --------------------------------------------------------------------- */

enum before { BEFORE_NOTHING, BEFORE_WAITS, BEFORE_HALF, BEFORE_ANSWERED, BEFORES };

static const char *const before_names[] = { "nothing yet", "a request that waits", "half a request",
					    "an exchange" };

struct older {
	enum family family;
	enum before before;
};

static int older_run(void *arg)
{
	const struct older *o = arg;
	struct address a = address_make(o->family, 0);
	char byte = 0;
	int fds[2];

	if (socket_pair(&a, fds))
		return 1;
	if (o->before == BEFORE_WAITS && write(fds[0], &byte, 1) != 1)
		return 2;
	if (o->before >= BEFORE_HALF && socket_move(fds[0], fds[1], 10))
		return 3;
	if (o->before == BEFORE_ANSWERED && socket_move(fds[1], fds[0], 10))
		return 4;
	child_says();
	if (o->before == BEFORE_WAITS && read(fds[1], &byte, 1) != 1)
		return 5;
	return socket_move(fds[0], fds[1], MOVED) || socket_move(fds[1], fds[0], MOVED);
}

/* The two ends, told apart by their port. */
static void check_older(struct watch *w, enum family family, enum before before)
{
	struct older o = { family, before };
	struct child c = child_make(older_run, &o);
	const struct seen *s;
	uint32_t passive = 0, other = 0, fresh_server = 0, fresh_client = 0;
	char scene[100];
	size_t at = 0;

	snprintf(scene, sizeof(scene), "%s, open before, %s", family_names[family],
		 before_names[before]);
	check_scene = scene;
	watch_reset(w);
	child_go(&c);
	CHECK(child_wait(&c));
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	while ((s = watch_next(w, SEEN_OPEN, (uint32_t)c.pid, &at))) {
		if (s->conn.flags & CONN_PASSIVE) {
			passive++;
			fresh_server += (s->conn.flags & CONN_FRESH) != 0;
		} else {
			other += !(s->conn.flags & CONN_ACTIVE) || family == UNIX_STREAM;
			fresh_client += (s->conn.flags & CONN_FRESH) != 0;
		}
	}
	CHECK_SAY(passive == 1 && other == 1, "%u passive, %u of unknown role", passive, other);
	if (family != UNIX_STREAM) {
		bool server = before == BEFORE_NOTHING || before == BEFORE_WAITS;
		bool client = before == BEFORE_NOTHING;

		CHECK_SAY(fresh_server == server, "server fresh: %u", fresh_server);
		CHECK_SAY(fresh_client == client, "client fresh: %u", fresh_client);
	}
	CHECK(watch_count(w, SEEN_IO, (uint32_t)c.pid) == (before == BEFORE_WAITS ? 5 : 4));
}

/* --- memory used again ------------------------------------------------------------------------ */

static int socketpairs_run(void *arg)
{
	struct address nobody = address_unix("\0spanloom nobody", 16);
	int i, fds[2], fd;

	(void)arg;
	for (i = 0; i < SOCKETPAIRS; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || socket_move(fds[0], fds[1], MOVED))
			return 1;
		close(fds[0]);
		close(fds[1]);
		/* Likely where one of them was. */
		if (socket_connect(&nobody, 0, &fd) != -ECONNREFUSED)
			return 2;
		close(fd);
	}
	return 0;
}

static void check_socketpairs(struct watch *w)
{
	const struct seen *s;
	uint64_t last = 0;
	size_t at = 0, opens = 0, wrong = 0, failed;
	uint32_t pid;

	check_scene = "socketpairs";
	watch_reset(w);
	pid = watch_run(w, socketpairs_run, NULL);
	while ((s = watch_next(w, SEEN_OPEN, pid, &at))) {
		opens++;
		wrong += s->conn_id <= last || s->conn.path[0] ||
			 (s->conn.flags & (CONN_ACTIVE | CONN_PASSIVE));
		last = s->conn_id;
	}
	CHECK_SAY(opens == 2 * SOCKETPAIRS && !wrong, "%zu of %d, %zu wrong", opens,
		  2 * SOCKETPAIRS, wrong);
	CHECK(watch_count(w, SEEN_IO, pid) == 2 * SOCKETPAIRS);
	/* The sock collector isn't told of them. */
	failed = strcmp(probe_collector_name(w->probe), "sock") == 0 ? 0 : SOCKETPAIRS;
	CHECK_SAY(watch_count(w, SEEN_CONNECT_FAILED, pid) == failed, "%zu of %zu failed connects",
		  watch_count(w, SEEN_CONNECT_FAILED, pid), failed);
}

static int many_run(void *arg)
{
	struct made *m = arg;
	int i;

	for (i = 0; i < SOCKETPAIRS / 4; i++) {
		m->listener = address_make(TCP4, 0);
		if (fresh_run(m))
			return 1;
	}
	return 0;
}

static void check_many(struct watch *w)
{
	struct made *m = shared_memory(sizeof(*m));
	const struct seen *s;
	uint64_t last = 0;
	size_t at = 0, wrong = 0;

	check_scene = "one connection after the other";
	watch_reset(w);
	watch_run(w, many_run, m);
	while ((s = watch_next(w, SEEN_OPEN, 0, &at))) {
		wrong += s->conn_id <= last && !(s->conn.flags & CONN_PASSIVE);
		wrong += !(s->conn.flags & CONN_FRESH);
		last = s->conn_id;
	}
	CHECK_SAY(watch_count(w, SEEN_OPEN, 0) == SOCKETPAIRS / 2 && !wrong, "%zu opened",
		  watch_count(w, SEEN_OPEN, 0));
	CHECK_SAY(watch_count(w, SEEN_CLOSE, 0) == SOCKETPAIRS / 2, "%zu closed",
		  watch_count(w, SEEN_CLOSE, 0));
	munmap(m, sizeof(*m));
}

static void check_collector(enum probe_collector collector)
{
	enum before b;
	enum family f;
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_tcp(&w, TCP4);
	check_tcp(&w, TCP6);
	check_tcp(&w, TCP4_MAPPED);
	check_unix_names(&w);
	for (f = 0; f < FAMILIES; f++) {
		for (b = 0; b < BEFORES; b++)
			check_older(&w, f, b);
	}
	check_socketpairs(&w);
	check_many(&w);
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
