/*
 * Compares what the table of offsets says with the live process, before anything is used: types,
 * interpreter, modules, thread states, where threads keep theirs, contexts, frames. The process
 * runs meanwhile, so a look that disagrees is repeated; what still disagrees refuses the process.
 * Invariant: success means that every offset the kernel side uses was seen to lead to the right
 * kind of thing, in this process.
 */
#include "runtimes/python_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	LOOKS = 20,
	LOOK_PAUSE_US = 1000,
	INTERPRETERS_MAX = 256,
	THREADS_LOOKED_AT = 64,
	TSTATE_BYTES = 256, /* as much of it as we use, which ends with the context */
	THREAD_NUMBER_MAX = 1 << 22,
	INT_DIGIT = 24,        /* of an int below 2^30: longintrepr.h, all versions */
	INTERPRETERS_MAIN = 8, /* struct pyinterpreters: main stands behind head */
	TSS_INITIALIZED = -4,  /* Py_tss_t: is_initialized stands before the key */
	/* glibc, struct pthread: self pointers, specific_1stblock (of x86-64 since 2.3.4) */
	TP_SELF = 0x10,
	GLIBC_SPECIFIC = 0x310,
	GLIBC_SPECIFIC_MIN = 0x100,
	GLIBC_SPECIFIC_MAX = 0x600,
	GLIBC_KEYS = 32, /* in the first block */
	/* musl, struct pthread: its pointer tsd is somewhere in here */
	MUSL_TSD_MAX = 0x200,
	MUSL_KEYS = 128,
};

struct thread {
	uint64_t tstate, pointer; /* its state, its thread pointer */
	uint64_t context;
	uint64_t frame;
	uint32_t native; /* its number as it sees it itself; 0: not known */
};

struct look {
	struct python *p;
	struct thread threads[THREADS_LOOKED_AT];
	size_t count;
	bool musl;
	char what[160]; /* disagreed */
};

static int disagree(struct look *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int disagree(struct look *l, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(l->what, sizeof(l->what), format, args);
	va_end(args);
	return -EOPNOTSUPP;
}

static uint32_t read_u32(const struct python *p, uint64_t address)
{
	uint32_t v = 0;

	return python_read(p, address, &v, sizeof(v)) ? v : 0;
}

static uint64_t u64_in(const uint8_t *data, size_t at)
{
	uint64_t v;

	memcpy(&v, data + at, sizeof(v));
	return v;
}

/* --- types ------------------------------------------------------------------------------ */

static bool is_named(const struct python *p, uint64_t type, const char *name)
{
	uint64_t at = python_pointer(p, type + p->offsets.type_name);
	char got[32];
	size_t bytes = strlen(name) + 1;

	return at && bytes <= sizeof(got) && python_read(p, at, got, bytes) &&
	       memcmp(got, name, bytes) == 0;
}

static int check_types(struct look *l)
{
	struct python *p = l->p;
	const struct {
		uint64_t *ret;
		const char *symbol, *name, *other_name;
		uint32_t size; /* tp_basicsize; 0: any */
	} types[] = {
		{ &p->code_type, "PyCode_Type", "code", "code", 0 },
		{ &p->context_type, "PyContext_Type", "_contextvars.Context", "Context",
		  p->offsets.context_size },
		{ &p->str_type, "PyUnicode_Type", "str", "str", p->offsets.str_compact + 8U },
		{ &p->dict_type, "PyDict_Type", "dict", "dict", p->layout.dict_values + 8U },
		{ &p->tuple_type, "PyTuple_Type", "tuple", "tuple", 0 },
		{ &p->module_type, "PyModule_Type", "module", "module", 0 },
	};
	uint64_t meta = python_symbol(&p->image, "PyType_Type", NULL);

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		uint64_t type = python_symbol(&p->image, types[i].symbol, NULL);

		if (!type || !meta)
			return disagree(l, "it has no symbol %s", types[i].symbol);
		if (python_pointer(p, type + 8) != meta ||
		    (!is_named(p, type, types[i].name) && !is_named(p, type, types[i].other_name)))
			return disagree(l, "%s isn't that type", types[i].symbol);
		if (types[i].size &&
		    python_pointer(p, type + p->offsets.type_basicsize) != types[i].size)
			return disagree(l, "its %s objects are %llu bytes long, not %u",
					types[i].name,
					(unsigned long long)python_pointer(
						p, type + p->offsets.type_basicsize),
					types[i].size);
		*types[i].ret = type;
	}
	p->layout.context_type = p->context_type;
	return 0;
}

