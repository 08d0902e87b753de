/*
 * Connections that a process had made before it was traced. Those that are busy when it is first
 * looked at are looked at again: a few times within half a minute, with growing pauses. All times
 * are CLOCK_MONOTONIC.
 */
#ifndef PROBE_INJECT_ADOPT_H
#define PROBE_INJECT_ADOPT_H

#include <stdint.h>

struct adopter;

/* The descriptors are the maps' (borrowed); -1: there is none of avoided peers. NULL when out of
 * memory. */
struct adopter *adopter_new(int sockets, int injections, int avoided);
/* Takes NULL. */
void adopter_free(struct adopter *a);

/* Puts those that fit and are idle into the table, and remembers those that only are busy: up to
 * INJECTION_SOCKETS_MAX of all processes. Returns how many it put in, or -errno as inject_adopt().
 */
int adopter_begin(struct adopter *a, uint32_t pid, uint64_t now_ns);
/* The process to be looked at again next, by adopter_again() or adopter_forget(); 0: none yet. */
uint32_t adopter_due(const struct adopter *a, uint64_t now_ns);
/* Puts in those it remembers that are idle by now. It forgets who is closed, no longer fits, or has
 * been busy too often. */
void adopter_again(struct adopter *a, uint32_t pid, uint64_t now_ns);
void adopter_forget(struct adopter *a, uint32_t pid);

#endif
