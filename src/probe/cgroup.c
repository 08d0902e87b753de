#include "probe/cgroup.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probe/mounts.h"

enum { ROOT_INODE = 1, CGROUP_PATH_BYTES = 512 }; /* of every kernfs, which cgroup v2 is */

/* A descriptor of the hierarchy's root, if it is mounted there below `root`, or -1. */
static int root_in(const char *mounts, const char *root)
{
	char path[CGROUP_PATH_BYTES];
	struct mntent *m;
	struct stat st;
	int fd = -1;
	FILE *f = setmntent(mounts, "re");

	while (f && fd < 0 && (m = getmntent(f))) {
		if (strcmp(m->mnt_type, "cgroup2") != 0 ||
		    snprintf(path, sizeof(path), "%s%s", root, m->mnt_dir) >= (int)sizeof(path))
			continue;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && (fstat(fd, &st) || st.st_ino != ROOT_INODE)) {
			close(fd);
			fd = -1;
		}
	}
	if (f)
		endmntent(f);
	return fd;
}

/* In a container the mount that we see may begin below the root; the machine's own does not. */
static int root_open(const char **ret_why)
{
	int fd = root_in("/proc/self/mounts", "");

	if (fd < 0)
		fd = root_in("/proc/1/mounts", "/proc/1/root");
	if (fd < 0 && mounts_cgroup2() == 0)
		fd = root_in("/proc/self/mounts", "");
	if (fd < 0)
		*ret_why = "the root of cgroup v2 is not mounted where it can be seen (in a "
			   "container: --pid=host, or mount the host's /sys/fs/cgroup)";
	return fd;
}

int cgroup_attach(const struct bpf_program *prog, struct bpf_link **ret, const char **ret_why)
{
	struct bpf_link *link;
	int fd = root_open(ret_why), err;

	if (fd < 0)
		return -ENOENT;
	link = bpf_program__attach_cgroup(prog, fd);
	err = link ? 0 : -errno;
	close(fd);
	if (err) {
		*ret_why = err == -EPERM ? "another program on sockets allows no second one"
					 : "the kernel attaches no program to cgroup v2 (5.7)";
		return err;
	}
	*ret = link;
	return 0;
}
