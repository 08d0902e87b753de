/* Programs that hang on the root of the cgroup hierarchy (version 2), and so see every socket. */
#ifndef PROBE_CGROUP_H
#define PROBE_CGROUP_H

#include <stddef.h>

struct bpf_link;
struct bpf_program;

/*
 * Attaches `program` beside those of others: 0 and *ret, which goes away with our descriptor. Else
 * -errno, and one sentence in `why`.
 */
int cgroup_attach(const struct bpf_program *program, struct bpf_link **ret, char *why,
		  size_t why_bytes);

#endif
