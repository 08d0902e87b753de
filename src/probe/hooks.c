/*
 * Probes in the code of single processes: one link for each place and process, so that what belongs
 * to a process goes with it. It knows which program serves which kind of place, and refuses a kind
 * that this kernel has no program for. Invariant: a process without an entry here has no links, no
 * layout and no classified code in the kernel.
 *
 * Taking one probe away waits for the kernel's slowest grace periods, 0.1 to 0.3 s on a 6.18: the
 * agent's loop can't, so threads do that, and only that.
 */
#include "probe/hooks.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "event.h"
#include "python_layout.h"

/* Values of the traced map, as bpf/maps.bpf.h has them. */
enum { TRACED = 1, TRACED_PYTHON = 2 };

enum { HOOK_KINDS = PROBE_HOOK_SPAN_EXIT + 1 };

static const struct {
	const char *here, *at_return; /* NULL: makes no sense */
} program_names[HOOK_KINDS] = {
	[PROBE_HOOK_CONTEXT_COPY] = { "context_returned", "context_copied" },
	[PROBE_HOOK_LATE_WRITE] = { "late_write", NULL },
	[PROBE_HOOK_SUBMIT] = { "item_submitted", NULL },
	[PROBE_HOOK_SPAN_ENTRY] = { "native_entered", NULL },
	[PROBE_HOOK_SPAN_EXIT] = { "native_left", NULL },
};

struct process_hooks {
	struct bpf_link **links;
	size_t count, room;
	struct hash codes; /* a set: the classified ones */
};

struct hooks {
	const struct bpf_object *obj;
	int traced_fd, pythons_fd, codes_fd;
	struct hash processes; /* by pid */
};

bool hooks_own(const struct bpf_program *prog)
{
	const char *section = bpf_program__section_name(prog);

	return strcmp(section, "uprobe") == 0 || strcmp(section, "uretprobe") == 0;
}

bool hooks_can_load(const struct bpf_program *prog, const struct btf *kernel)
{
	int id = btf__find_by_name_kind(kernel, "bpf_func_id", BTF_KIND_ENUM), i;
	const struct btf_type *type = id > 0 ? btf__type_by_id(kernel, (uint32_t)id) : NULL;

	/* bpf_get_attach_cookie() came with 5.15: a native span's probe knows its rule by it. */
	if (strncmp(bpf_program__name(prog), "native_", strlen("native_")) != 0)
		return true;
	for (i = 0; type && i < btf_vlen(type); i++) {
		const char *name = btf__name_by_offset(kernel, btf_enum(type)[i].name_off);

		if (name && strcmp(name, "BPF_FUNC_get_attach_cookie") == 0)
			return true;
	}
	return false;
}

static int map_fd(const struct bpf_object *obj, const char *name)
{
	return bpf_object__find_map_fd_by_name(obj, name);
}

struct hooks *hooks_new(const struct bpf_object *obj)
{
	struct hooks *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->obj = obj;
	h->traced_fd = map_fd(obj, "traced");
	h->pythons_fd = map_fd(obj, "pythons");
	h->codes_fd = map_fd(obj, "codes");
	return h;
}

/* --- taking probes away --- */

enum { CLOSERS_MAX = 32, CLOSER_STACK_BYTES = 64 << 10 };

/* Links that one thread destroys: every so-many-th. Owned by the thread, or by who joins it. */
struct closing {
	struct bpf_link **links;
	size_t first, step, count;
};

static void *close_links(void *arg)
{
	const struct closing *c = arg;
	size_t i;

	for (i = c->first; i < c->count; i += c->step)
		bpf_link__destroy(c->links[i]);
	return NULL;
}

