/*
 * Every system call that moves bytes, over every family, blocking and not, at the sizes where
 * something changes, in both collectors: the events say what was moved, byte for byte as far as it
 * is captured and by length always. Two traced processes talk over loopback or a unix socket.
 */
#include <pthread.h>

#include "judge.h"
#include "sockets.h"

enum mode { BLOCKING, NONBLOCKING, DONTWAIT, SMALL_BUFFERS, MODES };

static const char *const mode_names[] = { "blocking", "O_NONBLOCK", "MSG_DONTWAIT",
					  "small buffers" };

struct talk {
	enum family family;
	enum mode mode;
	int (*run)(void *talk);
	struct end ends[2]; /* client, server */
	int code;           /* of a thread */
};

static const size_t sizes[] = { 1,    63,   64,   65,   255,  256,  257,  1023,  1024,
				1025, 4095, 4096, 4097, 8191, 8192, 8193, 20000, 1 << 20 };
static const size_t vectors[] = { 1, 3, 8, 9, 40 };
static const enum call_op senders[] = { CALL_WRITE,    CALL_WRITEV,   CALL_SENDTO,  CALL_SENDMSG,
					CALL_SENDMMSG, CALL_SENDFILE, CALL_PWRITEV2 };
static const enum call_op receivers[] = { CALL_READ,    CALL_READV,    CALL_RECVFROM,
					  CALL_RECVMSG, CALL_RECVMMSG, CALL_PREADV2 };

/* --- the two ends ----------------------------------------------------------------------------- */

