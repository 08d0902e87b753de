/*
 * The trial: each scene is played on a pair of loopback sockets whose client is in the table.
 * Whatever is not exactly as TCP and the application have it is a failure; only FIONREAD is told
 * apart, since many programs never ask. It waits for nothing longer than SCENE_MS.
 */
#include "probe/inject_test.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "injection.h"

enum {
	SCENE_MS = 500,
	BODY_BYTES = 20000,
	STREAM_BYTES = 64 << 10,
	SMALL_BUFFER = 4608, /* the least that the kernel gives */
	ROUNDS = 24,         /* of requests whose memory is accounted for */
};

static const char HEADER[] = "traceparent: 00-01010101010101010101010101010101-0101010101010101"
			     "-01\r\n";

struct pair {
	int client, server;
};

struct scenes {
	int sockets, injections;
	struct pair pair;
	uint8_t *sent, *received; /* STREAM_BYTES each */
	bool inq_wrong;
};

static void pair_close(struct pair *p)
{
	if (p->client >= 0)
		close(p->client);
	if (p->server >= 0)
		close(p->server);
	p->client = p->server = -1;
}

/* A socket that listens on loopback, and where. */
static int listener_open(struct sockaddr_in *ret)
{
	socklen_t len = sizeof(*ret);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*ret = (struct sockaddr_in){ .sin_family = AF_INET };
	ret->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd >= 0 && !bind(fd, (struct sockaddr *)ret, sizeof(*ret)) && !listen(fd, 1) &&
	    !getsockname(fd, (struct sockaddr *)ret, &len))
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static int pair_open(struct pair *ret)
{
	struct sockaddr_in at;
	int one = 1, listener = listener_open(&at);

	*ret = (struct pair){ -1, -1 };
	if (listener < 0)
		return -errno;
	ret->client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ret->client >= 0 &&
	    (!connect(ret->client, (struct sockaddr *)&at, sizeof(at)) || errno == EINPROGRESS))
		ret->server = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	close(listener);
	if (ret->server < 0) {
		pair_close(ret);
		return -ECONNREFUSED;
	}
	setsockopt(ret->client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

/* Puts the client into the table. `known`: nothing has been sent yet, so a message begins with what
 * comes first. */
static int pair_enter(const struct scenes *s)
{
	struct injection state = { .flags = INJECTION_TEST, .phase = INJECTION_TRIAL };
	socklen_t len = sizeof(state.socket);
	uint64_t value = (uint64_t)s->pair.client;

	if (getsockopt(s->pair.client, SOL_SOCKET, SO_COOKIE, &state.socket, &len) ||
	    bpf_map_update_elem(s->injections, &s->pair.client, &state, BPF_ANY) ||
	    bpf_map_update_elem(s->sockets, &state.socket, &value, BPF_NOEXIST))
		return -errno;
	return 0;
}

static int wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, SCENE_MS) == 1 ? p.revents : 0;
}

/* Reads exactly `len` bytes, and that nothing is behind them. */
static bool received_is(struct scenes *s, const void *bytes, size_t len)
{
	size_t got = 0;
	ssize_t n;

	while (got < len && wait_for(s->pair.server, POLLIN)) {
		n = recv(s->pair.server, s->received + got, len - got, 0);
		if (n <= 0)
			return false;
		got += (size_t)n;
	}
	return got == len && !memcmp(s->received, bytes, len) &&
	       recv(s->pair.server, s->received, 1, 0) < 0 && errno == EAGAIN;
}

/* Sends `head` and `body` as one message and looks that they arrive, with the header if `injected`.
 */
static bool request_arrives(struct scenes *s, const char *head, const void *body, size_t body_len,
			    bool injected)
{
	size_t line = (size_t)(strchr(head, '\n') - head) + 1, head_len = strlen(head);
	struct iovec parts[2] = { { (void *)(uintptr_t)head, head_len },
				  { (void *)(uintptr_t)body, body_len } };
	size_t len = head_len + body_len;
	size_t added = injected ? sizeof(HEADER) - 1 : 0;
	uint8_t *expected = malloc(len + added);
	bool fine;

	if (!expected)
		return false;
	memcpy(expected, head, line);
	memcpy(expected + line, HEADER, added);
	memcpy(expected + line + added, head + line, head_len - line);
	memcpy(expected + added + head_len, body, body_len);
	fine = writev(s->pair.client, parts, 2) == (ssize_t)len &&
	       received_is(s, expected, len + added);
	free(expected);
	return fine;
}

