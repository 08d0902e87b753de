/*
 * The map of traced processes, whose values both sides write: here one bit is changed without
 * losing another. What the kernel side sets meanwhile may get lost once; it sets that again with
 * the next request.
 */
#ifndef PROBE_TRACED_H
#define PROBE_TRACED_H

#include <stdint.h>

/* TRACED_* flags of include/event.h. 0; -EEXIST: it is traced already, nothing changed; -E2BIG;
 * -errno. */
int traced_add(int fd, uint32_t pid, uint32_t flags);
/* Of its value `clear` goes, then `set` comes. 0, -ESRCH when it isn't traced, or -errno. */
int traced_change(int fd, uint32_t pid, uint32_t clear, uint32_t set);
void traced_remove(int fd, uint32_t pid);

#endif
