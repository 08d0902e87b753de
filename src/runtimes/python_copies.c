/*
 * Where probes see contexts being made: PyContext_CopyCurrent (tasks, handles, timers,
 * copy_context(), executors of asyncio) and the other ways to make one. It refuses a process in
 * which one of them can't be found, for an address that is used again would then be taken for the
 * old context. Invariant: each new context is told of once.
 *
 * Cheapest is an instruction within, where the new context is in a register on the way to its
 * return (disasm_result.h). Where none is proven the function reports at its return, by a return
 * probe: none of them runs Python code itself or switches stacks before it returns. (Up to 3.11 an
 * allocation may start a collection, which may call a finalizer; that comes back on the same
 * stack.)
 */
#include "runtimes/python_function.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "runtimes/disasm.h"
#include "runtimes/disasm_result.h"

enum {
	COPIES_MAX = 6,
	C_FUNCTION_DEF = 16, /* PyCFunctionObject.m_ml (methodobject.h) */
	DEF_FUNCTION = 8,    /* PyMethodDef.ml_meth */
};

/* A way to make a Context. */
struct copy {
	struct python_function function;
	struct disasm_place places[DISASM_PLACES_MAX];
	size_t place_count; /* 0: told of at its return */
};

struct copies {
	struct copy all[COPIES_MAX];
	size_t count;
};

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
static int add_returns(struct python *p, const struct python_function *f, char **ret_why)
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
		err = python_hook_add(p, &hook);
	}
	disasm_free(&d);
	return err;
}

/* Told of at its return. */
static int add_return(struct python *p, const struct python_function *f, char **ret_why)
{
	struct runtime_hook hook = { .kind = RUNTIME_HOOK_CONTEXT_COPY,
				     .path = f->path,
				     .at_return = true,
				     .required = true,
				     .name = f->name };

	if (return_probes_harm())
		return add_returns(p, f, ret_why);
	hook.offset = f->offset + disasm_entry(f->code, f->length, false);
	return python_hook_add(p, &hook);
}

/* The C function behind a builtin function object. */
static uint64_t builtin_function(const struct python *p, uint64_t object)
{
	uint64_t def = object ? python_pointer(p, object + C_FUNCTION_DEF) : 0;

	return def ? python_pointer(p, def + DEF_FUNCTION) : 0;
}

/* --- places within --- */

static bool has_place(const struct copy *c, const struct disasm_place *place)
{
	for (size_t i = 0; i < c->place_count; i++)
		if (c->places[i].address == place->address && c->places[i].in_rbx == place->in_rbx)
			return true;
	return false;
}

/* Does any of them come by a place that is another's? What it makes was told of twice then. */
static bool places_meet(const struct copies *all, struct python_text *text)
{
	struct disasm_place others[COPIES_MAX * DISASM_PLACES_MAX];

	for (size_t i = 0; i < all->count; i++) {
		const struct copy *c = &all->all[i];
		size_t count = 0;

		for (size_t k = 0; k < all->count; k++)
			for (size_t n = 0; n < all->all[k].place_count; n++)
				if (!has_place(c, &all->all[k].places[n]))
					others[count++] = all->all[k].places[n];
		if (disasm_comes_by(c->function.address, python_text_fetch, text, others, count))
			return true;
	}
	return false;
}

static void find_places(const struct python *p, struct copies *all)
{
	struct python_text *text = calloc(1, sizeof(*text));

	if (!text)
		return;
	text->python = p;
	for (size_t i = 0; i < all->count; i++)
		all->all[i].place_count = disasm_result_places(
			all->all[i].function.address, python_text_fetch, text, all->all[i].places);
	if (places_meet(all, text))
		for (size_t i = 0; i < all->count; i++)
			all->all[i].place_count = 0;
	python_text_free(text);
	free(text);
}

static int add_place(struct python *p, const char *name, const struct disasm_place *place)
{
	struct runtime_hook hook = { .kind = place->in_rbx ? RUNTIME_HOOK_CONTEXT_RBX
							   : RUNTIME_HOOK_CONTEXT_RAX,
				     .required = true,
				     .name = name };
	int err = python_locate(p->base.pid, place->address, &hook.path, &hook.offset);

	if (!err)
		err = python_hook_add(p, &hook);
	free(hook.path);
	return err;
}