static void end_prepare(struct end *e, const struct talk *t)
{
	int one = 1, small = 4096;

	if (t->mode == NONBLOCKING || t->mode == SMALL_BUFFERS) {
		fcntl(e->fd, F_SETFL, O_NONBLOCK);
		e->nonblock = true;
	}
	if (t->mode == DONTWAIT)
		e->flags = MSG_DONTWAIT;
	if (t->mode == SMALL_BUFFERS)
		setsockopt(e->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	if (t->family != UNIX_STREAM)
		setsockopt(e->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	/* Each full buffer costs a delayed acknowledgement. */
	e->size_max = t->mode == SMALL_BUFFERS ? 60000 : CALL_BYTES_MAX;
	e->file = call_file(e->send_seed);
}

/* Both ends of a new connection. */
static int ends_connect(struct talk *t)
{
	struct end *client = &t->ends[0], *server = &t->ends[1];
	struct address a = address_make(t->family, 0);
	int fds[2];

	if (socket_pair(&a, fds))
		return -1;
	client->fd = fds[0];
	server->fd = fds[1];
	client->send_seed = server->recv_seed = 3;
	client->recv_seed = server->send_seed = 101;
	end_prepare(client, t);
	end_prepare(server, t);
	return 0;
}

/* Runs `client` here and `server` in a child of ours, which is traced like us. */
static int ends_run(struct talk *t, bool (*client)(struct end *), bool (*server)(struct end *))
{
	int status = 0;
	pid_t pid;

	if (ends_connect(t) || (pid = fork()) < 0)
		return 2;
	if (!pid) {
		close(t->ends[0].fd);
		_exit(server(&t->ends[1]) ? 0 : 3);
	}
	close(t->ends[1].fd);
	if (!client(&t->ends[0]))
		kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
}

/* --- every call at every size ----------------------------------------------------------------- */

static size_t all_size(const struct end *e, size_t size)
{
	return sizes[size] < e->size_max ? sizes[size] : e->size_max;
}

static size_t all_vectors(size_t op, size_t size)
{
	return vectors[(op + size) % COUNT(vectors)];
}

static bool all_client(struct end *e)
{
	size_t op, size;

	for (op = 0; op < COUNT(senders); op++) {
		for (size = 0; size < COUNT(sizes); size++) {
			if (!call_send(e, senders[op], all_size(e, size), all_vectors(op, size)) ||
			    !call_receive(e, CALL_READ, 1, 1))
				return false;
		}
	}
	shutdown(e->fd, SHUT_WR);
	e->shut_at = e->count;
	return call_again(e, -EAGAIN, POLLIN) && call_make(e, CALL_RECVFROM, 100, 1) == 0;
}

static bool all_server(struct end *e)
{
	size_t op, size;

	for (op = 0; op < COUNT(senders); op++) {
		for (size = 0; size < COUNT(sizes); size++) {
			enum call_op receiver = receivers[(op + size) % COUNT(receivers)];

			call_again(e, -EAGAIN, POLLIN);
			if (size % 4 == 0)
				call_peek(e, size % 8 == 0);
			if (!call_receive(e, receiver, all_size(e, size), all_vectors(size, op)) ||
			    call_make(e, CALL_SENDTO, 1, 1) != 1)
				return false;
		}
	}
	/* The end of the stream, and once more: it stays at its end. */
	if (!call_again(e, -EAGAIN, POLLIN) || call_make(e, CALL_READ, 100, 1) ||
	    call_make(e, CALL_RECVMSG, 100, 3))
		return false;
	close(e->fd);
	return true;
}

static int all_run(void *arg)
{
	return ends_run(arg, all_client, all_server);
}

/* --- what must not be seen, and the budget ---------------------------------------------------- */

static bool quiet_client(struct end *e)
{
	int domain = 0;
	socklen_t len = sizeof(domain);
	char byte;

	/* Nothing is there yet. */
	e->flags = MSG_DONTWAIT;
	e->nonblock = true;
	fcntl(e->fd, F_SETFL, O_NONBLOCK);
	if (call_make(e, CALL_READ, 10, 1) != -EAGAIN ||
	    call_make(e, CALL_RECVFROM, 10, 1) != -EAGAIN ||
	    call_make(e, CALL_RECVMSG, 10, 1) != -EAGAIN ||
	    call_make(e, CALL_RECVMMSG, 10, 1) != -EAGAIN)
		return false;
	if (call_make(e, CALL_WRITE, 0, 1) || call_make(e, CALL_SENDTO, 0, 1) ||
	    call_make(e, CALL_WRITEV, 0, 3) || call_make(e, CALL_SENDMSG, 0, 8) ||
	    call_make(e, CALL_SENDMMSG, 0, 1))
		return false;
	if (call_make(e, CALL_WRITE, 300, 1) != 300 || !call_again(e, -EAGAIN, POLLIN))
		return false;
	/* Nothing is asked for, so 0 is not the end. */
	call_peek(e, false);
	if (call_make(e, CALL_READ, 0, 1) || call_make(e, CALL_READV, 0, 3) ||
	    call_make(e, CALL_RECVFROM, 0, 1) || call_make(e, CALL_RECVMSG, 0, 3) ||
	    call_make(e, CALL_RECVMMSG, 0, 1))
		return false;
	getsockopt(e->fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	if (domain != AF_UNIX && recv(e->fd, &byte, 1, MSG_ERRQUEUE) >= 0)
		return false;
	return call_receive(e, CALL_READ, 300, 1) && shutdown(e->fd, SHUT_RDWR) == 0;
}

static bool quiet_server(struct end *e)
{
	return call_receive(e, CALL_READ, 300, 1) && call_make(e, CALL_WRITE, 300, 1) == 300 &&
	       call_make(e, CALL_READ, 10, 1) == 0;
}

static int quiet_run(void *arg)
{
	return ends_run(arg, quiet_client, quiet_server);
}

/* Long runs in one direction: the capture fades out, and comes back when the direction changes. */
static bool budget_client(struct end *e)
{
	static const size_t lengths[] = { 10, 8000, 20000, 300, 9000, 100, 128, 129, 50000 };
	size_t round, i;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < COUNT(lengths); i++) {
			if (!call_send(e, i % 2 ? CALL_WRITE : CALL_SENDMSG, lengths[i], 3))
				return false;
		}
		if (!call_receive(e, CALL_READ, 5, 1))
			return false;
	}
	return true;
}

static bool budget_server(struct end *e)
{
	size_t round;

	for (round = 0; round < 3; round++) {
		if (!call_receive(e, CALL_READ, 87667, 1) || !call_send(e, CALL_WRITE, 5, 1))
			return false;
	}
	return true;
}

static int budget_run(void *arg)
{
	return ends_run(arg, budget_client, budget_server);
}

static void *budget_thread(void *arg)
{
	struct talk *t = arg;

	t->code = ends_run(t, budget_client, budget_server);
	return NULL;
}

/* The client isn't the main thread. */
static int thread_run(void *arg)
{
	struct talk *t = arg;
	pthread_t thread;

	if (pthread_create(&thread, NULL, budget_thread, t))
		return 5;
	pthread_join(thread, NULL);
	return t->code;
}

/* The server throws away what is of no interest; the stream goes on behind it. */
static bool discard_client(struct end *e)
{
	return call_send(e, CALL_WRITE, 100, 1) && call_send(e, CALL_WRITE, 3000, 1) &&
	       call_send(e, CALL_WRITE, 200, 1) && call_receive(e, CALL_READ, 1, 1);
}

static bool discard_server(struct end *e)
{
	if (!call_receive(e, CALL_READ, 100, 1))
		return false;
	e->flags = MSG_TRUNC;
	if (!call_receive(e, CALL_RECVFROM, 3000, 1))
		return false;
	e->flags = 0;
	return call_receive(e, CALL_RECVMSG, 200, 3) && call_send(e, CALL_SENDTO, 1, 1);
}

static int discard_run(void *arg)
{
	return ends_run(arg, discard_client, discard_server);
}

/* --- errors ----------------------------------------------------------------------------------- */

static bool reset_client(struct end *e)
{
	struct pollfd p = { .fd = e->fd, .events = POLLRDHUP };

	if (!call_send(e, CALL_WRITE, 100, 1) || !call_receive(e, CALL_READ, 1, 1) ||
	    !call_send(e, CALL_WRITE, 100, 1))
		return false;
	poll(&p, 1, 5000);
	return call_make(e, CALL_RECVFROM, 10, 1) == -ECONNRESET &&
	       call_make(e, CALL_WRITE, 10, 1) == -EPIPE &&
	       call_make(e, CALL_SENDTO, 10, 1) == -EPIPE &&
	       call_make(e, CALL_SENDMSG, 10, 3) == -EPIPE &&
	       call_make(e, CALL_SENDMMSG, 10, 1) == -EPIPE;
}

/* Closes with bytes unread, which resets the connection. */
static bool reset_server(struct end *e)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };

	if (!call_receive(e, CALL_READ, 100, 1) || !call_send(e, CALL_WRITE, 1, 1))
		return false;
	poll(&p, 1, 5000);
	close(e->fd);
	return true;
}

