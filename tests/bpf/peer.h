/*
 * A server that is not traced: a thread that keeps every byte it receives and answers each head.
 * And what a traced client does with it.
 */
#ifndef TESTS_BPF_PEER_H
#define TESTS_BPF_PEER_H

#include <pthread.h>

#include "sockets.h"
#include "watch.h"

enum { PEER_BYTES = 1 << 16, PEER_MS = 5000, PEER_SETTLE_MS = 150 };

static const char PEER_ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct peer {
	struct address at;
	enum family family;
	int listener;
	pthread_t thread;
	bool over;
	bool holds; /* its answers, until it doesn't any more */
	size_t len; /* of all connections, one after the other */
	char bytes[PEER_BYTES];
};

static inline bool peer_wait(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, PEER_MS) == 1;
}

static inline void peer_answer(const struct peer *p, int fd)
{
	while (__atomic_load_n(&p->holds, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	send(fd, PEER_ANSWER, sizeof(PEER_ANSWER) - 1, MSG_NOSIGNAL);
}

/* Reads until the end; answers whenever what has come ends with a head's end, or a body's "!". */
static inline void peer_serve(struct peer *p, int fd)
{
	ssize_t n;

	while ((n = recv(fd, p->bytes + p->len, PEER_BYTES - 1 - p->len, 0)) > 0) {
		p->len += (size_t)n;
		p->bytes[p->len] = '\0';
		if (p->bytes[p->len - 1] == '!' ||
		    (p->len >= 4 && memcmp(p->bytes + p->len - 4, "\r\n\r\n", 4) == 0))
			peer_answer(p, fd);
	}
}

static inline void *peer_run(void *arg)
{
	struct peer *p = arg;
	int fd;

	while (peer_wait(p->listener, POLLIN)) {
		fd = accept(p->listener, NULL, NULL);
		if (fd < 0 || p->over)
			break;
		peer_serve(p, fd);
		close(fd);
	}
	return NULL;
}

/* In memory shared with the children. */
static inline struct peer *peer_start(enum family family)
{
	struct peer *p = shared_memory(sizeof(*p));

	p->family = family;
	p->at = address_make(family, 0);
	p->listener = socket_listen(&p->at, 16);
	if (p->listener < 0 || pthread_create(&p->thread, NULL, peer_run, p)) {
		perror("peer");
		exit(1);
	}
	return p;
}

static inline void peer_end(struct peer *p)
{
	int fd;

	p->over = true;
	socket_connect(&p->at, 0, &fd);
	pthread_join(p->thread, NULL);
	close(fd);
	close(p->listener);
	munmap(p, sizeof(*p));
}

/* How often `what` stands in what the peer received. */
static inline size_t times(const struct peer *p, const char *what)
{
	const char *at = p->bytes;
	size_t n = 0;

	while ((at = strstr(at, what))) {
		at += strlen(what);
		n++;
	}
	return n;
}

/* --- the client ------------------------------------------------------------------------------- */

/* `type`: SOCK_NONBLOCK or 0. */
static inline int client_connect(const struct peer *p, int type)
{
	int fd, err = socket_connect(&p->at, type, &fd);

	return (!err || err == -EINPROGRESS) && peer_wait(fd, POLLOUT) ? fd : -1;
}

static inline bool client_sends(int fd, const char *text)
{
	/* Of memory that is there: in a child that has not touched a page of its program file yet
	 * the kernel side can't look at it before TCP does. */
	char *copy = strdup(text);
	ssize_t sent = copy ? send(fd, copy, strlen(copy), MSG_NOSIGNAL) : -1;

	free(copy);
	return sent == (ssize_t)strlen(text);
}

static inline bool client_reads(int fd)
{
	char got[sizeof(PEER_ANSWER)];
	size_t have = 0;
	ssize_t n;

	while (have < sizeof(PEER_ANSWER) - 1 && peer_wait(fd, POLLIN)) {
		n = recv(fd, got + have, sizeof(PEER_ANSWER) - 1 - have, 0);
		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return have == sizeof(PEER_ANSWER) - 1 && memcmp(got, PEER_ANSWER, have) == 0;
}

static inline bool client_asks(int fd, const char *text)
{
	return client_sends(fd, text) && client_reads(fd);
}

#endif
