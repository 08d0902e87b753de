/*
 * What /proc says of one process. Every read is bounded and goes through one directory handle of
 * the process, so a number that is given to another process midway is noticed as an error, never
 * mixed up. A process that is gone is normal: -ESRCH or -ENOENT. All functions take the handle of a
 * proc file system, so tests can pass a tree of their own.
 */
#ifndef DISCOVER_PROCESS_H
#define DISCOVER_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PROCESS_COMM_BYTES = 64,     /* 15 for a process, more for some kernel threads */
	CONTAINER_ID_BYTES = 64 + 1, /* OCI runtimes use 64 hex digits */
	PROCESS_ENV_MAX_BYTES = 2 << 20,
};

struct process {
	uint32_t pid;         /* as the proc file system given numbers it */
	uint32_t parent;      /* 0: none */
	uint64_t start_ticks; /* clock ticks (sysconf(_SC_CLK_TCK)) from boot to its start */
	bool kernel_thread;
	bool zombie;
	bool exe_deleted; /* the executable was replaced or removed since */
	char comm[PROCESS_COMM_BYTES];
	char *exe; /* owned; path in the process's own mount namespace, "" when it can't be read */
	char *argv0;  /* owned; first argument as it stands, "" when there is none */
	char *cgroup; /* owned; cgroup v2 path as seen from our cgroup namespace, "" when there is
			 none */
	char container_id[CONTAINER_ID_BYTES]; /* "" outside containers */
	uint64_t net_ns; /* inode number of its network namespace, 0 when it can't be read */
};

/* What process_read fills beyond pid, parent, start_ticks, kernel_thread, zombie and comm. */
enum process_part {
	PROCESS_EXE = 1 << 0, /* exe, exe_deleted */
	PROCESS_ARGV0 = 1 << 1,
	PROCESS_CGROUP = 1 << 2,
	PROCESS_CONTAINER = 1 << 3,
	PROCESS_NET_NS = 1 << 4,
	PROCESS_ALL = (1 << 5) - 1,
};

/* A handle of /proc, to be closed by the caller; -errno. */
int process_open_proc(void);

/*
 * Fills *ret; 0, or -errno with *ret untouched (-ESRCH: no such process, or it went away). A part
 * that may not be read (another user's process) is left empty.
 */
int process_read(int proc_fd, uint32_t pid, unsigned int parts, struct process *ret);
/* Takes a zeroed one. */
void process_free(struct process *p);

/* The thread group that the thread or process `pid` belongs to: itself for a process; -ESRCH when
 * there is none. */
int process_thread_group(int proc_fd, uint32_t pid, uint32_t *ret_tgid);

/* The environment that a process was started with: NAME=value, each ended by NUL. */
struct process_env {
	char *data; /* owned, NUL behind the last byte */
	size_t len;
};

/* 0 or -errno; at most PROCESS_ENV_MAX_BYTES, the rest is left out. */
int process_env_read(int proc_fd, uint32_t pid, struct process_env *ret);
/* NULL when it is absent; borrowed from `env`. */
const char *process_env_get(const struct process_env *env, const char *name);
void process_env_free(struct process_env *env);

/*
 * True when the process maps a file whose base name begins with `prefix`; ret_name, if not NULL,
 * gets that base name (cut to ret_bytes - 1).
 */
bool process_maps_file(int proc_fd, uint32_t pid, const char *prefix, char *ret_name,
		       size_t ret_bytes);

/*
 * The next three are pure: they read the text of the files that they are named after.
 * cgroup_v2_path: the path of the "0::" line of /proc/PID/cgroup (malloc'd, " (deleted)" cut off),
 * NULL without one.
 */
char *cgroup_v2_path(const char *cgroup_text);
/*
 * The container that a /proc/PID/cgroup text names, by the directory names that docker, containerd,
 * cri-o, podman and their systemd scopes use; false when it names none.
 */
bool cgroup_container_id(const char *cgroup_text, char ret[CONTAINER_ID_BYTES]);
/*
 * The same from /proc/PID/mountinfo, for a process whose cgroup namespace hides the path: by the
 * source of the container's own /etc/hostname, /etc/hosts or /etc/resolv.conf.
 */
bool mountinfo_container_id(const char *mountinfo_text, char ret[CONTAINER_ID_BYTES]);

#endif