/* --- interpreter ------------------------------------------------------------------------ */

static int check_interpreter(struct look *l)
{
	struct python *p = l->p;
	uint64_t head = p->runtime + p->offsets.runtime_interpreters;
	uint64_t interp = python_pointer(p, head);
	uint64_t main_interp = python_pointer(p, head + INTERPRETERS_MAIN);

	if (!read_u32(p, p->runtime + p->offsets.runtime_initialized) || !interp || !main_interp)
		return -EAGAIN;
	/* The newest is first, so the main one is last. */
	for (int i = 0; interp != main_interp && i < INTERPRETERS_MAX; i++)
		interp = python_pointer(p, interp + p->offsets.interp_next);
	if (interp != main_interp || python_pointer(p, interp + p->offsets.interp_next))
		return disagree(l, "the list of interpreters doesn't end with the main one");
	p->interp = interp;
	return 0;
}

static int check_modules(struct look *l)
{
	struct python *p = l->p;
	uint64_t modules = python_pointer(p, p->interp + p->offsets.interp_modules);
	uint64_t sys, version;
	uint32_t hex;

	if (!modules)
		return -EAGAIN;
	if (python_pointer(p, modules + 8) != p->dict_type)
		return disagree(l, "sys.modules isn't a dict");
	sys = python_module(p, "sys");
	if (!sys || python_pointer(p, sys + 8) != p->module_type)
		return disagree(l, "sys.modules has no module sys");
	version = python_module_get(p, sys, "hexversion");
	if (!version)
		return disagree(l, "sys.hexversion can't be read");
	hex = read_u32(p, version + INT_DIGIT);
	/* 3.9 and 3.10 tell their release only here. */
	if (hex >> 16 != p->hex_version >> 16 || (p->hex_version & 0xffff && hex != p->hex_version))
		return disagree(l, "sys.hexversion is 0x%x, not 0x%x", hex, p->hex_version);
	p->hex_version = hex;
	return 0;
}

/* --- threads ---------------------------------------------------------------------------- */

/* A thread pointer points to itself, with both libraries. */
static bool is_thread_pointer(const struct look *l, uint64_t pointer)
{
	return pointer && !(pointer & 7) && python_pointer(l->p, pointer) == pointer &&
	       (l->musl || python_pointer(l->p, pointer + TP_SELF) == pointer);
}

static int read_thread(struct look *l, uint64_t tstate, uint64_t *ret_next)
{
	const struct python *p = l->p;
	uint8_t data[TSTATE_BYTES];
	struct thread t = { .tstate = tstate };

	if (!python_read(p, tstate, data, p->layout.tstate_context + sizeof(uint64_t)))
		return disagree(l, "a thread state can't be read");
	if (u64_in(data, p->offsets.tstate_interp) != p->interp)
		return disagree(l, "a thread state doesn't lead back to its interpreter");
	*ret_next = u64_in(data, p->offsets.tstate_next);
	t.pointer = u64_in(data, p->layout.tstate_thread_id);
	t.context = u64_in(data, p->layout.tstate_context);
	t.frame = u64_in(data, p->layout.tstate_frame);
	if (p->offsets.tstate_native_thread_id != PYTHON_NONE) {
		uint64_t native = u64_in(data, p->offsets.tstate_native_thread_id);

		if (native > THREAD_NUMBER_MAX)
			return disagree(l, "a thread state has no thread number");
		t.native = (uint32_t)native;
	}
	/* A state that was made for a thread that didn't run yet, or is left over of a dead one. */
	if (is_thread_pointer(l, t.pointer))
		l->threads[l->count++] = t;
	return 0;
}

