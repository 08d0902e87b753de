#include "agent_runtime.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "agent_runtime_internal.h"
#include "base/buf.h"
#include "base/log.h"
#include "discover/process.h"
#include "python_layout.h"
#include "trace/resource.h"

#define SECOND_NS 1000000000ull
#define TURN_NS 4000000ull             /* looking at processes in one turn of the loop */
#define START_NS SECOND_NS             /* the same at the start */
#define FORKED_PAUSE_NS 20000000ull    /* a child may run another program at once */
#define PAUSE_NS 50000000ull           /* doubled with each look at one that still starts */
#define PAUSE_MAX_NS (5 * SECOND_NS)   /* up to this */
#define YOUNG_NS (30 * SECOND_NS)      /* so long modules are loaded one after the other */
#define YOUNG_LOOK_NS SECOND_NS        /* how often it is looked at then */
#define LOOK_NS (10 * SECOND_NS)       /* and later */
#define CUT_LOOK_NS (60 * SECOND_NS)   /* one that takes as long as a look may */
#define LISTEN_LOOK_NS (SECOND_NS / 5) /* a port more does not bring a look sooner than this */

enum {
	CLASSIFIED_MAX = 512, /* code objects in one turn; the kernel asks again for the others */
	ASKED_MAX = 8192,     /* code objects of one process between two looks */
	VERSIONS_SHOWN = 8,
};

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec;
}

/* --- the rules --- */

/* The rules of both kinds keep their number: what is of the other kind has no `where`. */
static int make_rules(struct agent_runtime *r, struct native_rule **ret_native)
{
	const struct options *o = r->options;
	struct native_rule *native = calloc(o->span_count + 1, sizeof(*native));
	bool any = false;

	r->rules = calloc(o->span_count + 1, sizeof(*r->rules));
	r->span_met = calloc(o->span_count + 1, sizeof(*r->span_met));
	if (!r->rules || !r->span_met || !native) {
		free(native);
		return -ENOMEM;
	}
	for (size_t i = 0; i < o->span_count; i++) {
		const struct span_option *s = &o->spans[i];

		if (s->kind == SPAN_OPTION_NATIVE) {
			native[i] = (struct native_rule){ s->where, s->function };
			any = true;
		} else {
			r->rules[i] = (struct runtime_span_rule){ s->where, s->function };
			r->python_spans = true;
		}
	}
	r->runtime_options = (struct runtime_options){ r->rules, o->span_count };
	if (!any) {
		free(native);
		native = NULL;
	}
	*ret_native = native;
	return 0;
}

struct agent_runtime *agent_runtime_new(const struct options *options, struct probe *probe,
					struct tracer *tracer, int proc_fd)
{
	struct agent_runtime *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->options = options;
	r->probe = probe;
	r->tracer = tracer;
	r->proc_fd = proc_fd;
	r->next_due_ns = UINT64_MAX;
	r->starting = true;
	r->now_ns = clock_ns();
	if (make_rules(r, &r->native_rules))
		goto fail;
	if (r->python_spans && !options->python)
		log_warning("custom spans of Python code are left out: --python is false");
	if (r->native_rules) {
		r->native = native_new(r->native_rules, options->span_count);
		if (!r->native)
			goto fail;
	}
	return r;
fail:
	agent_runtime_free(r);
	return NULL;
}

/* --- the table --- */

static void followed_free(struct followed *f)
{
	runtime_free(f->process);
	native_process_free(f->native);
	hash_free(&f->asked);
	free(f);
}

void agent_runtime_free(struct agent_runtime *r)
{
	uint64_t pid;
	void *f;

	if (!r)
		return;
	for (size_t pos = 0; hash_next(&r->followed, &pos, &pid, &f);)
		followed_free(f);
	hash_free(&r->followed);
	native_free(r->native);
	free(r->native_rules);
	free(r->rules);
	free(r->span_met);
	free(r);
}

static void set_due(struct agent_runtime *r, struct followed *f, uint64_t due_ns)
{
	f->due_ns = due_ns;
	if (due_ns < r->next_due_ns)
		r->next_due_ns = due_ns;
}

/* By what the same process is told from another program or another process. */
static bool identify(const struct agent_runtime *r, uint32_t pid, struct followed *ret)
{
	struct process p;
	struct stat st = { 0 };
	char path[48];

	if (process_read(r->proc_fd, pid, 0, &p))
		return false;
	ret->start_ticks = p.start_ticks;
	process_free(&p);
	snprintf(path, sizeof(path), "/proc/%u/exe", pid);
	if (stat(path, &st) == 0) {
		ret->exe_dev = st.st_dev;
		ret->exe_ino = st.st_ino;
	}
	return true;
}

