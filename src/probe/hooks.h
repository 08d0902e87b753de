/* The probes in the code of single processes, and what the kernel side knows of their interpreters.
 * Behind probe_attach_hook() and its like; ring.c tells of processes that are gone. */
#ifndef PROBE_HOOKS_H
#define PROBE_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

#include "probe/probe.h"

struct bpf_object;
struct bpf_program;
struct btf;
struct hooks;

/* Is this program attached here, one by one, and not by probe_open()? */
bool hooks_own(const struct bpf_program *prog);
/* Before loading: whether the kernel with these types has what such a program needs; prepares it
 * for what that kernel can do best. */
bool hooks_prepare(struct bpf_program *prog, const struct btf *kernel);

/* `obj` is loaded and outlives it. NULL when out of memory. */
struct hooks *hooks_new(const struct bpf_object *obj, struct stats *stats);
/* Takes NULL. */
void hooks_free(struct hooks *h);
/* Takes everything of the process away; nothing happens when there is nothing. */
void hooks_forget(struct hooks *h, uint32_t pid);

/* probe.c's. */
struct hooks *probe_hooks(struct probe *p);

#endif
