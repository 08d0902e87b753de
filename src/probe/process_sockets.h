/* The sockets that a process has open, each through a descriptor of our own: the same open file. */
#ifndef PROBE_PROCESS_SOCKETS_H
#define PROBE_PROCESS_SOCKETS_H

#include <stdint.h>

/* Of the process, to be closed by the caller. -errno: -ESRCH when it is gone, -EOPNOTSUPP where the
 * kernel can't (pidfd_open came with 5.3). */
int process_handle(uint32_t pid);
/* The same open file as descriptor `number` of the process. -errno: -EBADF when that is closed,
 * -ESRCH when the process is gone, -ENOSYS where the kernel can't (pidfd_getfd came with 5.6). */
int process_descriptor(int handle, int number);

/*
 * Calls `each` for every TCP socket of the process, with its number there and a descriptor that is
 * now its own to close: soon, since a close() by the process has no effect before. 0, or -errno as
 * process_handle(): without pidfd_getfd there are none.
 */
int process_sockets(uint32_t pid, void (*each)(void *ctx, int number, int fd), void *ctx);

#endif