static int add_copies(struct python *p, const struct copies *all, char **ret_why)
{
	int err = 0;

	for (size_t i = 0; !err && i < all->count; i++) {
		const struct copy *c = &all->all[i];

		if (!c->place_count)
			err = add_return(p, &c->function, ret_why);
		for (size_t k = 0; !err && k < c->place_count; k++)
			err = add_place(p, c->function.name, &c->places[k]);
	}
	return err;
}

/* --- which they are --- */

/*
 * One way to make a Context. It is left out when all it does is to call the one with the symbol
 * `covered_by`, which has a probe; were both probed, each copy would be told twice.
 */
static int take_copy(const struct python *p, struct copies *all, const char *name, uint64_t address,
		     uint64_t size, const char *covered_by, char **ret_why)
{
	uint64_t target = covered_by ? python_symbol(&p->image, covered_by, NULL) : 0;
	struct python_function *f = &all->all[all->count].function;

	if (python_function_read(p, name, address, size, f)) {
		python_function_free(f);
		return python_refuse(ret_why, "%s can't be found in its file", name);
	}
	if (target && python_function_leads_to(p, f, target, covered_by))
		python_function_free(f);
	else
		all->count++;
	return 0;
}

static int take_copies(const struct python *p, struct copies *all, char **ret_why)
{
	static const char *const names[] = { "PyContext_CopyCurrent", "PyContext_Copy",
					     "PyContext_New" };
	uint64_t tp_new = python_pointer(p, p->context_type + p->offsets.type_new);
	uint64_t copy = python_c_method(p, p->context_type, "copy");
	int err = 0;

	for (size_t i = 0; !err && i < sizeof(names) / sizeof(names[0]); i++) {
		uint64_t size = 0, address = python_symbol(&p->image, names[i], &size);

		err = address ? take_copy(p, all, names[i], address, size, NULL, ret_why)
			      : python_refuse(ret_why, "it has no symbol %s", names[i]);
	}
	if (!err && (!tp_new || !copy))
		err = python_refuse(ret_why, "the type Context has no %s",
				    tp_new ? "method copy" : "constructor");
	if (!err)
		err = take_copy(p, all, "Context()", tp_new, 0, "PyContext_New", ret_why);
	if (!err)
		err = take_copy(p, all, "Context.copy", copy, 0, "PyContext_Copy", ret_why);
	return err;
}

/*
 * contextvars.copy_context() calls PyContext_CopyCurrent, which a compiler may have copied into it
 * when both are in one file. *ret_known: the module is there.
 */
static int take_copy_context(const struct python *p, struct copies *all, bool *ret_known,
			     char **ret_why)
{
	uint64_t module = python_module(p, "_contextvars"), function;

	*ret_known = module != 0;
	if (!module)
		return 0;
	function = builtin_function(p, python_module_get(p, module, "copy_context"));
	if (!function)
		return python_refuse(ret_why, "copy_context can't be read");
	if (!python_is_inside(p, function))
		return 0;
	return take_copy(p, all, "copy_context", function, 0, "PyContext_CopyCurrent", ret_why);
}

/* What came late may change nothing of what was decided: that is attached. */
static int check_late(const struct python *p, size_t before, const char *late, char **ret_why)
{
	for (size_t i = before; i < p->base.hook_count; i++)
		if (strcmp(p->base.hooks[i].name, late) != 0)
			return python_refuse(ret_why, "its %s copies contexts in a way of its own",
					     late);
	return 0;
}

int python_copies_find(struct python *p, char **ret_why)
{
	struct copies *all;
	size_t before = p->base.hook_count;
	bool known;
	int err;

	if (p->copies_known && p->copy_context_known)
		return 0;
	all = calloc(1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	err = take_copy_context(p, all, &known, ret_why);
	if (!err && (all->count || !p->copies_known))
		err = take_copies(p, all, ret_why);
	if (!err && all->count) {
		find_places(p, all);
		err = add_copies(p, all, ret_why);
	}
	if (!err && p->copies_known)
		err = check_late(p, before, "copy_context", ret_why);
	if (!err) {
		p->copies_known = true;
		p->copy_context_known = known;
	}
	for (size_t i = 0; i < all->count; i++)
		python_function_free(&all->all[i].function);
	free(all);
	return err;
}