static const char GET[] = "GET /trial?a=1 HTTP/1.1\r\nHost: trial\r\nAccept: */*\r\n\r\n";
static const char POST_BIG[] = "POST / HTTP/1.1\r\ncontent-length: 20000\r\n\r\n";
static const char POST_NEXT[] = "POST / HTTP/1.1\r\nContent-Length: 53\r\n\r\n";
static const char CHUNKED[] = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char CHUNKS[] = "5\r\nGET /\r\n10;x=y\r\n HTTP/1.1\r\nA: b\r\n\r\n0\r\nA: b\r\n\r\n";

/* An answer, without which nothing further is put in. */
static bool answered(struct scenes *s)
{
	return send(s->pair.server, "HTTP/1.1 204 \r\n\r\n", 17, 0) == 17 &&
	       wait_for(s->pair.client, POLLIN) &&
	       recv(s->pair.client, s->received, STREAM_BYTES, 0) == 17;
}

static const char *scene_bytes(struct scenes *s)
{
	static const char own[] = "GET / HTTP/1.1\r\nTraceParent: 00-1-1-1\r\n\r\n";
	int i;

	for (i = 0; i < 2; i++) {
		if (!request_arrives(s, GET, "", 0, true) || !answered(s))
			return "changes what is sent";
	}
	if (!request_arrives(s, own, "", 0, false) || !answered(s) ||
	    !request_arrives(s, POST_BIG, s->sent, BODY_BYTES, true) || !answered(s))
		return "changes what is sent";
	/* A body that looks like a request. */
	if (!request_arrives(s, POST_NEXT, "", 0, true) ||
	    send(s->pair.client, GET, sizeof(GET) - 1, 0) != (ssize_t)sizeof(GET) - 1 ||
	    !received_is(s, GET, sizeof(GET) - 1) || !answered(s))
		return "changes a request's body";
	if (!request_arrives(s, CHUNKED, CHUNKS, sizeof(CHUNKS) - 1, true) || !answered(s) ||
	    !request_arrives(s, GET, "", 0, true))
		return "changes what is sent";
	return NULL;
}

static bool inq_is(const struct scenes *s, int bytes)
{
	int inq = -1;

	return !ioctl(s->pair.client, FIONREAD, &inq) && inq == bytes;
}

static const char *scene_receive(struct scenes *s)
{
	char byte[2];
	int events;

	if (!request_arrives(s, GET, "", 0, true))
		return "changes what is sent";
	if (recv(s->pair.client, byte, 1, 0) >= 0 || errno != EAGAIN)
		return "doesn't say that nothing was received";
	if (send(s->pair.server, s->sent, 1000, 0) != 1000 ||
	    !(wait_for(s->pair.client, POLLIN) & POLLIN))
		return "doesn't say that something was received";
	s->inq_wrong = !inq_is(s, 1000);
	if (recv(s->pair.client, s->received, 400, MSG_PEEK) != 400 ||
	    recv(s->pair.client, s->received, 400, 0) != 400 ||
	    recv(s->pair.client, s->received + 400, 1000, 0) != 600 ||
	    memcmp(s->sent, s->received, 1000) != 0)
		return "changes what is received";
	if (shutdown(s->pair.server, SHUT_WR))
		return NULL;
	events = wait_for(s->pair.client, POLLIN | POLLRDHUP);
	if (!(events & POLLIN) || !(events & POLLRDHUP) || (events & (POLLHUP | POLLERR)) ||
	    recv(s->pair.client, byte, 1, 0))
		return "doesn't tell the end of the stream";
	/* The other direction goes on. */
	return request_arrives(s, GET, "", 0, true) ? NULL : "changes what is sent at the end";
}

