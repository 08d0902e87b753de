/* The root of cgroup v2, wherever it is mounted; mounts it where nobody has. It knows nothing of
 * the programs. */
#include "probe/cgroup.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "probe/mounts.h"

/* Opens where version 2 is mounted. -ENOENT: nowhere. */
static int cgroup_open(void)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	int fd = -ENOENT;

	if (!f)
		return -errno;
	while (fd < 0 && (m = getmntent(f))) {
		if (strcmp(m->mnt_type, "cgroup2") != 0)
			continue;
		fd = open(m->mnt_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	endmntent(f);
	return fd;
}

int cgroup_attach(const struct bpf_program *program, struct bpf_link **ret, char *why,
		  size_t why_bytes)
{
	int err = mounts_cgroup2(), fd = err ? err : cgroup_open();
	struct bpf_link *link;

	if (fd < 0) {
		snprintf(why, why_bytes,
			 "cgroup v2 can't be used (%s): mount it with `mount -t cgroup2 cgroup2 "
			 "/sys/fs/cgroup` (in a container: mount the host's)",
			 strerror(-fd));
		return fd;
	}
	link = bpf_program__attach_cgroup(program, fd);
	err = link ? 0 : -errno;
	close(fd);
	if (err)
		snprintf(why, why_bytes, "attaching to the root of cgroup v2 failed: %s",
			 strerror(-err));
	else
		*ret = link;
	return err;
}
