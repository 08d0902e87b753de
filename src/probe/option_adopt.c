/*
 * Each TCP socket of the process gets a state; then a program goes over the sockets of its network
 * namespace and has TCP ask for the options of those that have one, and look for options in what
 * accepted ones receive. The namespace is entered by a thread that ends with that: a thread that
 * could not find back would take the agent's own connections along.
 */
#include "probe/option_adopt.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probe/process_sockets.h"
#include "tcp_option.h"

struct walk {
	int iterator;
	int namespace; /* to enter, or -1 */
	int err;
};

static void make_state(void *ctx, int fd)
{
	const struct option_state fresh = { .stage = OPTION_IDLE };
	const int *sent = ctx;

	/* Who has one already goes on with it. */
	bpf_map_update_elem(*sent, &fd, &fresh, BPF_NOEXIST);
	close(fd);
}

static void *walk_sockets(void *ctx)
{
	struct walk *w = ctx;
	char nothing[64];
	int fd;

	if (w->namespace >= 0 && setns(w->namespace, CLONE_NEWNET)) {
		w->err = -errno;
		return NULL;
	}
	fd = bpf_iter_create(w->iterator);
	if (fd < 0) {
		w->err = fd;
		return NULL;
	}
	while (read(fd, nothing, sizeof(nothing)) > 0)
		;
	close(fd);
	return NULL;
}

static bool same_namespace(int theirs)
{
	struct stat ours, other;

	return !stat("/proc/self/ns/net", &ours) && !fstat(theirs, &other) &&
	       ours.st_ino == other.st_ino && ours.st_dev == other.st_dev;
}

int connections_adopt(int iterator, int sent, uint32_t pid)
{
	struct walk w = { .iterator = iterator, .namespace = -1 };
	char path[64];
	pthread_t thread;
	int err = process_sockets(pid, make_state, &sent);

	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/%u/ns/net", pid);
	w.namespace = open(path, O_RDONLY | O_CLOEXEC);
	if (w.namespace < 0)
		return -errno;
	if (same_namespace(w.namespace)) {
		close(w.namespace);
		w.namespace = -1;
		walk_sockets(&w);
		return w.err;
	}
	err = -pthread_create(&thread, NULL, walk_sockets, &w);
	if (!err) {
		pthread_join(thread, NULL);
		err = w.err;
	}
	close(w.namespace);
	return err;
}