void agent_runtime_begin(struct agent_runtime *r, uint32_t pid, enum runtime_origin origin)
{
	uint64_t pause_ns = 0;
	struct followed *f;

	agent_runtime_end(r, pid);
	if (!r->options->python && !r->native)
		return;
	f = calloc(1, sizeof(*f));
	if (!f || !hash_put(&r->followed, pid, f)) {
		free(f);
		log_warning("process %u: its runtime is not followed: out of memory", pid);
		return;
	}
	f->pid = pid;
	f->origin = origin;
	f->state = r->options->python ? FOLLOW_WAITS : FOLLOW_NOT;
	f->since_ns = r->now_ns;
	f->pause_ns = PAUSE_NS;
	identify(r, pid, f);
	if (!r->starting)
		pause_ns = origin == RUNTIME_FORKED   ? FORKED_PAUSE_NS
			   : origin == RUNTIME_EXECED ? PAUSE_NS
						      : 0;
	set_due(r, f, r->now_ns + pause_ns);
}

void agent_runtime_end(struct agent_runtime *r, uint32_t pid)
{
	struct followed *f = hash_remove(&r->followed, pid);

	if (!f)
		return;
	followed_drop(r, f);
	followed_free(f);
}

void agent_runtime_changed(struct agent_runtime *r, uint32_t pid)
{
	if (hash_get(&r->followed, pid))
		agent_runtime_begin(r, pid, RUNTIME_EXECED);
}

void agent_runtime_listens(struct agent_runtime *r, uint32_t pid)
{
	struct followed *f = hash_get(&r->followed, pid);

	if (!f || (f->state == FOLLOW_NOT && !f->native))
		return;
	if (f->due_ns > f->looked_ns + LISTEN_LOOK_NS)
		set_due(r, f, f->looked_ns + LISTEN_LOOK_NS);
}

void agent_runtime_recheck(struct agent_runtime *r)
{
	uint64_t key;
	void *value;

	for (size_t pos = 0; hash_next(&r->followed, &pos, &key, &value);) {
		struct followed *f = value, now = { 0 };

		if (!identify(r, f->pid, &now))
			continue; /* its exit is found by who scans */
		if (now.start_ticks != f->start_ticks || now.exe_ino != f->exe_ino ||
		    now.exe_dev != f->exe_dev) {
			followed_drop(r, f);
			f->start_ticks = now.start_ticks;
			f->exe_dev = now.exe_dev;
			f->exe_ino = now.exe_ino;
			f->state = r->options->python ? FOLLOW_WAITS : FOLLOW_NOT;
			f->since_ns = r->now_ns;
			f->pause_ns = PAUSE_NS;
			tracer_process_changed(r->tracer, f->pid);
		}
		if (f->state != FOLLOW_NOT || f->native)
			set_due(r, f, r->now_ns);
	}
}

/* --- who is looked at, and when --- */

static uint64_t next_look(const struct agent_runtime *r, struct followed *f)
{
	uint64_t pause_ns;

	if (f->state == FOLLOW_NOT && !f->native)
		return UINT64_MAX;
	if (f->state == FOLLOW_WAITS) {
		pause_ns = f->pause_ns;
		f->pause_ns = f->pause_ns * 2 < PAUSE_MAX_NS ? f->pause_ns * 2 : PAUSE_MAX_NS;
	} else {
		pause_ns = r->now_ns - f->since_ns < YOUNG_NS ? YOUNG_LOOK_NS : LOOK_NS;
		if (f->process && f->process->cut)
			pause_ns = CUT_LOOK_NS;
	}
	return r->now_ns + pause_ns;
}

static void look(struct agent_runtime *r, struct followed *f)
{
	hash_free(&f->asked);
	followed_look(r, f);
	f->looked_ns = r->now_ns;
	set_due(r, f, next_look(r, f));
}

/* The one that has waited longest; r->next_due_ns is exact then. */
static struct followed *find_due(struct agent_runtime *r)
{
	struct followed *first = NULL;
	uint64_t key;
	void *value;

	for (size_t pos = 0; hash_next(&r->followed, &pos, &key, &value);) {
		struct followed *f = value;

		if (!first || f->due_ns < first->due_ns)
			first = f;
	}
	r->next_due_ns = first ? first->due_ns : UINT64_MAX;
	return first && first->due_ns <= r->now_ns ? first : NULL;
}

static void look_at_due(struct agent_runtime *r, uint64_t limit_ns)
{
	uint64_t until_ns = clock_ns() + limit_ns;

	while (r->next_due_ns <= r->now_ns) {
		struct followed *f = find_due(r);

		if (!f)
			return;
		look(r, f);
		if (clock_ns() >= until_ns)
			return;
	}
}

void agent_runtime_tick(struct agent_runtime *r, uint64_t now_ns)
{
	r->now_ns = now_ns;
	r->classified = 0;
	look_at_due(r, TURN_NS);
}

