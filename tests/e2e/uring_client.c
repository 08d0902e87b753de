/*
 * An HTTP client that does all with io_uring: one connection, one request after the other, sent and
 * received by the operations that its arguments name. Owns the ring; refuses nothing: what an
 * operation returns is printed, in one line for all requests, and the test decides.
 *   uring_client PORT WAY[,async][,sqpoll] COUNT BYTES
 * WAY: send, sendmsg, zerocopy, write, writev, fixed. BYTES: of an answer. COUNT requests for each
 * line on stdin, all on one connection.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ENTRIES = 8, REQUEST_BYTES = 256, ANSWER_BYTES = 1 << 16 };

struct ring {
	int fd;
	unsigned flags;
	unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static int ring_open(struct ring *r, unsigned flags)
{
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 1000 };
	size_t bytes;
	char *at;

	r->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &p);
	if (r->fd < 0)
		return -errno;
	r->flags = flags;
	bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (bytes < p.sq_off.array + p.sq_entries * sizeof(unsigned))
		bytes = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED,
		       r->fd, IORING_OFF_SQES);
	if (at == MAP_FAILED || r->sqes == MAP_FAILED || !(p.features & IORING_FEAT_SINGLE_MMAP))
		return -ENOSYS;
	r->sq_tail = (unsigned *)(at + p.sq_off.tail);
	r->sq_mask = (unsigned *)(at + p.sq_off.ring_mask);
	r->sq_array = (unsigned *)(at + p.sq_off.array);
	r->sq_flags = (unsigned *)(at + p.sq_off.flags);
	r->cq_head = (unsigned *)(at + p.cq_off.head);
	r->cq_tail = (unsigned *)(at + p.cq_off.tail);
	r->cq_mask = (unsigned *)(at + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(at + p.cq_off.cqes);
	return 0;
}

static char request[REQUEST_BYTES], answer[ANSWER_BYTES];

static int ring_wait(struct ring *r, unsigned submit, unsigned *ret_flags)
{
	unsigned head = *r->cq_head, wake = 0;
	int result;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (r->flags & IORING_SETUP_SQPOLL &&
	    __atomic_load_n(r->sq_flags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP)
		wake = IORING_ENTER_SQ_WAKEUP;
	while (head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
		if (syscall(SYS_io_uring_enter, r->fd, submit, 1, IORING_ENTER_GETEVENTS | wake,
			    NULL, 0) < 0 &&
		    errno != EINTR)
			return -errno;
		submit = 0;
	}
	result = r->cqes[head & *r->cq_mask].res;
	*ret_flags = r->cqes[head & *r->cq_mask].flags;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return result;
}

/* Does one operation and waits for its end. */
static int ring_do(struct ring *r, const struct io_uring_sqe *sqe)
{
	unsigned tail = *r->sq_tail, at = tail & *r->sq_mask, flags, more;
	int result;

	r->sqes[at] = *sqe;
	r->sq_array[at] = at;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	result = ring_wait(r, 1, &flags);
	if (flags & IORING_CQE_F_MORE) /* the kernel needs the buffer no more */
		ring_wait(r, 0, &more);
	return result;
}

static int ring_send(struct ring *r, int fd, const char *way, char *data, unsigned len)
{
	struct io_uring_sqe sqe = { .fd = fd, .addr = (uintptr_t)data, .len = len };
	struct iovec vector = { data, len };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

	if (strstr(way, "async"))
		sqe.flags = IOSQE_ASYNC;
	sqe.opcode = IORING_OP_SEND;
	if (strncmp(way, "sendmsg", 7) == 0) {
		sqe.opcode = IORING_OP_SENDMSG;
		sqe.addr = (uintptr_t)&message;
		sqe.len = 1;
	} else if (strncmp(way, "zerocopy", 8) == 0) {
		sqe.opcode = IORING_OP_SEND_ZC;
	} else if (strncmp(way, "writev", 6) == 0) {
		sqe.opcode = IORING_OP_WRITEV;
		sqe.addr = (uintptr_t)&vector;
		sqe.len = 1;
	} else if (strncmp(way, "write", 5) == 0) {
		sqe.opcode = IORING_OP_WRITE;
	} else if (strncmp(way, "fixed", 5) == 0) {
		sqe.opcode = IORING_OP_WRITE_FIXED;
	}
	return ring_do(r, &sqe);
}

static int ring_receive(struct ring *r, int fd, char *data, unsigned len)
{
	unsigned got = 0;

	while (got < len) {
		struct io_uring_sqe ready = { .opcode = IORING_OP_POLL_ADD,
					      .fd = fd,
					      .poll32_events = POLLIN };
		struct io_uring_sqe sqe = { .opcode = IORING_OP_RECV,
					    .fd = fd,
					    .addr = (uintptr_t)data + got,
					    .len = len - got };
		int n = ring_do(r, &sqe);

		if (n == -EAGAIN)
			n = ring_do(r, &ready) < 0 ? -EIO : 0;
		else if (!n)
			return -EPIPE;
		if (n < 0)
			return n;
		got += (unsigned)n;
	}
	return (int)got;
}

static int connect_to(struct ring *r, int port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), err;
	struct io_uring_sqe sqe = {
		.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&at, .off = sizeof(at)
	};
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	err = ring_do(r, &sqe);
	return err && err != -EINPROGRESS ? -1 : poll(&p, 1, 5000) == 1 ? fd : -1;
}

static void requests(struct ring *r, int fd, const char *way, int count, unsigned answer_bytes)
{
	int n;

	for (n = 0; n < count; n++) {
		int len = snprintf(request, sizeof(request),
				   "GET /uring/%d HTTP/1.1\r\nHost: here\r\n\r\n", n);
		int sent = ring_send(r, fd, way, request, (unsigned)len);
		int got = sent == len ? ring_receive(r, fd, answer, answer_bytes) : 0;

		printf("%d,%d,%d ", len, sent, got);
	}
	puts("");
}

int main(int argc, char **argv)
{
	struct iovec fixed = { request, sizeof(request) };
	int port = argc == 5 ? atoi(argv[1]) : 0, fd = -1, err;
	struct ring r = { 0 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!port)
		return 2;
	err = ring_open(&r, strstr(argv[2], "sqpoll") ? IORING_SETUP_SQPOLL : 0);
	if (err || syscall(SYS_io_uring_register, r.fd, IORING_REGISTER_BUFFERS, &fixed, 1)) {
		printf("no ring: %s\n", strerror(err ? -err : errno));
		return 0;
	}
	puts("ready");
	while (getchar() != EOF) {
		if (fd < 0)
			fd = connect_to(&r, port);
		requests(&r, fd, argv[2], atoi(argv[3]), (unsigned)atoi(argv[4]));
	}
	return 0;
}
