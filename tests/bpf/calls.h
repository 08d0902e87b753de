/*
 * The traced end of the BPF tests: every system call that can move bytes through a socket, made in
 * a traced child, each written down with what it returned. Byte `at` of a stream is pattern(seed,
 * at), so whoever knows the place of a byte knows the byte. It refuses to judge: the other side
 * compares the events with this log.
 */
#ifndef TESTS_BPF_CALLS_H
#define TESTS_BPF_CALLS_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "watch.h"

enum { CALLS_MAX = 8192, CALL_BYTES_MAX = 1 << 20, CALL_VECTOR_MAX = 40, CALL_MESSAGES = 3 };

enum call_op {
	CALL_WRITE,
	CALL_WRITEV,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_SENDFILE,
	CALL_PWRITEV2,
	CALL_READ,
	CALL_READV,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_PREADV2,
};

static const char *const call_names[] = {
	"write", "writev", "sendto",   "sendmsg", "sendmmsg", "sendfile", "pwritev2",
	"read",  "readv",  "recvfrom", "recvmsg", "recvmmsg", "preadv2",
};

struct call {
	enum call_op op;
	uint32_t tid;
	int64_t ret; /* bytes, or a negative errno */
	uint64_t begin_ns, end_ns;
	uint32_t followed; /* of the bytes, those in buffers that are followed one by one */
	uint32_t messages[CALL_MESSAGES]; /* sendmmsg, recvmmsg: bytes of each */
	bool send, nonblock;
	bool quiet; /* must not be seen: MSG_PEEK, a length of zero */
};

/* One end of one connection; in shared memory. */
struct end {
	int fd;
	int flags; /* of every call that takes some */
	int file;  /* from call_file(send_seed), for sendfile */
	uint32_t pid;
	uint8_t send_seed, recv_seed;
	bool nonblock; /* O_NONBLOCK */
	uint64_t sent, received;
	size_t size_max;  /* larger transfers are made this large */
	uint32_t shut_at; /* so many calls were made before shutdown(SHUT_WR); 0: never */
	uint32_t count;
	uint32_t wrong; /* bytes received that aren't the pattern's */
	struct call calls[CALLS_MAX];
};

/* So many buffers of a vector, empty ones too, are followed: PIECES_MAX of bpf/connection.bpf.h. */
enum { FOLLOWED_PIECES = 8 };

/* Comes again every CALL_BYTES_MAX. */
static inline uint8_t pattern(uint8_t seed, uint64_t at)
{
	return (uint8_t)(seed + at * 7 + (at >> 8) * 13 + (at >> 16) * 16);
}

static inline void pattern_fill(uint8_t *buf, size_t len, uint8_t seed, uint64_t at)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = pattern(seed, at + i);
}

static uint8_t call_buffer[CALL_BYTES_MAX];

/* A file of twice CALL_BYTES_MAX, so that as much can be sent from any place of the first half. */
static inline int call_file(uint8_t seed)
{
	int fd = memfd_create("pattern", MFD_CLOEXEC), i;

	pattern_fill(call_buffer, CALL_BYTES_MAX, seed, 0);
	for (i = 0; i < 2; i++) {
		if (write(fd, call_buffer, CALL_BYTES_MAX) != CALL_BYTES_MAX)
			return -1;
	}
	return fd;
}

/* Spreads `len` bytes over `count` buffers; from three on every third (the second, fifth, ...) is
 * empty. */
static inline void vector_make(struct iovec *v, size_t count, uint8_t *buf, size_t len)
{
	size_t full = count - (count + 1) / 3, share = len / full, i, at = 0, used = 0;

	for (i = 0; i < count; i++) {
		bool empty = i % 3 == 1;

		v[i].iov_base = buf + at;
		v[i].iov_len = empty ? 0 : ++used == full ? len - at : share;
		at += v[i].iov_len;
	}
}

/* How much of the first `moved` bytes lies in pieces that are followed, and in how many. */
static inline void vector_followed(struct call *c, const struct iovec *v, size_t count,
				   size_t moved)
{
	size_t i;

	for (i = 0; i < count && moved; i++) {
		size_t len = v[i].iov_len < moved ? v[i].iov_len : moved;

		if (i < FOLLOWED_PIECES)
			c->followed += (uint32_t)len;
		moved -= len;
	}
}

static inline bool call_has_flags(enum call_op op)
{
	return op == CALL_SENDTO || op == CALL_SENDMSG || op == CALL_SENDMMSG ||
	       op == CALL_RECVFROM || op == CALL_RECVMSG || op == CALL_RECVMMSG;
}

static inline struct call *call_begin(struct end *e, enum call_op op)
{
	struct call *c;

	if (e->count == CALLS_MAX) {
		fprintf(stderr, "the log of calls is full\n");
		_exit(97);
	}
	c = &e->calls[e->count++];
	memset(c, 0, sizeof(*c));
	c->op = op;
	c->send = op < CALL_READ;
	c->tid = (uint32_t)syscall(SYS_gettid);
	c->nonblock = e->nonblock || ((e->flags & MSG_DONTWAIT) && call_has_flags(op));
	e->pid = (uint32_t)getpid();
	return c;
}

