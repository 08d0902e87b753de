/*
 * The root of the cgroup v2 hierarchy: programs that hang there see the sockets of every process,
 * beside whatever others have attached.
 */
#ifndef PROBE_CGROUP_H
#define PROBE_CGROUP_H

struct bpf_link;
struct bpf_program;

/*
 * Attaches a loaded program for as long as *ret lives (bpf_link__destroy(), the end of our
 * process). 0, or -errno with *ret_why, a half-sentence that is never freed. Mounts cgroup v2 where
 * it is mounted nowhere.
 */
int cgroup_attach(const struct bpf_program *prog, struct bpf_link **ret, const char **ret_why);

#endif
