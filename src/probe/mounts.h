/* File systems the kernel interfaces live in; mounted when missing and allowed. */
#ifndef PROBE_MOUNTS_H
#define PROBE_MOUNTS_H

/* 0 when it is mounted where libbpf looks; -errno when it neither is nor could be. */
int mounts_tracefs(void);
/* Mounts cgroup v2 at /sys/fs/cgroup when nothing is there; 0 when a v2 hierarchy is mounted
 * somewhere, else -errno. */
int mounts_cgroup2(void);

#endif
