/*
 * Finds where probes go in an interpreter and what it loaded. What hands contexts on is required:
 * PyContext_CopyCurrent (tasks, handles, timers, copy_context(), executors of asyncio) and the
 * other ways to make a Context. It refuses a process in which one of them can't be found, for an
 * address that is used again would then be taken for the old context.
 *
 * All of those report at their return, where the new context is known, by a return probe: none of
 * them runs Python code itself or switches stacks before it returns. (Up to 3.11 an allocation may
 * start a collection, which may call a finalizer; that comes back on the same stack.)
 */
#include "runtimes/python_internal.h"

#include "runtimes/disasm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

enum {
	CODE_BYTES = 2048, /* of a function whose size isn't known */
	HOOKS_MAX = 64,
	CALLS_DEEP = 2,       /* asyncio of 3.9 to 3.14 needs two */
	C_FUNCTION_DEF = 16,  /* PyCFunctionObject.m_ml (methodobject.h) */
	DEF_FUNCTION = 8,     /* PyMethodDef.ml_meth */
	TYPE_INIT_BEHIND = 8, /* PyTypeObject: tp_init stands behind tp_dictoffset */
};

/* A function of the process and its machine code, as the file has it: without probes in it. */
struct function {
	const char *name;
	uint64_t address, size; /* size 0: not known */
	char *path;
	uint64_t offset;
	uint8_t code[CODE_BYTES];
	size_t length;
};

static void function_free(struct function *f)
{
	free(f->path);
}

static int function_read(const struct python *p, const char *name, uint64_t address, uint64_t size,
			 struct function *ret)
{
	struct function *f = ret;
	ssize_t got;
	int fd, err;

	memset(f, 0, sizeof(*f));
	f->name = name;
	f->address = address;
	f->size = size <= sizeof(f->code) ? size : 0;
	err = python_locate(p->base.pid, address, &f->path, &f->offset);
	if (err)
		return err;
	fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	got = pread(fd, f->code, f->size ? f->size : sizeof(f->code), (off_t)f->offset);
	err = got > 0 && (!f->size || (uint64_t)got == f->size) ? 0 : -EIO;
	close(fd);
	f->length = got > 0 ? (size_t)got : 0;
	return err;
}

/* An entry of the procedure linkage is one jump by a slot. */
static bool is_linkage(const struct python *p, uint64_t address, const char *symbol)
{
	struct function f;
	struct disasm d;
	bool is = false;

	if (!function_read(p, symbol, address, 0, &f) &&
	    !disasm_function(f.code, f.length, f.address, false, &d)) {
		is = d.jump_count == 1 && !d.return_count && d.jumps[0].kind == DISASM_SLOT &&
		     python_slot_is(&p->image, d.jumps[0].target, symbol);
		disasm_free(&d);
	}
	function_free(&f);
	return is;
}

/* Does the function call the one at `target`, directly or by way of the procedure linkage, or end
 * in it? */
static bool leads_to(const struct python *p, const struct function *f, uint64_t target,
		     const char *symbol)
{
	struct disasm d;
	bool found = false;

	if (disasm_function(f->code, f->length, f->address, f->size != 0, &d))
		return false;
	for (size_t i = 0; !found && i < d.jump_count; i++) {
		const struct disasm_jump *j = &d.jumps[i];

		if (j->kind == DISASM_SLOT)
			found = python_slot_is(&p->image, j->target, symbol);
		else if (j->kind != DISASM_INDIRECT)
			found = j->target == target || is_linkage(p, j->target, symbol);
	}
	disasm_free(&d);
	return found;
}

static int add(struct python *p, const struct runtime_hook *hook)
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

/*
 * From 6.11 on a return probe comes back through a system call of its own, which a seccomp filter
 * could refuse, and the process then died of it; 6.14 lets it pass every filter, and stable
 * releases took that over. Those that may not have it are meant here. Before 5.15 a return probe
 * can't be told whose it is, and each process would come to those of all.
 */
static bool return_probes_harm(void)
{
	unsigned int major, minor, patch = 0;
	struct utsname u;

	if (uname(&u) || sscanf(u.release, "%u.%u.%u", &major, &minor, &patch) < 2)
		return true;
	if (major < 5 || (major == 5 && minor < 15))
		return true;
	if (major != 6 || minor < 11 || minor > 13)
		return false;
	return minor == 11 || (minor == 12 && patch < 20) || (minor == 13 && patch < 8);
}

/* A probe on each RET instead; only of a function that ends nowhere else. */
static int add_returns(struct python *p, const struct function *f, char **ret_why)
{
	struct runtime_hook hook = { .kind = RUNTIME_HOOK_CONTEXT_COPY,
				     .path = f->path,
				     .required = true,
				     .name = f->name };
	struct disasm d;
	int err = 0;

	if (!f->size || disasm_function(f->code, f->length, f->address, true, &d))
		return python_refuse(ret_why,
				     "this kernel's return probes do harm, and where %s "
				     "returns isn't known",
				     f->name);
	for (size_t i = 0; !err && i < d.jump_count; i++)
		if (!d.jumps[i].call)
			err = python_refuse(ret_why,
					    "this kernel's return probes do harm, and %s "
					    "ends in another function",
					    f->name);
	for (size_t i = 0; !err && i < d.return_count; i++) {
		hook.offset = f->offset + d.returns[i];
		err = add(p, &hook);
	}
	disasm_free(&d);
	return err;
}

