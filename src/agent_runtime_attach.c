/*
 * What is done to one traced process: its runtime opened, probes put in place, the kernel side and
 * the tracer told, in this order; and the words for it. A runtime whose required probes are not all
 * in place is given up whole. Where the kernel takes no probes at all, that is said once, and the
 * general rules link what they can.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent_runtime_internal.h"
#include "base/log.h"
#include "discover/process.h"
#include "python_layout.h"

enum { SAID_MAX = 8, NAME_BYTES = 64 };

#define GENERAL_RULES "its calls are linked by the general rules only"

/* --- words --- */

static const char *process_name(const struct agent_runtime *r, uint32_t pid, char buf[NAME_BYTES])
{
	const char *slash;
	struct process p;

	if (process_read(r->proc_fd, pid, PROCESS_EXE, &p))
		return "?";
	slash = p.exe ? strrchr(p.exe, '/') : NULL;
	snprintf(buf, NAME_BYTES, "%s", slash && slash[1] ? slash + 1 : p.comm);
	process_free(&p);
	return buf;
}

/* Children repeat what was said of their parents. */
static enum log_level level_of(const struct followed *f, enum log_level level)
{
	return f->origin == RUNTIME_FORKED ? LOG_LEVEL_DEBUG : level;
}

static void say_given_up(const struct agent_runtime *r, const struct followed *f, const char *why)
{
	char name[NAME_BYTES];

	log_printf(level_of(f, LOG_LEVEL_WARNING), "process %u (%s): %s: " GENERAL_RULES, f->pid,
		   process_name(r, f->pid, name), why);
}

static void say_followed(struct agent_runtime *r, const struct followed *f)
{
	const struct runtime_process *p = f->process;
	const struct python_layout *layout = p->runtime->layout(p);
	enum log_level level = level_of(f, LOG_LEVEL_INFO);
	char name[NAME_BYTES];

	if (r->starting || r->said++ >= SAID_MAX)
		level = LOG_LEVEL_DEBUG;
	log_printf(level, "process %u (%s): %c%s %s: contexts%s%s%s%s", f->pid,
		   process_name(r, f->pid, name), toupper((unsigned char)p->runtime->name[0]),
		   p->runtime->name + 1, p->version,
		   r->options->route && layout->key_route ? ", routes" : "",
		   r->python_spans ? ", custom spans" : "", p->note ? "; " : "",
		   p->note ? p->note : "");
}

/*
 * A probe was not taken. The first one of all, at a place that we can read, tells of the kernel and
 * not of the process: perf_event_paranoid, a missing capability, no CONFIG_UPROBES.
 */
static bool kernel_refuses(struct agent_runtime *r, const char *path, int err)
{
	if (r->refused)
		return true;
	if (r->probed || access(path, R_OK) ||
	    (err != -EPERM && err != -EACCES && err != -ENOSYS && err != -EOPNOTSUPP &&
	     err != -ENOENT && err != -ENODEV))
		return false;
	r->refused = true;
	log_warning("the kernel takes no probes in processes (%s): contexts, routes, code and "
		    "custom spans are left out; calls are linked by the general rules only",
		    strerror(-err));
	return true;
}

/* --- probes --- */

static int attach(struct agent_runtime *r, const struct followed *f, const struct probe_hook *hook)
{
	int err = r->refused ? -EPERM : probe_attach_hook(r->probe, f->pid, hook);

	if (!err)
		r->probed = true;
	return err;
}

static enum probe_hook_kind probe_kind(enum runtime_hook_kind kind)
{
	static const enum probe_hook_kind kinds[] = {
		[RUNTIME_HOOK_CONTEXT_COPY] = PROBE_HOOK_CONTEXT_COPY,
		[RUNTIME_HOOK_CONTEXT_RAX] = PROBE_HOOK_CONTEXT_RAX,
		[RUNTIME_HOOK_CONTEXT_RBX] = PROBE_HOOK_CONTEXT_RBX,
		[RUNTIME_HOOK_LATE_WRITE] = PROBE_HOOK_LATE_WRITE,
		[RUNTIME_HOOK_SUBMIT] = PROBE_HOOK_SUBMIT,
	};

	return kinds[kind];
}

/* Those that are not there yet. 0, or -errno of a required one, said unless the process is gone. */
static int attach_hooks(struct agent_runtime *r, const struct followed *f,
			struct runtime_process *p)
{
	for (size_t i = 0; i < p->hook_count; i++) {
		struct runtime_hook *hook = &p->hooks[i];
		const struct probe_hook wanted = {
			.kind = probe_kind(hook->kind),
			.path = hook->path,
			.offset = hook->offset,
			.at_return = hook->at_return,
		};
		char why[256];
		int err;

		if (hook->attached)
			continue;
		err = attach(r, f, &wanted);
		hook->attached = err == 0;
		if (!err || err == -ESRCH)
			continue;
		snprintf(why, sizeof(why), "no probe at %s (%s+0x%llx): %s", hook->name, hook->path,
			 (unsigned long long)hook->offset, strerror(-err));
		if (!kernel_refuses(r, hook->path, err) && hook->required)
			say_given_up(r, f, why);
		else
			log_debug("process %u: %s", f->pid, why);
		if (hook->required)
			return err;
	}
	return 0;
}

struct code_target {
	struct agent_runtime *r;
	uint32_t pid;
};

