/*
 * Finds where probes go in an interpreter and what it loaded: where contexts are made
 * (python_copies.c), where work is handed to executors, where uvloop puts a write off. It refuses a
 * process whose asyncio copies contexts where no probe sees it. Invariant: a hook that was found
 * stays.
 */
#include "runtimes/python_function.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtimes/disasm.h"

enum {
	HOOKS_MAX = 64,
	CALLS_DEEP = 2,           /* asyncio of 3.9 to 3.14 needs two */
	TYPE_INIT_BEHIND = 8,     /* PyTypeObject: tp_init stands behind tp_dictoffset */
	UVLOOP_STREAM_SIZE = 400, /* of a UVStream, 0.15 to 0.22 */
};

int python_hook_add(struct python *p, const struct runtime_hook *hook)
{
	struct runtime_process *b = &p->base;
	struct runtime_hook *grown;

	for (size_t i = 0; i < b->hook_count; i++)
		if (b->hooks[i].kind == hook->kind && b->hooks[i].offset == hook->offset &&
		    strcmp(b->hooks[i].path, hook->path) == 0)
			return 0;
	if (b->hook_count == HOOKS_MAX)
		return -E2BIG;
	grown = realloc(b->hooks, (b->hook_count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	b->hooks = grown;
	grown[b->hook_count] = *hook;
	grown[b->hook_count].path = strdup(hook->path);
	if (!grown[b->hook_count].path)
		return -ENOMEM;
	b->hook_count++;
	return 0;
}

/* The same within a few calls. */
static bool reaches(const struct python *p, uint64_t address, uint64_t target, const char *symbol,
		    int depth)
{
	struct python_function f;
	struct disasm d;
	bool found = false;

	if (!python_function_read(p, symbol, address, 0, &f)) {
		found = python_function_leads_to(p, &f, target, symbol);
		if (!found && depth && !disasm_function(f.code, f.length, f.address, false, &d)) {
			for (size_t i = 0; !found && i < d.jump_count; i++)
				found = d.jumps[i].target && d.jumps[i].kind != DISASM_SLOT &&
					reaches(p, d.jumps[i].target, target, symbol, depth - 1);
			disasm_free(&d);
		}
	}
	python_function_free(&f);
	return found;
}

/*
 * Where asyncio's C part is in the interpreter's own file, a compiler may have given it its own
 * copy of PyContext_CopyCurrent, which no probe would see. Tasks and callbacks have to call it.
 */
static int check_asyncio(struct python *p, char **ret_why)
{
	static const char copy[] = "PyContext_CopyCurrent";
	uint64_t module = python_module(p, "_asyncio"), task, future, init, add, target;

	if (!module)
		return 0;
	task = python_module_get(p, module, "Task");
	future = python_module_get(p, module, "Future");
	init = task ? python_pointer(p, task + p->offsets.type_dictoffset + TYPE_INIT_BEHIND) : 0;
	add = future ? python_c_method(p, future, "add_done_callback") : 0;
	if (!init || !add)
		return 0; /* not imported to its end */
	p->asyncio_known = true;
	if (!python_is_inside(p, init))
		return 0;
	target = python_symbol(&p->image, copy, NULL);
	if (!reaches(p, init, target, copy, CALLS_DEEP) ||
	    !reaches(p, add, target, copy, CALLS_DEEP))
		return python_refuse(ret_why, "its asyncio is built in and copies contexts on its "
					      "own, where no probe can see it");
	return 0;
}

static bool has_hook(const struct python *p, enum runtime_hook_kind kind)
{
	for (size_t i = 0; i < p->base.hook_count; i++)
		if (p->base.hooks[i].kind == kind)
			return true;
	return false;
}

/* An entry probe that needs the arguments. */
static int add_entry(struct python *p, enum runtime_hook_kind kind, const char *name,
		     uint64_t address)
{
	struct runtime_hook hook = { .kind = kind, .name = name };
	struct python_function f;
	int err = python_function_read(p, name, address, 0, &f);

	if (!err) {
		hook.path = f.path;
		hook.offset = f.offset + disasm_entry(f.code, f.length, true);
		err = python_hook_add(p, &hook);
	}
	python_function_free(&f);
	return err;
}

/* ThreadPoolExecutor hands its items over by one; put(item) gets its arguments as an array. */
static int find_submit(struct python *p)
{
	uint64_t module = python_module(p, "_queue");
	uint64_t type = module ? python_module_get(p, module, "SimpleQueue") : 0;
	uint64_t put = type ? python_c_method(p, type, "put") : 0;

	return put ? add_entry(p, RUNTIME_HOOK_SUBMIT, "SimpleQueue.put", put) : 0;
}

/* uvloop 0.23 and later send what is written at once, in the writer's context. */
static bool uvloop_writes_at_once(const struct python *p)
{
	uint64_t module = python_module(p, "uvloop");
	uint64_t text = module ? python_module_get(p, module, "__version__") : 0;
	struct buf b = { 0 };
	unsigned int major, minor;
	bool at_once = text && python_str(p, text, &b, 32) &&
		       sscanf(buf_cstr(&b), "%u.%u", &major, &minor) == 2 &&
		       (major > 0 || minor >= 23);

	buf_free(&b);
	return at_once;
}

/*
 * uvloop before 0.23 gathers what transports write and sends it when no context is current any
 * more. Both of its ways to write are methods of a type, so no symbols are needed; the function
 * behind them (_buffer_write) is a copy of its own in one of them.
 */
static int find_late_write(struct python *p)
{
	uint64_t module = python_module(p, "uvloop.loop");
	uint64_t type = module ? python_module_get(p, module, "UVStream") : 0;
	uint64_t write = type ? python_c_method(p, type, "write") : 0;
	uint64_t writelines = type ? python_c_method(p, type, "writelines") : 0;
	int err;

	if (!type || p->uvloop_known)
		return 0;
	p->uvloop_known = true;
	if (uvloop_writes_at_once(p))
		return 0;
	if (!write || !writelines ||
	    python_pointer(p, type + p->offsets.type_basicsize) != UVLOOP_STREAM_SIZE) {
		p->base.note = "its uvloop is not one that is known: if it is older than 0.23, "
			       "calls and answers that go through it can't be linked";
		return 0;
	}
	err = add_entry(p, RUNTIME_HOOK_LATE_WRITE, "uvloop's write", write);
	return err < 0 ? err
		       : add_entry(p, RUNTIME_HOOK_LATE_WRITE, "uvloop's writelines", writelines);
}

int python_hooks_find(struct python *p, char **ret_why)
{
	size_t before = p->base.hook_count;
	int err = python_copies_find(p, ret_why);

	if (!err && !p->asyncio_known)
		err = check_asyncio(p, ret_why);
	if (!err && !has_hook(p, RUNTIME_HOOK_SUBMIT))
		err = find_submit(p);
	if (!err && !has_hook(p, RUNTIME_HOOK_LATE_WRITE))
		err = find_late_write(p);
	if (err)
		return err;
	return p->base.hook_count > before;
}
