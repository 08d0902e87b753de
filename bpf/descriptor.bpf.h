/* The socket behind a descriptor of the current process. */
#ifndef SPANLOOM_DESCRIPTOR_BPF_H
#define SPANLOOM_DESCRIPTOR_BPF_H

#include "core_compat.bpf.h"

enum { S_IFMT = 0170000, S_IFSOCK = 0140000 };

struct open_socket {
	struct sock *sk;
	u64 inode;
	u32 file_flags;
};

static __always_inline int socket_of_fd(u32 fd, struct open_socket *ret)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slots, *file = 0;
	struct socket *socket;
	struct inode *inode;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return -1;
	slots = BPF_CORE_READ(table, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]) || !file)
		return -1;
	inode = BPF_CORE_READ(file, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return -1;
	socket = BPF_CORE_READ(file, private_data);
	ret->sk = BPF_CORE_READ(socket, sk);
	ret->inode = BPF_CORE_READ(inode, i_ino);
	ret->file_flags = BPF_CORE_READ(file, f_flags);
	return ret->sk ? 0 : -1;
}

#endif
