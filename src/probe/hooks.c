/*
 * Probes in the code of single processes: one link for each place and process, so that what belongs
 * to a process goes with it. It knows which program serves which kind of place, and refuses a kind
 * that this kernel has no program for. Invariant: a process without an entry here has no links, no
 * layout and no classified code in the kernel.
 */
#include "probe/hooks.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "event.h"
#include "probe/hook_links.h"
#include "probe/programs.h"
#include "probe/traced.h"
#include "python_layout.h"

enum { HOOK_KINDS = PROBE_HOOK_SPAN_EXIT + 1 };

static const struct {
	const char *here, *at_return; /* NULL: makes no sense */
} program_names[HOOK_KINDS] = {
	[PROBE_HOOK_CONTEXT_COPY] = { "context_in_rax", "context_copied" },
	[PROBE_HOOK_CONTEXT_RAX] = { "context_in_rax", NULL },
	[PROBE_HOOK_CONTEXT_RBX] = { "context_in_rbx", NULL },
	[PROBE_HOOK_LATE_WRITE] = { "late_write", NULL },
	[PROBE_HOOK_SUBMIT] = { "item_submitted", NULL },
	[PROBE_HOOK_SPAN_ENTRY] = { "native_entered", NULL },
	[PROBE_HOOK_SPAN_EXIT] = { "native_left", NULL },
};

struct process_hooks {
	struct hook_links links;
	struct hash codes; /* a set: the classified ones */
};

struct hooks {
	const struct bpf_object *obj;
	int traced_fd, pythons_fd, codes_fd, handlers_fd;
	struct hash processes; /* by pid */
	bool multi;
	struct stats *stats;
};

bool hooks_own(const struct bpf_program *prog)
{
	const char *section = bpf_program__section_name(prog);

	return strcmp(section, "uprobe") == 0 || strcmp(section, "uretprobe") == 0;
}

bool hooks_prepare(struct bpf_program *prog, const struct btf *kernel)
{
	const char *name = bpf_program__name(prog);

	hook_links_prepare(prog, kernel);
	/* bpf_get_attach_cookie() came with 5.15: a native span's probe knows its rule by it, one
	 * at a return its process. */
	return (strncmp(name, "native_", strlen("native_")) != 0 &&
		strcmp(name, "context_copied") != 0) ||
	       kernel_has_helper(kernel, "get_attach_cookie");
}

static int map_fd(const struct bpf_object *obj, const char *name)
{
	return bpf_object__find_map_fd_by_name(obj, name);
}

struct hooks *hooks_new(const struct bpf_object *obj, struct stats *stats)
{
	struct hooks *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->obj = obj;
	h->stats = stats;
	h->traced_fd = map_fd(obj, "traced");
	h->pythons_fd = map_fd(obj, "pythons");
	h->handlers_fd = map_fd(obj, "handlers");
	h->codes_fd = map_fd(obj, "codes");
	h->multi = hook_links_multi(bpf_object__find_program_by_name(
		obj, program_names[PROBE_HOOK_CONTEXT_COPY].at_return));
	return h;
}

void hooks_free(struct hooks *h)
{
	struct hook_links all = { 0 };
	struct process_hooks *p;
	size_t pos = 0;
	uint64_t pid;
	void *value;

	if (!h)
		return;
	while (hash_next(&h->processes, &pos, &pid, &value)) {
		p = value;
		hook_links_move(&all, &p->links);
		hash_free(&p->codes);
		free(p);
	}
	hook_links_close_now(&all);
	hash_free(&h->processes);
	free(h);
}

void hooks_forget(struct hooks *h, uint32_t pid)
{
	struct process_hooks *p = hash_remove(&h->processes, pid);
	struct code_key key = { .pid = pid };
	size_t pos = 0;
	void *value;

	if (!p)
		return;
	traced_change(h->traced_fd, pid, TRACED_PYTHON, 0);
	bpf_map_delete_elem(h->pythons_fd, &pid);
	bpf_map_delete_elem(h->handlers_fd, &pid);
	while (hash_next(&p->codes, &pos, &key.code, &value))
		bpf_map_delete_elem(h->codes_fd, &key);
	hook_links_close(&p->links);
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
	struct hooks *h = probe_hooks(probe);
	struct bpf_program *prog;
	struct process_hooks *p;

	if ((unsigned int)hook->kind >= HOOK_KINDS)
		return -EINVAL;
	prog = hook_program(h, hook);
	if (!prog)
		return -EOPNOTSUPP;
	p = process_hooks_of(h, pid);
	if (!p)
		return -ENOMEM;
	return hook_links_add(&p->links, prog, h->multi, pid, hook);
}

void probe_unhook(struct probe *probe, uint32_t pid)
{
	hooks_forget(probe_hooks(probe), pid);
}

int probe_set_python(struct probe *probe, uint32_t pid, const struct python_layout *layout)
{
	struct hooks *h = probe_hooks(probe);
	int err;

	if (!process_hooks_of(h, pid))
		return -ENOMEM;
	if (bpf_map_update_elem(h->pythons_fd, &pid, layout, BPF_ANY))
		return -errno;
	/* A process that is gone, or isn't traced, has no place for it. */
	err = traced_change(h->traced_fd, pid, 0, TRACED_PYTHON);
	if (err)
		bpf_map_delete_elem(h->pythons_fd, &pid);
	return err;
}

int probe_set_handlers(struct probe *probe, uint32_t pid, const struct context_handlers *handlers)
{
	struct hooks *h = probe_hooks(probe);

	if (!hash_get(&h->processes, pid))
		return -ESRCH;
	return bpf_map_update_elem(h->handlers_fd, &pid, handlers, BPF_ANY) ? -errno : 0;
}

int probe_set_code(struct probe *probe, uint32_t pid, uint64_t code,
		   const struct code_class *class_)
{
	struct hooks *h = probe_hooks(probe);
	const struct code_key key = { .code = code, .pid = pid };
	struct process_hooks *p = process_hooks_of(h, pid);
	int err = 0;

	if (!p)
		return -ENOMEM;
	/* The table is everybody's, so one that makes code without end gets a share of it. */
	if (p->codes.count >= CODES_OF_PROCESS_MAX && !hash_get(&p->codes, code))
		err = -E2BIG;
	else if (bpf_map_update_elem(h->codes_fd, &key, class_, BPF_ANY))
		err = -errno;
	else if (!hash_put(&p->codes, code, p))
		err = -ENOMEM;
	if (err == -E2BIG)
		stats_drop(h->stats, DROP_CODE_LIMIT, 1);
	return err;
}
