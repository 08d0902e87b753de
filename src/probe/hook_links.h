/*
 * The kernel's links behind the probes of processes, made and taken away. Taking one away waits for
 * the kernel's slowest grace periods, 0.1 to 0.3 s on a 6.18: the agent's loop can't, so threads do
 * that, and only that.
 */
#ifndef PROBE_HOOK_LINKS_H
#define PROBE_HOOK_LINKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "probe/probe.h"

struct bpf_link;
struct bpf_program;
struct btf;

/* One of the two. */
struct hook_link {
	struct bpf_link *link;
	int fd; /* link NULL: of a link of many probes, which libbpf before 1.3 doesn't know */
};

/* Owned; zeroed: none. */
struct hook_links {
	struct hook_link *all;
	size_t count, room;
};

/*
 * Before loading: lets the program take links of many probes where the kernel with these types
 * has them and takes them away beside each other (6.12). The others, made of perf events, go one
 * by one under a lock of the whole machine, and need two descriptors instead of one.
 */
void hook_links_prepare(struct bpf_program *prog, const struct btf *kernel);
/* Whether it was prepared so. */
bool hook_links_multi(const struct bpf_program *prog);

/* One more, for this process. 0 or -errno. */
int hook_links_add(struct hook_links *links, const struct bpf_program *prog, bool multi,
		   uint32_t pid, const struct probe_hook *hook);
/* All of `from` behind those of `to`. What there is no memory for goes when we end. */
void hook_links_move(struct hook_links *to, struct hook_links *from);
/* Takes them away in the background; `links` is empty then. */
void hook_links_close(struct hook_links *links);
/* All at once, and waits for it. */
void hook_links_close_now(struct hook_links *links);

#endif