static const char *scene_reset(struct scenes *s)
{
	struct linger now = { .l_onoff = 1 };
	char byte;

	setsockopt(s->pair.server, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(s->pair.server);
	s->pair.server = -1;
	if (!(wait_for(s->pair.client, POLLIN) & POLLERR) ||
	    recv(s->pair.client, &byte, 1, 0) >= 0 || errno != ECONNRESET)
		return "doesn't tell that a connection was reset";
	if (send(s->pair.client, GET, sizeof(GET) - 1, MSG_NOSIGNAL) >= 0 || errno != EPIPE)
		return "takes bytes for a connection that was reset";
	return NULL;
}

/* More than fits: what was taken is what arrives. */
static const char *scene_full(struct scenes *s)
{
	int small = SMALL_BUFFER;
	size_t taken = 0, got = 0;
	ssize_t n;

	setsockopt(s->pair.client, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(s->pair.server, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	if (!request_arrives(s, "POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", "", 0, true))
		return "changes what is sent into a small buffer";
	while (taken < STREAM_BYTES) {
		n = send(s->pair.client, s->sent + taken, STREAM_BYTES - taken, 0);
		if (n < 0 && errno != EAGAIN)
			return "refuses to send";
		if (n > 0)
			taken += (size_t)n;
		while ((n = recv(s->pair.server, s->received + got, STREAM_BYTES - got, 0)) > 0)
			got += (size_t)n;
	}
	while (got < taken && wait_for(s->pair.server, POLLIN)) {
		n = recv(s->pair.server, s->received + got, STREAM_BYTES - got, 0);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got == taken && !memcmp(s->sent, s->received, got) ? NULL
								  : "loses bytes that it took";
}

static const char *scene_sendfile(struct scenes *s)
{
	int file = memfd_create("trial", MFD_CLOEXEC);
	const char *wrong = "changes a file that is sent";
	off_t at = 0;

	if (file < 0 || write(file, s->sent, BODY_BYTES) != BODY_BYTES)
		wrong = NULL; /* no such file, no such scene */
	else if (request_arrives(s, POST_BIG, "", 0, true) &&
		 sendfile(s->pair.client, file, &at, BODY_BYTES) == BODY_BYTES &&
		 received_is(s, s->sent, BODY_BYTES) && answered(s) &&
		 request_arrives(s, GET, "", 0, true))
		wrong = NULL;
	if (file >= 0)
		close(file);
	return wrong;
}

/* Memory that the kernel keeps for the socket, in whole pages unless it was miscounted; -1: it
 * doesn't say. */
static long forward_memory(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) ||
	    len <= SK_MEMINFO_FWD_ALLOC * sizeof(info[0]))
		return -1;
	return (int32_t)info[SK_MEMINFO_FWD_ALLOC] + (int32_t)info[SK_MEMINFO_WMEM_QUEUED] +
	       (int32_t)info[SK_MEMINFO_RMEM_ALLOC];
}

static const char *scene_memory(struct scenes *s)
{
	long page = sysconf(_SC_PAGESIZE), before = forward_memory(s->pair.client), after;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		if (!request_arrives(s, GET, "", 0, true) || !answered(s))
			return "changes what is sent";
	}
	after = forward_memory(s->pair.client);
	return before >= 0 && before % page != after % page
		       ? "miscounts the memory of sockets whose bytes are changed"
		       : NULL;
}

static const char *(*const scenes_all[])(struct scenes *) = {
	scene_bytes, scene_receive, scene_reset, scene_full, scene_sendfile, scene_memory,
};

static int scene_play(struct scenes *s, const char *(*scene)(struct scenes *),
		      const char **ret_failed)
{
	int err = pair_open(&s->pair);

	if (err)
		return err;
	if (pair_enter(s))
		*ret_failed = "refuses to put a socket into a table";
	else
		*ret_failed = scene(s);
	pair_close(&s->pair);
	return 0;
}

int inject_trial(int sockets, int injections, struct trial *ret)
{
	struct scenes s = { .sockets = sockets, .injections = injections };
	struct trial result = { 0 };
	size_t i;
	int err = 0;

	s.sent = malloc(2 * STREAM_BYTES);
	if (!s.sent)
		return -ENOMEM;
	s.received = s.sent + STREAM_BYTES;
	for (i = 0; i < STREAM_BYTES; i++)
		s.sent[i] = (uint8_t)(i * 7 + (i >> 8));
	for (i = 0; i < sizeof(scenes_all) / sizeof(scenes_all[0]); i++) {
		err = scene_play(&s, scenes_all[i], &result.failed);
		if (err || result.failed)
			break;
	}
	free(s.sent);
	result.inq_wrong = s.inq_wrong;
	if (!err)
		*ret = result;
	return err;
}