static void *close_links_and_free(void *arg)
{
	struct closing *c = arg;

	close_links(c);
	free(c->links);
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

/* In the background; takes `links`. */
static void links_close(struct bpf_link **links, size_t count)
{
	struct closing *c = calloc(1, sizeof(*c)), here = { links, 0, 1, count };
	pthread_t thread;

	if (c && count) {
		*c = here;
		if (closer_start(close_links_and_free, c, true, &thread))
			return;
	}
	free(c);
	close_links(&here);
	free(links);
}

/* All at once, and waits for it. */
static void links_close_now(struct bpf_link **links, size_t count)
{
	struct closing closing[CLOSERS_MAX];
	pthread_t threads[CLOSERS_MAX];
	bool started[CLOSERS_MAX];
	size_t i, n = count < CLOSERS_MAX ? count : CLOSERS_MAX;

	for (i = 0; i < n; i++) {
		closing[i] = (struct closing){ links, i, n, count };
		started[i] = closer_start(close_links, &closing[i], false, &threads[i]);
	}
	for (i = 0; i < n; i++) {
		if (started[i])
			pthread_join(threads[i], NULL);
		else
			close_links(&closing[i]);
	}
}

void hooks_free(struct hooks *h)
{
	struct bpf_link **all;
	struct process_hooks *p;
	size_t pos = 0, count = 0;
	uint64_t pid;
	void *value;

	if (!h)
		return;
	while (hash_next(&h->processes, &pos, &pid, &value))
		count += ((struct process_hooks *)value)->count;
	all = calloc(count + 1, sizeof(struct bpf_link *));
	count = 0;
	for (pos = 0; hash_next(&h->processes, &pos, &pid, &value);) {
		p = value;
		if (all && p->count)
			memcpy(all + count, p->links, p->count * sizeof(struct bpf_link *));
		count += p->count;
		free(p->links);
		hash_free(&p->codes);
		free(p);
	}
	if (all) /* without memory the end of the process does it */
		links_close_now(all, count);
	free(all);
	hash_free(&h->processes);
	free(h);
}

void hooks_forget(struct hooks *h, uint32_t pid)
{
	struct process_hooks *p = hash_remove(&h->processes, pid);
	struct code_key key = { .pid = pid };
	uint32_t traced = TRACED;
	size_t pos = 0;
	void *value;

	if (!p)
		return;
	/* Only while it is there: its exit has taken it out. */
	bpf_map_update_elem(h->traced_fd, &pid, &traced, BPF_EXIST);
	bpf_map_delete_elem(h->pythons_fd, &pid);
	while (hash_next(&p->codes, &pos, &key.code, &value))
		bpf_map_delete_elem(h->codes_fd, &key);
	links_close(p->links, p->count);
	hash_free(&p->codes);
	free(p);
}

/* --- putting them there --- */

static struct process_hooks *process_hooks_of(struct hooks *h, uint32_t pid)
{
	struct process_hooks *p = hash_get(&h->processes, pid);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (p && !hash_put(&h->processes, pid, p)) {
		free(p);
		p = NULL;
	}
	return p;
}

/* The program for this kind of place; NULL: this kernel can't have it. */
static struct bpf_program *hook_program(const struct hooks *h, const struct probe_hook *hook)
{
	const char *name = hook->at_return ? program_names[hook->kind].at_return
					   : program_names[hook->kind].here;
	struct bpf_program *prog = name ? bpf_object__find_program_by_name(h->obj, name) : NULL;

	return prog && bpf_program__fd(prog) >= 0 ? prog : NULL;
}

int probe_attach_hook(struct probe *probe, uint32_t pid, const struct probe_hook *hook)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = hook->at_return);
	struct hooks *h = probe_hooks(probe);
	struct bpf_program *prog;
	struct process_hooks *p;
	struct bpf_link *link;

	if ((unsigned int)hook->kind >= HOOK_KINDS)
		return -EINVAL;
	prog = hook_program(h, hook);
	if (!prog)
		return -EOPNOTSUPP;
	p = process_hooks_of(h, pid);
	if (!p)
		return -ENOMEM;
	if (p->count == p->room) {
		size_t room = p->room ? 2 * p->room : 8;
		struct bpf_link **links = realloc(p->links, room * sizeof(struct bpf_link *));

		if (!links)
			return -ENOMEM;
		p->links = links;
		p->room = room;
	}
	if (hook->kind == PROBE_HOOK_SPAN_ENTRY || hook->kind == PROBE_HOOK_SPAN_EXIT)
		opts.bpf_cookie = hook->arg;
	link = bpf_program__attach_uprobe_opts(prog, (pid_t)pid, hook->path, hook->offset, &opts);
	if (!link)
		return -errno;
	p->links[p->count++] = link;
	return 0;
}

void probe_unhook(struct probe *probe, uint32_t pid)
{
	hooks_forget(probe_hooks(probe), pid);
}

int probe_set_python(struct probe *probe, uint32_t pid, const struct python_layout *layout)
{
	struct hooks *h = probe_hooks(probe);
	uint32_t traced = TRACED | TRACED_PYTHON;

	if (!process_hooks_of(h, pid))
		return -ENOMEM;
	if (bpf_map_update_elem(h->pythons_fd, &pid, layout, BPF_ANY))
		return -errno;
	/* A process that is gone, or isn't traced, has no place for it. */
	if (bpf_map_update_elem(h->traced_fd, &pid, &traced, BPF_EXIST)) {
		int err = errno == ENOENT ? -ESRCH : -errno;

		bpf_map_delete_elem(h->pythons_fd, &pid);
		return err;
	}
	return 0;
}

int probe_set_code(struct probe *probe, uint32_t pid, uint64_t code,
		   const struct code_class *class_)
{
	struct hooks *h = probe_hooks(probe);
	const struct code_key key = { .code = code, .pid = pid };
	struct process_hooks *p = process_hooks_of(h, pid);

	if (!p || !hash_put(&p->codes, code, p))
		return -ENOMEM;
	return bpf_map_update_elem(h->codes_fd, &key, class_, BPF_ANY) ? -errno : 0;
}