static int reset_run(void *arg)
{
	return ends_run(arg, reset_client, reset_server);
}

/* --- the agent's side ------------------------------------------------------------------------- */

/* The sequence number under which a byte left is the one under which it arrived. */
static void check_seq(const struct judge *client, const struct judge *server)
{
	CHECK_SAY(client->seq_known[IO_SEND] && server->seq_known[IO_RECV] &&
			  client->seq0[IO_SEND] == server->seq0[IO_RECV],
		  "from the client: sent as %u, received as %u", client->seq0[IO_SEND],
		  server->seq0[IO_RECV]);
	CHECK_SAY(client->seq_known[IO_RECV] && server->seq_known[IO_SEND] &&
			  client->seq0[IO_RECV] == server->seq0[IO_SEND],
		  "from the server: sent as %u, received as %u", server->seq0[IO_SEND],
		  client->seq0[IO_RECV]);
}

static void talk_check(struct watch *w, enum probe_collector collector, struct talk *t,
		       const char *what)
{
	bool tcp = t->family != UNIX_STREAM;
	struct judge client = { .w = w, .end = &t->ends[0], .collector = collector, .tcp = tcp };
	struct judge server = { .w = w, .end = &t->ends[1], .collector = collector, .tcp = tcp };
	char scene[100];

	snprintf(scene, sizeof(scene), "%s, %s, %s, %s", collector_text(collector), what,
		 family_names[t->family], mode_names[t->mode]);
	check_scene = scene;
	watch_reset(w);
	watch_run(w, t->run, t);
	judge_end(&client, "client");
	judge_end(&server, "server");
	if (tcp)
		check_seq(&client, &server);
	CHECK(client.conn_id != server.conn_id);
	CHECK_SAY(watch_count(w, SEEN_OPEN, 0) == 2, "%zu connections opened",
		  watch_count(w, SEEN_OPEN, 0));
	CHECK_SAY(watch_count(w, SEEN_CLOSE, 0) == (tcp ? 2 : 0), "%zu connections closed",
		  watch_count(w, SEEN_CLOSE, 0));
	CHECK(!watch_count(w, SEEN_LOST, 0));
	CHECK_SAY(!w->stats.drops[DROP_READ_FAULT], "%llu faults",
		  (unsigned long long)w->stats.drops[DROP_READ_FAULT]);
	check_scene = "";
}

static void talk_new(struct watch *w, enum probe_collector collector, enum family family,
		     enum mode mode, int (*run)(void *), const char *what)
{
	struct talk *t = shared_memory(sizeof(*t));

	t->family = family;
	t->mode = mode;
	t->run = run;
	talk_check(w, collector, t, what);
	munmap(t, sizeof(*t));
}

static void check_collector(enum probe_collector collector)
{
	enum family f;
	enum mode m;
	struct watch w;

	watch_open(&w, collector, WATCH_RING_BYTES);
	for (f = 0; f < FAMILIES; f++) {
		for (m = 0; m < MODES; m++)
			talk_new(&w, collector, f, m, all_run, "every call");
		talk_new(&w, collector, f, BLOCKING, quiet_run, "nothing moved");
		talk_new(&w, collector, f, BLOCKING, budget_run, "long runs");
		talk_new(&w, collector, f, BLOCKING, thread_run, "from a thread");
		if (f != UNIX_STREAM)
			talk_new(&w, collector, f, BLOCKING, discard_run, "thrown away");
		talk_new(&w, collector, f, BLOCKING, reset_run, "reset");
	}
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
