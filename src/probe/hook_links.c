/*
 * Two kinds of links: one of the kernel's own for (here) a single probe, or a perf event of libbpf.
 * It knows which of them the kernel can end quickly, and ends them in threads. Invariant: a link is
 * owned by one list, or by one thread.
 */
#include "probe/hook_links.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/bpf.h of 6.6, which may be newer than the one we are built with. */
enum { MULTI_ATTACH_TYPE = 48 /* BPF_TRACE_UPROBE_MULTI */, MULTI_RETURN = 1 };

struct multi_attr {
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t path, offsets, ref_ctr_offsets, cookies;
	uint32_t count, multi_flags, pid, zero;
};

void hook_links_prepare(struct bpf_program *prog, const struct btf *kernel)
{
	if (btf__find_by_name_kind(kernel, "uprobe_unregister_nosync", BTF_KIND_FUNC) > 0)
		bpf_program__set_expected_attach_type(prog,
						      (enum bpf_attach_type)MULTI_ATTACH_TYPE);
}

bool hook_links_multi(const struct bpf_program *prog)
{
	return prog && (int)bpf_program__expected_attach_type(prog) == MULTI_ATTACH_TYPE;
}

static int link_multi(const struct bpf_program *prog, uint32_t pid, const struct probe_hook *hook,
		      struct hook_link *ret)
{
	const uint64_t offset = hook->offset, cookie = hook->arg;
	const struct multi_attr attr = {
		.prog_fd = (uint32_t)bpf_program__fd(prog),
		.attach_type = MULTI_ATTACH_TYPE,
		.path = (uintptr_t)hook->path,
		.offsets = (uintptr_t)&offset,
		.cookies = (uintptr_t)&cookie,
		.count = 1,
		.multi_flags = hook->at_return ? MULTI_RETURN : 0,
		.pid = pid,
	};
	long fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));

	if (fd < 0)
		return -errno;
	*ret = (struct hook_link){ .fd = (int)fd };
	return 0;
}

static int link_perf(const struct bpf_program *prog, uint32_t pid, const struct probe_hook *hook,
		     struct hook_link *ret)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = hook->at_return);
	struct bpf_link *link;

	if (hook->kind == PROBE_HOOK_SPAN_ENTRY || hook->kind == PROBE_HOOK_SPAN_EXIT)
		opts.bpf_cookie = hook->arg;
	else if (hook->at_return) /* without it, one of all processes (bpf/python.bpf.c) */
		opts.bpf_cookie = pid;
	link = bpf_program__attach_uprobe_opts(prog, (pid_t)pid, hook->path, hook->offset, &opts);
	if (!link)
		return -errno;
	*ret = (struct hook_link){ .link = link, .fd = -1 };
	return 0;
}

static bool reserve(struct hook_links *links, size_t more)
{
	size_t room = links->room ? links->room : 8;
	struct hook_link *all;

	while (room < links->count + more)
		room *= 2;
	if (room == links->room)
		return true;
	all = reallocarray(links->all, room, sizeof(*all));
	if (!all)
		return false;
	links->all = all;
	links->room = room;
	return true;
}

int hook_links_add(struct hook_links *links, const struct bpf_program *prog, bool multi,
		   uint32_t pid, const struct probe_hook *hook)
{
	struct hook_link link;
	int err;

	if (!reserve(links, 1))
		return -ENOMEM;
	err = multi ? link_multi(prog, pid, hook, &link) : link_perf(prog, pid, hook, &link);
	if (!err)
		links->all[links->count++] = link;
	return err;
}

void hook_links_move(struct hook_links *to, struct hook_links *from)
{
	if (from->count && reserve(to, from->count)) {
		memcpy(to->all + to->count, from->all, from->count * sizeof(from->all[0]));
		to->count += from->count;
	}
	free(from->all);
	*from = (struct hook_links){ 0 };
}

/* --- taking them away --- */

enum { CLOSERS_MAX = 32, CLOSER_STACK_BYTES = 64 << 10 };

/* Links that one thread ends: every so-many-th. Owned by the thread, or by who joins it. */
struct closing {
	struct hook_links links;
	size_t first, step;
};

static void *close_links(void *arg)
{
	const struct closing *c = arg;

	for (size_t i = c->first; i < c->links.count; i += c->step) {
		const struct hook_link *link = &c->links.all[i];

		if (link->link)
			bpf_link__destroy(link->link);
		else
			close(link->fd);
	}
	return NULL;
}

static void *close_links_and_free(void *arg)
{
	struct closing *c = arg;

	close_links(c);
	free(c->links.all);
	free(c);
	return NULL;
}

/* A thread that takes no signals; false when there is none. */
static bool closer_start(void *(*run)(void *), struct closing *c, bool detached, pthread_t *ret)
{
	sigset_t all, before;
	pthread_attr_t attr;
	int err;

	if (pthread_attr_init(&attr))
		return false;
	pthread_attr_setstacksize(&attr, CLOSER_STACK_BYTES);
	pthread_attr_setdetachstate(&attr,
				    detached ? PTHREAD_CREATE_DETACHED : PTHREAD_CREATE_JOINABLE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(ret, &attr, run, c);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return err == 0;
}

void hook_links_close(struct hook_links *links)
{
	struct closing *c = calloc(1, sizeof(*c)), here = { *links, 0, 1 };
	pthread_t thread;

	*links = (struct hook_links){ 0 };
	if (c && here.links.count) {
		*c = here;
		if (closer_start(close_links_and_free, c, true, &thread))
			return;
	}
	free(c);
	close_links(&here);
	free(here.links.all);
}

void hook_links_close_now(struct hook_links *links)
{
	struct closing closing[CLOSERS_MAX];
	pthread_t threads[CLOSERS_MAX];
	bool started[CLOSERS_MAX];
	size_t i, n = links->count < CLOSERS_MAX ? links->count : CLOSERS_MAX;

	for (i = 0; i < n; i++) {
		closing[i] = (struct closing){ *links, i, n };
		started[i] = closer_start(close_links, &closing[i], false, &threads[i]);
	}
	for (i = 0; i < n; i++) {
		if (started[i])
			pthread_join(threads[i], NULL);
		else
			close_links(&closing[i]);
	}
	free(links->all);
	*links = (struct hook_links){ 0 };
}