/* sendmmsg and recvmmsg, with the bytes spread over some messages: the first ones may be empty. */
static inline int64_t messages_call(struct end *e, struct call *c, uint8_t *buf, size_t len)
{
	struct mmsghdr m[CALL_MESSAGES];
	struct iovec v[CALL_MESSAGES];
	size_t count = CALL_MESSAGES, share = len / count, i;
	int64_t moved = 0;
	int n, k;

	memset(m, 0, sizeof(m));
	if (!c->send && !share) { /* into a message of no bytes nothing would come */
		count = len ? len : 1;
		share = len / count;
	}
	for (i = 0; i < count; i++) {
		v[i].iov_base = buf + i * share;
		v[i].iov_len = i == count - 1 ? len - i * share : share;
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	if (c->send)
		n = sendmmsg(e->fd, m, (unsigned int)count, e->flags);
	else
		n = recvmmsg(e->fd, m, (unsigned int)count, e->flags | MSG_WAITFORONE, NULL);
	if (n < 0)
		return -errno;
	for (k = 0; k < n; k++) {
		/* A stream's bytes come one behind the other, however full each message is. */
		if (!c->send)
			memmove(buf + moved, v[k].iov_base, m[k].msg_len);
		moved += c->messages[k] = m[k].msg_len;
	}
	c->followed = (uint32_t)moved;
	return moved;
}

static inline int64_t vector_call(struct end *e, struct call *c, uint8_t *buf, size_t len,
				  size_t count)
{
	struct iovec v[CALL_VECTOR_MAX];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = count };
	ssize_t n;

	vector_make(v, count, buf, len);
	switch (c->op) {
	case CALL_WRITEV:
		n = writev(e->fd, v, (int)count);
		break;
	case CALL_PWRITEV2:
		n = pwritev2(e->fd, v, (int)count, -1, 0);
		break;
	case CALL_SENDMSG:
		n = sendmsg(e->fd, &m, e->flags);
		break;
	case CALL_READV:
		n = readv(e->fd, v, (int)count);
		break;
	case CALL_PREADV2:
		n = preadv2(e->fd, v, (int)count, -1, 0);
		break;
	default:
		n = recvmsg(e->fd, &m, e->flags);
	}
	if (n < 0)
		return -errno;
	vector_followed(c, v, count, (size_t)n);
	return n;
}

static inline int64_t buffer_call(struct end *e, struct call *c, uint8_t *buf, size_t len)
{
	off_t place = (off_t)(e->sent % CALL_BYTES_MAX);
	ssize_t n;

	switch (c->op) {
	case CALL_WRITE:
		n = write(e->fd, buf, len);
		break;
	case CALL_SENDTO:
		n = send(e->fd, buf, len, e->flags);
		break;
	case CALL_SENDFILE:
		n = sendfile(e->fd, e->file, &place, len);
		break;
	case CALL_READ:
		n = read(e->fd, buf, len);
		break;
	default:
		n = recv(e->fd, buf, len, e->flags);
	}
	if (n < 0)
		return -errno;
	c->followed = (uint32_t)n;
	return n;
}

/*
 * One system call with `len` bytes in `vectors` buffers, written down. Bytes, 0, or -errno. At
 * most CALL_BYTES_MAX.
 */
static inline int64_t call_make(struct end *e, enum call_op op, size_t len, size_t vectors)
{
	struct call *c = call_begin(e, op);
	size_t i;

	c->quiet = !len;
	if (c->send)
		pattern_fill(call_buffer, len, e->send_seed, e->sent);
	c->begin_ns = now_ns();
	if (op == CALL_SENDMMSG || op == CALL_RECVMMSG)
		c->ret = messages_call(e, c, call_buffer, len);
	else if (op == CALL_WRITEV || op == CALL_SENDMSG || op == CALL_PWRITEV2 ||
		 op == CALL_READV || op == CALL_RECVMSG || op == CALL_PREADV2)
		c->ret = vector_call(e, c, call_buffer, len, vectors);
	else
		c->ret = buffer_call(e, c, call_buffer, len);
	c->end_ns = now_ns();
	if (c->ret <= 0)
		return c->ret;
	if (op == CALL_RECVFROM && (e->flags & MSG_TRUNC)) {
		c->followed = 0; /* TCP threw them away */
		e->received += (uint64_t)c->ret;
		return c->ret;
	}
	if (c->send) {
		e->sent += (uint64_t)c->ret;
		return c->ret;
	}
	for (i = 0; i < (size_t)c->ret; i++)
		e->wrong += call_buffer[i] != pattern(e->recv_seed, e->received + i);
	e->received += (uint64_t)c->ret;
	return c->ret;
}

static inline bool call_again(struct end *e, int64_t ret, short events)
{
	struct pollfd p = { .fd = e->fd, .events = events };

	return ret == -EAGAIN && poll(&p, 1, 5000) == 1;
}

/* Sends all of `len`, in as many calls as it takes. False: it failed. */
static inline bool call_send(struct end *e, enum call_op op, size_t len, size_t vectors)
{
	uint64_t end = e->sent + len;

	while (e->sent < end) {
		int64_t n = call_make(e, op, end - e->sent, vectors);

		if (n <= 0 && !call_again(e, n, POLLOUT))
			return false;
	}
	return true;
}

/* Receives exactly `len`, in as many calls as it takes. False: it failed or ended before. */
static inline bool call_receive(struct end *e, enum call_op op, size_t len, size_t vectors)
{
	uint64_t end = e->received + len;

	while (e->received < end) {
		int64_t n = call_make(e, op, end - e->received, vectors);

		if (n <= 0 && !call_again(e, n, POLLIN))
			return false;
	}
	return true;
}

/* A look at what comes next without taking it: never to be seen. */
static inline void call_peek(struct end *e, bool message)
{
	struct iovec v = { call_buffer, 64 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	struct call *c = call_begin(e, message ? CALL_RECVMSG : CALL_RECVFROM);

	c->quiet = true;
	c->ret = message ? recvmsg(e->fd, &m, MSG_PEEK | MSG_DONTWAIT)
			 : recv(e->fd, call_buffer, 64, MSG_PEEK | MSG_DONTWAIT);
}

#endif