static int read_threads(struct look *l)
{
	uint64_t tstate = python_pointer(l->p, l->p->interp + l->p->offsets.interp_threads);
	int err;

	if (!tstate)
		return -EAGAIN;
	for (size_t i = 0; tstate && i < THREADS_LOOKED_AT; i++) {
		err = read_thread(l, tstate, &tstate);
		if (err)
			return err;
	}
	return l->count ? 0 : disagree(l, "no thread state leads to a thread");
}

/* Is it one of the process's threads? By the innermost of its numbers, which it sees itself. */
static bool is_alive(uint32_t pid, uint32_t native)
{
	char path[64], line[256];
	bool found = false;
	struct dirent *entry;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%u/task", pid);
	tasks = opendir(path);
	while (tasks && !found && (entry = readdir(tasks))) {
		FILE *f;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%u/task/%.10s/status", pid, entry->d_name);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f)) {
			const char *last = strrchr(line, '\t');

			if (strncmp(line, "NSpid:", 6) != 0 || !last)
				continue;
			found = strtoul(last + 1, NULL, 10) == native;
			break;
		}
		if (f)
			fclose(f);
	}
	if (tasks)
		closedir(tasks);
	return found;
}

/* --- thread-specific data --------------------------------------------------------------- */

static bool holds(const struct look *l, const struct thread *t, uint32_t key, uint32_t offset)
{
	uint64_t slot[2], values;

	if (l->musl) {
		values = python_pointer(l->p, t->pointer + offset);
		return values && python_pointer(l->p, values + key * 8ULL) == t->tstate;
	}
	/* { sequence number, odd while the key is in use; value } */
	return python_read(l->p, t->pointer + offset + key * 16ULL, slot, sizeof(slot)) &&
	       slot[1] == t->tstate && (slot[0] & 1);
}

/* True when all live threads keep their state there; those that are dead are left out then. */
static bool all_hold(struct look *l, uint32_t key, uint32_t offset)
{
	struct thread kept[THREADS_LOOKED_AT];
	size_t count = 0;

	for (size_t i = 0; i < l->count; i++)
		if (holds(l, &l->threads[i], key, offset))
			kept[count++] = l->threads[i];
	if (!count)
		return false;
	for (size_t i = 0; count < l->count && i < l->count; i++)
		if (!holds(l, &l->threads[i], key, offset) && l->threads[i].native &&
		    is_alive(l->p->base.pid, l->threads[i].native))
			return false;
	memcpy(l->threads, kept, count * sizeof(kept[0]));
	l->count = count;
	return true;
}

static bool offset_search(struct look *l, uint32_t key, uint32_t *ret)
{
	uint32_t from = l->musl ? 0 : GLIBC_SPECIFIC_MIN;
	uint32_t to = l->musl ? MUSL_TSD_MAX : GLIBC_SPECIFIC_MAX;

	if (!l->musl && all_hold(l, key, GLIBC_SPECIFIC)) {
		*ret = GLIBC_SPECIFIC;
		return true;
	}
	for (uint32_t offset = from; offset < to; offset += 8) {
		if (all_hold(l, key, offset)) {
			*ret = offset;
			return true;
		}
	}
	return false;
}

static int check_tsd(struct look *l)
{
	struct python *p = l->p;
	uint64_t at = p->runtime + p->offsets.runtime_tss_key;
	uint32_t key = read_u32(p, at), keys = l->musl ? MUSL_KEYS : GLIBC_KEYS, offset;

	if (read_u32(p, at + (uint64_t)TSS_INITIALIZED) != 1)
		return disagree(l, "the key of the thread states isn't made");
	if (key >= keys)
		return disagree(l,
				"the key of the thread states is %u, only those below %u are "
				"known to be in reach",
				key, keys);
	if (!offset_search(l, key, &offset))
		return disagree(l, "a thread doesn't hold its state as thread-specific data");
	p->layout.tss_key = key;
	p->layout.tsd = l->musl ? PYTHON_TSD_MUSL : PYTHON_TSD_GLIBC;
	p->layout.tsd_offset = (uint16_t)offset;
	return 0;
}

