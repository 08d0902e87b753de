/*
 * What /proc says of one process. One directory handle a process, so all reads are of the same one
 * even when its number is used again; the order in which it vanishes is nobody's business: any part
 * that is gone is an empty part.
 */
#include "discover/process.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "discover/file.h"

enum {
	PF_KTHREAD_FLAG = 0x00200000, /* include/linux/sched.h, stable since 2.6 */
	STAT_MAX_BYTES = 4096,
	STATUS_MAX_BYTES = 16384,
	CMDLINE_MAX_BYTES = 4096,
	CGROUP_MAX_BYTES = 65536,
	MOUNTINFO_MAX_BYTES = 1 << 20,
	MAPS_MAX_BYTES = 4 << 20,
};

int process_open_proc(void)
{
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	/* The directory may be there with nothing mounted on it. */
	if (faccessat(fd, "self/stat", R_OK, 0)) {
		close(fd);
		return -ENOENT;
	}
	return fd;
}

static int open_process(int proc_fd, uint32_t pid)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%" PRIu32, pid);
	fd = openat(proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	return errno == ENOENT ? -ESRCH : -errno;
}

/* proc_pid_stat(5). The name may hold anything, ')' too: its end is the last one. */
static int parse_stat(const char *text, struct process *p)
{
	const char *open_paren = strchr(text, '('), *close_paren = strrchr(text, ')');
	unsigned int flags;
	char state;

	if (!open_paren || !close_paren || close_paren < open_paren)
		return -EINVAL;
	snprintf(p->comm, sizeof(p->comm), "%.*s", (int)(close_paren - open_paren - 1),
		 open_paren + 1);
	if (sscanf(close_paren + 1,
		   " %c %" SCNu32
		   " %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
		   &state, &p->parent, &flags, &p->start_ticks) != 4)
		return -EINVAL;
	p->zombie = state == 'Z' || state == 'X' || state == 'x';
	p->kernel_thread = flags & PF_KTHREAD_FLAG;
	return 0;
}

static int read_stat(int dir, struct process *p)
{
	char *text;
	int err = file_read_at(dir, "stat", STAT_MAX_BYTES, &text, NULL);

	if (err)
		return err == -ENOENT ? -ESRCH : err;
	err = parse_stat(text, p);
	free(text);
	return err;
}

/* "" on any failure but memory. */
static int read_exe(int dir, struct process *p)
{
	static const char deleted[] = " (deleted)";
	size_t tail = sizeof(deleted) - 1;
	char path[PATH_MAX + 16];
	ssize_t len = readlinkat(dir, "exe", path, sizeof(path) - 1);

	if (len < 0)
		len = 0;
	if ((size_t)len > tail && memcmp(path + (size_t)len - tail, deleted, tail) == 0) {
		len -= (ssize_t)tail;
		p->exe_deleted = true;
	}
	p->exe = strndup(path, (size_t)len);
	return p->exe ? 0 : -ENOMEM;
}

/* Like file_read_at, "" when it can't be read. */
static int read_optional(int dir, const char *name, size_t max_bytes, char **ret)
{
	int err = file_read_at(dir, name, max_bytes, ret, NULL);

	if (!err || err == -ENOMEM)
		return err;
	*ret = strdup("");
	return *ret ? 0 : -ENOMEM;
}

static int read_cgroup(int dir, unsigned int parts, struct process *p)
{
	char *text, *mounts;
	int err = read_optional(dir, "cgroup", CGROUP_MAX_BYTES, &text);

	if (err)
		return err;
	if (parts & PROCESS_CGROUP) {
		p->cgroup = cgroup_v2_path(text);
		if (!p->cgroup)
			p->cgroup = strdup("");
		err = p->cgroup ? 0 : -ENOMEM;
	}
	if (!err && parts & PROCESS_CONTAINER && !cgroup_container_id(text, p->container_id)) {
		err = read_optional(dir, "mountinfo", MOUNTINFO_MAX_BYTES, &mounts);
		if (!err) {
			mountinfo_container_id(mounts, p->container_id);
			free(mounts);
		}
	}
	free(text);
	return err;
}

static int read_parts(int dir, unsigned int parts, struct process *p)
{
	struct stat st;
	int err = read_stat(dir, p);

	if (!err && parts & PROCESS_EXE)
		err = read_exe(dir, p);
	if (!err && parts & PROCESS_ARGV0)
		err = read_optional(dir, "cmdline", CMDLINE_MAX_BYTES, &p->argv0);
	if (!err && parts & (PROCESS_CGROUP | PROCESS_CONTAINER))
		err = read_cgroup(dir, parts, p);
	if (!err && parts & PROCESS_NET_NS && fstatat(dir, "ns/net", &st, 0) == 0)
		p->net_ns = st.st_ino;
	return err;
}

int process_read(int proc_fd, uint32_t pid, unsigned int parts, struct process *ret)
{
	struct process p = { .pid = pid };
	int dir = open_process(proc_fd, pid), err;

	if (dir < 0)
		return dir;
	err = read_parts(dir, parts, &p);
	close(dir);
	if (err) {
		process_free(&p);
		return err;
	}
	*ret = p;
	return 0;
}

void process_free(struct process *p)
{
	free(p->exe);
	free(p->argv0);
	free(p->cgroup);
	*p = (struct process){ 0 };
}

int process_thread_group(int proc_fd, uint32_t pid, uint32_t *ret_tgid)
{
	int dir = open_process(proc_fd, pid), err;
	const char *line;
	char *text;

	if (dir < 0)
		return dir;
	err = file_read_at(dir, "status", STATUS_MAX_BYTES, &text, NULL);
	close(dir);
	if (err)
		return err == -ENOENT ? -ESRCH : err;
	line = strstr(text, "\nTgid:");
	if (!line || sscanf(line, " Tgid: %" SCNu32, ret_tgid) != 1)
		err = -EINVAL;
	free(text);
	return err;
}

int process_env_read(int proc_fd, uint32_t pid, struct process_env *ret)
{
	int dir = open_process(proc_fd, pid), err;

	if (dir < 0)
		return dir;
	err = file_read_at(dir, "environ", PROCESS_ENV_MAX_BYTES, &ret->data, &ret->len);
	close(dir);
	return err;
}

const char *process_env_get(const struct process_env *env, const char *name)
{
	size_t name_len = strlen(name), pos = 0;

	while (pos < env->len) {
		const char *entry = env->data + pos;

		if (strncmp(entry, name, name_len) == 0 && entry[name_len] == '=')
			return entry + name_len + 1;
		pos += strlen(entry) + 1;
	}
	return NULL;
}

void process_env_free(struct process_env *env)
{
	free(env->data);
	*env = (struct process_env){ 0 };
}

bool process_maps_file(int proc_fd, uint32_t pid, const char *prefix, char *ret_name,
		       size_t ret_bytes)
{
	int dir = open_process(proc_fd, pid);
	char *text, *line, *save = NULL;
	bool found = false;

	if (dir < 0)
		return false;
	if (file_read_at(dir, "maps", MAPS_MAX_BYTES, &text, NULL) == 0) {
		for (line = strtok_r(text, "\n", &save); line && !found;
		     line = strtok_r(NULL, "\n", &save)) {
			const char *path = strchr(line, '/');

			if (!path || strncmp(path_base(path), prefix, strlen(prefix)) != 0)
				continue;
			found = true;
			if (ret_name)
				snprintf(ret_name, ret_bytes, "%s", path_base(path));
		}
		free(text);
	}
	close(dir);
	return found;
}
