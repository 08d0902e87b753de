/*
 * Which TCP ports a process listens on, by /proc/PID/net/tcp{,6} and /proc/PID/fd. A table is read
 * once per network namespace, and only when a process of it holds a socket at all.
 */
#include "discover/listen.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TCP_STATE_LISTEN = 0x0A };

void listeners_free(struct listeners *l)
{
	hash_free(&l->port_by_inode);
	hash_free(&l->namespaces);
}

/* proc_net(5): sl local:port remote:port state tx:rx tr:when retrnsmt uid timeout inode */
bool listen_parse_line(const char *line, bool *ret_listening, uint16_t *ret_port,
		       uint64_t *ret_inode)
{
	unsigned int port, state;
	uint64_t inode;

	if (sscanf(line,
		   " %*u: %*32[0-9A-Fa-f]:%4x %*32[0-9A-Fa-f]:%*4x %2x %*s %*s %*x %*u %*u "
		   "%" SCNu64,
		   &port, &state, &inode) != 3)
		return false;
	*ret_listening = state == TCP_STATE_LISTEN;
	*ret_port = (uint16_t)port;
	*ret_inode = inode;
	return true;
}

static void read_table(struct listeners *l, int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	char line[256];
	uint16_t port;
	uint64_t inode;
	bool listening;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (fgets(line, sizeof(line), file)) {
		if (!listen_parse_line(line, &listening, &port, &inode))
			continue;
		/* The kernel lists all listening sockets before the first other one: no walk of
		 * 100,000 connections. */
		if (!listening)
			break;
		if (inode && port)
			hash_put(&l->port_by_inode, inode, (void *)(uintptr_t)port);
	}
	fclose(file);
}

static void read_namespace(struct listeners *l, int dir)
{
	struct stat st;
	uint64_t ns = fstatat(dir, "ns/net", &st, 0) == 0 ? st.st_ino : 0;

	if (hash_get(&l->namespaces, ns))
		return;
	read_table(l, dir, "net/tcp");
	read_table(l, dir, "net/tcp6");
	if (ns)
		hash_put(&l->namespaces, ns, l);
}

static bool socket_inode(int fd_dir, const char *name, uint64_t *ret)
{
	char target[64];
	ssize_t len = readlinkat(fd_dir, name, target, sizeof(target) - 1);

	if (len <= 0)
		return false;
	target[len] = 0;
	return sscanf(target, "socket:[%" SCNu64 "]", ret) == 1;
}

static bool any_socket(struct listeners *l, int dir, DIR *fds,
		       bool (*wanted)(void *ctx, uint16_t port), void *ctx)
{
	bool have_table = false;
	struct dirent *entry;
	int fd = dirfd(fds);

	while (fd >= 0 && (entry = readdir(fds))) {
		uint64_t inode;
		void *port;

		if (entry->d_name[0] == '.' || !socket_inode(fd, entry->d_name, &inode))
			continue;
		if (!have_table)
			read_namespace(l, dir);
		have_table = true;
		port = hash_get(&l->port_by_inode, inode);
		if (port && wanted(ctx, (uint16_t)(uintptr_t)port))
			return true;
	}
	return false;
}

bool listeners_any(struct listeners *l, int proc_fd, uint32_t pid,
		   bool (*wanted)(void *ctx, uint16_t port), void *ctx)
{
	char name[16];
	bool found = false;
	int dir, fd;
	DIR *fds;

	snprintf(name, sizeof(name), "%" PRIu32, pid);
	dir = openat(proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return false;
	fd = openat(dir, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fds = fd < 0 ? NULL : fdopendir(fd);
	if (fds) {
		found = any_socket(l, dir, fds, wanted, ctx);
		closedir(fds);
	} else if (fd >= 0) {
		close(fd);
	}
	close(dir);
	return found;
}
