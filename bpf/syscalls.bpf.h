/* What both collectors know of system calls that move bytes through a socket: how each names its
 * buffers (numbers: x86-64 ABI), what of it is of the stream. */
#ifndef SPANLOOM_SYSCALLS_BPF_H
#define SPANLOOM_SYSCALLS_BPF_H

#include "connection.bpf.h"

enum {
	NR_READ = 0,
	NR_WRITE = 1,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_SENDTO = 44,
	NR_RECVFROM = 45,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_RECVMMSG = 299,
	NR_SENDMMSG = 307,
	NR_PREADV2 = 327,
	NR_PWRITEV2 = 328,
};

static __always_inline void transfer_buffers(struct transfer *t, u32 nr, u64 arg1, u64 arg2)
{
	t->syscall = nr;
	t->base = arg1;
	t->len = arg2;
	switch (nr) {
	case NR_READ:
	case NR_WRITE:
	case NR_SENDTO:
	case NR_RECVFROM:
		t->buffers = BUFFERS_ONE;
		break;
	case NR_READV:
	case NR_WRITEV:
	case NR_PREADV2:
	case NR_PWRITEV2:
		t->buffers = BUFFERS_VECTOR;
		break;
	case NR_SENDMSG:
	case NR_RECVMSG:
		t->buffers = BUFFERS_MESSAGE;
		break;
	case NR_SENDMMSG:
	case NR_RECVMMSG:
		t->buffers = BUFFERS_MANY;
		break;
	default: /* sendfile, splice, io_uring: nothing to read */
		t->buffers = BUFFERS_NONE;
	}
}

/* Receives that take nothing from the stream. */
enum { MSG_NOT_OF_STREAM = MSG_OOB | MSG_PEEK | MSG_ERRQUEUE };

/* A failed transfer that is no failure. */
static __always_inline bool transfer_would_block(s32 result)
{
	return result == -ERRNO_EAGAIN || result == -ERRNO_EINTR || result == -ERRNO_EINPROGRESS ||
	       result <= -ERRNO_RESTART_FIRST;
}

#endif