/* musl's own file is libc.so; most distributions rename it (glibc's is libc.so.6). */
static bool find_musl(void *ctx, const struct python_mapping *m)
{
	struct look *l = ctx;
	const char *slash = strrchr(m->name, '/');

	if (slash && (strcmp(slash + 1, "libc.so") == 0 || strncmp(slash + 1, "ld-musl-", 8) == 0 ||
		      strncmp(slash + 1, "libc.musl-", 10) == 0))
		l->musl = true;
	return !l->musl;
}

/* --- contexts and frames ---------------------------------------------------------------- */

static int check_contexts(struct look *l)
{
	const struct python *p = l->p;

	for (size_t i = 0; i < l->count; i++) {
		uint64_t context = l->threads[i].context;

		if (!context)
			continue;
		if (python_pointer(p, context + 8) != p->context_type)
			return disagree(l, "a thread's context isn't a Context");
		if (read_u32(p, context + p->layout.context_entered) > 1)
			return disagree(l, "a Context is entered more than once");
	}
	return 0;
}

static bool is_code(const struct python *p, uint64_t code)
{
	struct buf b = { 0 };
	bool ok = python_pointer(p, code + 8) == p->code_type &&
		  python_str(p, python_pointer(p, code + p->offsets.code_filename), &b, 4096) &&
		  python_str(p, python_pointer(p, code + p->offsets.code_name), &b, 4096) &&
		  (p->offsets.code_qualname == PYTHON_NONE ||
		   python_str(p, python_pointer(p, code + p->offsets.code_qualname), &b, 4096));

	buf_free(&b);
	return ok;
}

/* How many frames of Python code are on the stack; -1: one of them can't be right. */
static int count_frames(const struct python *p, uint64_t frame)
{
	const struct python_layout *o = &p->layout;
	uint8_t owner;
	int count = 0;

	for (int i = 0; frame && i < FRAMES_MAX; i++) {
		uint64_t code =
			python_pointer(p, frame + o->frame_code) & ~(uint64_t)o->reference_tags;

		owner = 0;
		if (o->frame_owner != PYTHON_NONE &&
		    !python_read(p, frame + o->frame_owner, &owner, sizeof(owner)))
			return -1;
		if (owner < o->frame_owner_skip) {
			if (!is_code(p, code))
				return -1;
			count++;
		}
		if (!python_read(p, frame + o->frame_previous, &frame, sizeof(frame)))
			return -1;
	}
	return count;
}

static int check_frames(struct look *l)
{
	const struct python *p = l->p;
	bool wrong = false;

	for (size_t i = 0; i < l->count; i++) {
		uint64_t frame = l->threads[i].frame;
		int count;

		if (p->layout.cframe_frame != PYTHON_NONE)
			frame = python_pointer(p, frame + p->layout.cframe_frame);
		count = count_frames(p, frame);
		if (count > 0)
			return 0;
		if (count < 0)
			wrong = true;
	}
	return wrong ? disagree(l, "a thread's frames don't lead to code") : -EAGAIN;
}

static int look(struct look *l)
{
	static int (*const steps[])(struct look *) = {
		check_types, check_interpreter, check_modules, read_threads,
		check_tsd,   check_contexts,    check_frames,
	};
	int err = 0;

	l->count = 0;
	for (size_t i = 0; !err && i < sizeof(steps) / sizeof(steps[0]); i++)
		err = steps[i](l);
	return err;
}

int python_check(struct python *p, char **ret_why)
{
	struct look l = { .p = p };
	int err;

	p->layout = p->offsets.layout;
	err = python_debug_check(p, ret_why);
	if (!err)
		err = python_mappings(p->base.pid, find_musl, &l);
	if (err)
		return err;
	for (int i = 0; i < LOOKS; i++) {
		if (i)
			usleep(LOOK_PAUSE_US);
		err = look(&l);
		if (err != -EOPNOTSUPP)
			return err;
	}
	/* A process that is gone can't be read either. */
	if (!python_read(p, p->runtime, &(uint64_t){ 0 }, sizeof(uint64_t)))
		return -ESRCH;
	return python_refuse(ret_why, "its structures do not match CPython %s: %s", p->base.version,
			     l.what);
}
