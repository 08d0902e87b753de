#include "probe/traced.h"

#include <bpf/bpf.h>
#include <errno.h>

int traced_add(int fd, uint32_t pid, uint32_t flags)
{
	return bpf_map_update_elem(fd, &pid, &flags, BPF_NOEXIST) ? -errno : 0;
}

int traced_change(int fd, uint32_t pid, uint32_t clear, uint32_t set)
{
	uint32_t old, flags;

	if (bpf_map_lookup_elem(fd, &pid, &old))
		return errno == ENOENT ? -ESRCH : -errno;
	flags = (old & ~clear) | set;
	if (flags == old)
		return 0;
	/* Only while it is there: its exit may have taken it out by now. */
	if (bpf_map_update_elem(fd, &pid, &flags, BPF_EXIST))
		return errno == ENOENT ? -ESRCH : -errno;
	return 0;
}

void traced_remove(int fd, uint32_t pid)
{
	bpf_map_delete_elem(fd, &pid);
}
