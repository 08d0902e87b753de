/*
 * Headers in outgoing HTTP/1 requests: the table of sockets whose sends the kernel side sees before
 * their bytes are queued, the programs on it, and the connections that were open before. What is in
 * the table works as before; it is taken out when it turns out to carry no HTTP/1. Nothing is
 * pinned: when the agent ends, however it ends, every socket is the kernel's own again.
 */
#ifndef PROBE_INJECT_H
#define PROBE_INJECT_H

#include <stdbool.h>
#include <stdint.h>

struct bpf_object;
struct inject;

/*
 * Attaches what `obj` (loaded) has of it: `wanted` is a set of enum probe_propagate. Tries headers
 * on connections of its own first (takes up to 100 ms). 0 or -ENOMEM: whatever else fails leaves a
 * part out, see inject_works(). `obj` must outlive it.
 */
int inject_open(struct bpf_object *obj, uint32_t wanted, struct inject **ret);
/* Takes every socket out of the table first. Takes NULL. */
void inject_close(struct inject *i);

/* Set of enum probe_propagate that works. *ret_why: one sentence (borrowed until inject_close())
 * about what was wanted and does not, or works with a difference; NULL: nothing to say. */
uint32_t inject_works(const struct inject *i, const char **ret_why);

/*
 * TRACED_INJECT where headers may be put into what this process sends, with TRACED_RINGS or not; 0
 * where they may not: where the kernel gets FIONREAD wrong for sockets in the table only programs
 * are let in that never ask. Takes NULL: 0.
 */
uint32_t inject_flags(const struct inject *i, uint32_t pid);
/* A process, traced or not, runs another program: what is allowed is decided anew. Takes NULL. */
void inject_execs(const struct inject *i, uint32_t pid);

/* RECORD_RELEASE: this socket leaves the table. Takes NULL. */
void inject_release(struct inject *i, uint64_t socket);
/*
 * Puts the TCP connections of a process that it has made before into the table: those that don't
 * block and carry no TLS of the kernel's; one that is still connecting stays out. Returns how many,
 * or -errno: -ESRCH when it is gone, -EOPNOTSUPP where the kernel can't (pidfd_getfd came with
 * 5.6). Takes NULL: 0.
 */
int inject_adopt(struct inject *i, uint32_t pid);

#endif
