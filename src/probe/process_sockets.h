/* The sockets that a process has open, each through a descriptor of our own: the same open file. */
#ifndef PROBE_PROCESS_SOCKETS_H
#define PROBE_PROCESS_SOCKETS_H

#include <stdint.h>

/*
 * Calls `each` for every TCP socket of the process, with a descriptor that is now its own to close.
 * 0, or -errno: -ESRCH when the process is gone, -EOPNOTSUPP where the kernel can't (pidfd_open
 * came with 5.3, pidfd_getfd with 5.6: without the latter there are none).
 */
int process_sockets(uint32_t pid, void (*each)(void *ctx, int fd), void *ctx);

#endif