void agent_runtime_start(struct agent_runtime *r)
{
	r->now_ns = clock_ns();
	look_at_due(r, START_NS);
	r->starting = false;
	agent_runtime_report(r, "following");
}

/* --- what is said --- */

struct versions {
	const struct runtime *runtime;
	const char *version[VERSIONS_SHOWN];
	size_t count[VERSIONS_SHOWN];
	size_t shown, total;
};

static void count_version(struct versions *v, const struct runtime_process *p)
{
	size_t i;

	if (p->runtime != v->runtime)
		return;
	v->total++;
	for (i = 0; i < v->shown; i++) {
		if (strcmp(v->version[i], p->version) == 0)
			break;
	}
	if (i == VERSIONS_SHOWN)
		return;
	v->version[i] = p->version;
	v->count[i]++;
	v->shown += i == v->shown;
}

static void report_runtime(const struct agent_runtime *r, const struct runtime *runtime,
			   const char *title)
{
	struct versions v = { .runtime = runtime };
	struct buf b = { 0 };
	uint64_t key;
	void *value;

	for (size_t pos = 0; hash_next(&r->followed, &pos, &key, &value);) {
		const struct followed *f = value;

		if (f->process)
			count_version(&v, f->process);
	}
	for (size_t i = 0; i < v.shown; i++) {
		buf_printf(&b, "%s%s", i ? ", " : "", v.version[i]);
		if (v.shown > 1)
			buf_printf(&b, ": %zu", v.count[i]);
	}
	if (v.total)
		log_info("%s: contexts of %zu %s process%s (%s)", title, v.total, runtime->name,
			 v.total == 1 ? "" : "es", buf_cstr(&b));
	buf_free(&b);
}

void agent_runtime_report(const struct agent_runtime *r, const char *title)
{
	for (const struct runtime *const *runtime = runtimes_all; *runtime; runtime++)
		report_runtime(r, *runtime, title);
}

void agent_runtime_found(struct agent_runtime *r, const struct code_class *class_)
{
	uint32_t rule = class_->arg & CODE_SPAN_RULE;

	if (class_->kind == CODE_SPAN && rule < r->options->span_count)
		r->span_met[rule] = true;
}

void agent_runtime_report_spans(const struct agent_runtime *r)
{
	for (size_t i = 0; r->options->python && i < r->options->span_count; i++) {
		const struct span_option *s = &r->options->spans[i];

		if (s->kind == SPAN_OPTION_PYTHON && !r->span_met[i])
			log_warning("custom span %s:%s: no traced process has such a function",
				    s->where, s->function);
	}
}

/* --- what is asked --- */

static struct followed *running(const struct agent_runtime *r, uint32_t pid)
{
	struct followed *f = hash_get(&r->followed, pid);

	return f && f->process ? f : NULL;
}

void agent_runtime_describe(const struct agent_runtime *r, uint32_t pid, struct resource *resource)
{
	static const char key[] = "process.runtime.version";
	const char *told = resource_find(resource, key);
	const struct followed *f = running(r, pid);
	size_t n = told ? strlen(told) : 0;

	if (!f ||
	    (n && (strncmp(f->process->version, told, n) != 0 || f->process->version[n] != '.')))
		return;
	resource_set(resource, key, f->process->version);
}

void agent_runtime_code_unknown(struct agent_runtime *r, uint32_t pid, uint64_t code)
{
	struct followed *f = running(r, pid);
	struct code_class class_ = { 0 };

	if (!f || r->classified >= CLASSIFIED_MAX || f->asked.count >= ASKED_MAX ||
	    hash_get(&f->asked, code))
		return;
	r->classified++;
	/* Also when it can't be read: the next look forgets it. */
	hash_put(&f->asked, code, f);
	if (!f->process->runtime->classify(f->process, code, &class_))
		return;
	agent_runtime_found(r, &class_);
	probe_set_code(r->probe, pid, code, &class_);
}

static struct code_info code_info_of(const struct runtime_code *code)
{
	return (struct code_info){ code->function, code->file, code->line };
}

bool agent_runtime_code(struct agent_runtime *r, uint32_t pid, uint64_t code, struct code_info *ret)
{
	struct followed *f = running(r, pid);
	struct runtime_code found = { 0 };

	if (!f || !f->process->runtime->code(f->process, code, &found))
		return false;
	*ret = code_info_of(&found);
	return true;
}

bool agent_runtime_route(struct agent_runtime *r, uint32_t pid, const struct runtime_route *route,
			 struct route_info *ret)
{
	struct followed *f = running(r, pid);
	struct runtime_code endpoint = { 0 };
	struct slice template = { 0 };

	if (!f || !f->process->runtime->route(f->process, route, &template, &endpoint))
		return false;
	*ret = (struct route_info){ template, code_info_of(&endpoint) };
	return true;
}