static int add_copy(struct python *p, const struct function *f, char **ret_why)
{
	struct runtime_hook hook = { .kind = RUNTIME_HOOK_CONTEXT_COPY,
				     .path = f->path,
				     .at_return = true,
				     .required = true,
				     .name = f->name };

	if (return_probes_harm())
		return add_returns(p, f, ret_why);
	hook.offset = f->offset + disasm_entry(f->code, f->length, false);
	return add(p, &hook);
}

/* The C function behind a builtin function object. */
static uint64_t builtin_function(const struct python *p, uint64_t object)
{
	uint64_t def = object ? python_pointer(p, object + C_FUNCTION_DEF) : 0;

	return def ? python_pointer(p, def + DEF_FUNCTION) : 0;
}

/*
 * One way to make a Context. It is left out when all it does is to call the one with the symbol
 * `covered_by`, which has a probe; were both probed, each copy would be told twice.
 */
static int find_copy(struct python *p, const char *name, uint64_t address, uint64_t size,
		     const char *covered_by, char **ret_why)
{
	uint64_t target = covered_by ? python_symbol(&p->image, covered_by, NULL) : 0;
	struct function f;
	int err;

	err = function_read(p, name, address, size, &f);
	if (err)
		err = python_refuse(ret_why, "%s can't be found in its file", name);
	else if (!target || !leads_to(p, &f, target, covered_by))
		err = add_copy(p, &f, ret_why);
	function_free(&f);
	return err;
}

static int find_copies(struct python *p, char **ret_why)
{
	static const char *const names[] = { "PyContext_CopyCurrent", "PyContext_Copy",
					     "PyContext_New" };
	uint64_t tp_new = python_pointer(p, p->context_type + p->offsets.type_new);
	uint64_t copy = python_c_method(p, p->context_type, "copy");
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t size = 0, address = python_symbol(&p->image, names[i], &size);

		err = address ? find_copy(p, names[i], address, size, NULL, ret_why)
			      : python_refuse(ret_why, "it has no symbol %s", names[i]);
	}
	if (!err && (!tp_new || !copy))
		err = python_refuse(ret_why, "the type Context has no %s",
				    tp_new ? "method copy" : "constructor");
	if (!err)
		err = find_copy(p, "Context()", tp_new, 0, "PyContext_New", ret_why);
	if (!err)
		err = find_copy(p, "Context.copy", copy, 0, "PyContext_Copy", ret_why);
	return err;
}

/* Of the interpreter's own file? */
static bool is_inside(const struct python *p, uint64_t address)
{
	struct stat here, interpreter;
	uint64_t offset;
	char *path;
	bool inside;

	if (python_locate(p->base.pid, address, &path, &offset))
		return false;
	inside = !stat(path, &here) && !stat(p->image.path, &interpreter) &&
		 here.st_ino == interpreter.st_ino && here.st_dev == interpreter.st_dev;
	free(path);
	return inside;
}

/*
 * contextvars.copy_context() calls PyContext_CopyCurrent, which a compiler may have copied into it
 * when both are in one file.
 */
static int find_copy_context(struct python *p, char **ret_why)
{
	uint64_t module = python_module(p, "_contextvars"), function;

	if (!module)
		return 0;
	function = builtin_function(p, python_module_get(p, module, "copy_context"));
	if (!function)
		return python_refuse(ret_why, "copy_context can't be read");
	p->copy_context_known = true;
	if (!is_inside(p, function))
		return 0;
	return find_copy(p, "copy_context", function, 0, "PyContext_CopyCurrent", ret_why);
}

/* The same within a few calls. */
static bool reaches(const struct python *p, uint64_t address, uint64_t target, const char *symbol,
		    int depth)
{
	struct function f;
	struct disasm d;
	bool found = false;

	if (!function_read(p, symbol, address, 0, &f)) {
		found = leads_to(p, &f, target, symbol);
		if (!found && depth && !disasm_function(f.code, f.length, f.address, false, &d)) {
			for (size_t i = 0; !found && i < d.jump_count; i++)
				found = d.jumps[i].target && d.jumps[i].kind != DISASM_SLOT &&
					reaches(p, d.jumps[i].target, target, symbol, depth - 1);
			disasm_free(&d);
		}
	}
	function_free(&f);
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
	if (!is_inside(p, init))
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
	struct function f;
	int err = function_read(p, name, address, 0, &f);

	if (!err) {
		hook.path = f.path;
		hook.offset = f.offset + disasm_entry(f.code, f.length, true);
		err = add(p, &hook);
	}
	function_free(&f);
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
	if (!write || !writelines) {
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
	int err = 0;

	if (!has_hook(p, RUNTIME_HOOK_CONTEXT_COPY))
		err = find_copies(p, ret_why);
	if (!err && !p->copy_context_known)
		err = find_copy_context(p, ret_why);
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