static void send_code(void *ctx, uint64_t code, const struct code_class *class_)
{
	const struct code_target *to = ctx;

	agent_runtime_found(to->r, class_);
	probe_set_code(to->r->probe, to->pid, code, class_);
}

/* Probes first, then what the codes mean; the layout, which switches it on, last. */
static int put_in_place(struct agent_runtime *r, struct followed *f, struct runtime_process *p)
{
	struct code_target to = { r, f->pid };
	struct python_layout layout = *p->runtime->layout(p);
	int err = attach_hooks(r, f, p);

	if (err)
		return err;
	p->runtime->known_codes(p, send_code, &to);
	layout.walks = (r->python_spans ? PYTHON_WALK_EVENTS : 0) |
		       (r->options->code ? PYTHON_WALK_MAKERS : 0);
	err = probe_set_python(r->probe, f->pid, &layout);
	if (err && err != -ESRCH)
		say_given_up(r, f, strerror(-err));
	return err;
}

/* --- native functions --- */

struct place_target {
	struct agent_runtime *r;
	struct followed *f;
};

static int on_place(void *ctx, const struct native_place *place)
{
	struct place_target *to = ctx;
	const struct probe_hook hook = {
		.kind = place->exit ? PROBE_HOOK_SPAN_EXIT : PROBE_HOOK_SPAN_ENTRY,
		.path = place->path,
		.offset = place->offset,
		.arg = place->rule,
	};
	int err = attach(to->r, to->f, &hook);

	if (err == -EOPNOTSUPP) {
		/* Python's probes may work there. */
		if (!to->r->native_refused)
			log_warning("native custom spans are left out: this kernel has no "
				    "bpf_get_attach_cookie (Linux 5.15)");
		to->r->native_refused = true;
	} else if (err && err != -ESRCH && !kernel_refuses(to->r, place->path, err))
		log_warning("process %u: custom span %s:%s: no probe at %s+0x%llx: %s", to->f->pid,
			    to->r->options->spans[place->rule].where,
			    to->r->options->spans[place->rule].function, place->path,
			    (unsigned long long)place->offset, strerror(-err));
	return err;
}

static void on_problem(void *ctx, uint32_t rule, const char *file, const char *why)
{
	const struct span_option *s = &((struct place_target *)ctx)->r->options->spans[rule];

	log_warning("custom span %s:%s in %s: %s", s->where, s->function, file, why);
}

static void look_for_native(struct agent_runtime *r, struct followed *f)
{
	struct place_target to = { r, f };
	const struct native_sink sink = { .place = on_place, .problem = on_problem, .ctx = &to };

	if (!r->native || r->refused || r->native_refused)
		return;
	if (!f->native)
		f->native = native_process_new(r->native, f->pid);
	if (f->native)
		native_process_look(f->native, &sink);
}

/* --- the process --- */

void followed_drop(struct agent_runtime *r, struct followed *f)
{
	probe_unhook(r->probe, f->pid);
	runtime_free(f->process);
	f->process = NULL;
	native_process_free(f->native);
	f->native = NULL;
	f->state = FOLLOW_NOT;
}

static void open_runtime(struct agent_runtime *r, struct followed *f)
{
	char *why = NULL;
	int err = runtime_open(&r->runtime_options, f->pid, &f->process, &why);

	if (err) {
		f->process = NULL;
		/* A program that was just begun has not mapped all of itself yet. */
		if (err != -EAGAIN && (err != -ENOENT || r->now_ns - f->since_ns >= STARTING_NS))
			f->state = FOLLOW_NOT;
		if (err != -EAGAIN && err != -ENOENT && err != -ESRCH)
			say_given_up(r, f, why ? why : strerror(-err));
		if (err == -EAGAIN && !f->stuck_said && r->now_ns - f->since_ns >= STUCK_NS) {
			f->stuck_said = true;
			say_given_up(r, f,
				     "its interpreter runs no Python yet, or isn't where its "
				     "symbols say; it is looked at again now and then");
		}
		free(why);
		return;
	}
	if (put_in_place(r, f, f->process)) {
		followed_drop(r, f);
		return;
	}
	f->state = FOLLOW_RUNS;
	tracer_runtime(r->tracer, f->pid);
	say_followed(r, f);
}

/* What can't be read any more is not the program that it was: it is opened anew, if there. */
static void refresh_runtime(struct agent_runtime *r, struct followed *f)
{
	struct runtime_process *p = f->process;
	int found = p->runtime->refresh(p);

	if (found == 0 || (found == 1 && put_in_place(r, f, p) == 0))
		return;
	followed_drop(r, f);
	tracer_process_changed(r->tracer, f->pid);
	f->state = found < 0 ? FOLLOW_WAITS : FOLLOW_NOT;
}

static void say_cut(const struct agent_runtime *r, struct followed *f)
{
	char name[NAME_BYTES];

	if (!f->process || !f->process->cut || f->cut_said)
		return;
	f->cut_said = true;
	log_printf(level_of(f, LOG_LEVEL_WARNING),
		   "process %u (%s): has more modules, functions or routes than are read of one "
		   "process: some of its spans lack http.route or code.*",
		   f->pid, process_name(r, f->pid, name));
}

void followed_look(struct agent_runtime *r, struct followed *f)
{
	if (f->state == FOLLOW_RUNS)
		refresh_runtime(r, f);
	else if (f->state == FOLLOW_WAITS && !r->refused)
		open_runtime(r, f);
	say_cut(r, f);
	/* Behind the runtime: giving that up takes every probe of the process away. */
	look_for_native(r, f);
}
