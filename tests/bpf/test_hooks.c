/*
 * Probes in a process's own code: contexts that are copied, at a return, at a RET instruction and
 * within; items for executors; threads that are born; native functions that are spans. Each for the
 * one process that it was attached for, and gone with it.
 */
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>

#include "hook_scene.h"

enum { OTHER_RULE = 4, ITEM = 4242, ROUNDS = 3 };

/* --- contexts -----------------------------------------------------------------------------------
 */

static int copy_run(void *arg)
{
	(void)arg;
	fake_enter(0, true);
	FAKE_STACK(&fake_library, &fake_work);
	hook_copy(&fake_contexts[1]);
	hook_copy(NULL); /* it failed */
	fake_enter(-1, false);
	hook_copy(&fake_contexts[2]);
	return 0;
}

static uint64_t held_other[2] = { 1, 4242 }; /* an object of another type */

static void check_copied(const struct watch *w, uint32_t pid, size_t times)
{
	const struct seen *s;
	size_t at = 0, i;

	for (i = 0; (s = watch_next(w, SEEN_CONTEXT, pid, &at));) {
		bool first = i < times;

		if (s->context.kind == CONTEXT_EVENT_UNKNOWN)
			continue;
		i++;
		CHECK(s->context.kind == CONTEXT_EVENT_COPIED && s->tid == pid && s->context.turn);
		CHECK(s->context.context == (first ? address_of(&fake_contexts[0]) : 0));
		CHECK(s->context.object == address_of(&fake_contexts[first ? 1 : 2]));
		CHECK(!s->has_site); /* the main thread works for no executor */
	}
	CHECK_SAY(i == 2 * times, "%zu copies", i);
}

static void check_unknown(const struct watch *w, uint32_t pid)
{
	const struct seen *s;
	size_t at = 0, n = 0;

	while ((s = watch_next(w, SEEN_CONTEXT, pid, &at))) {
		if (s->context.kind != CONTEXT_EVENT_UNKNOWN)
			continue;
		n++;
		CHECK(s->context.object == address_of(held_other) || s->context.object == 1 ||
		      s->context.object == s->context.context);
	}
	CHECK_SAY(n == 3, "%zu unknown", n);
}

static void check_copies(struct watch *w)
{
	struct child c = scene_begin(w, "at the return", copy_run), other;
	uint32_t pid = (uint32_t)c.pid;

	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	check_copied(w, scene_end(w, &c), 1);

	c = scene_begin(w, "at the RET instruction", copy_run);
	pid = (uint32_t)c.pid;
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy_end, false, 0) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_SUBMIT, hook_put, true, 0) == -EOPNOTSUPP);
	check_copied(w, scene_end(w, &c), 1);

	/* Both places are probed for two processes: each tells of itself alone. */
	c = scene_begin(w, "two processes", copy_run);
	pid = (uint32_t)c.pid;
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy_end, false, 0) == 0);
	other = child_make(copy_run, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)other.pid) == 0);
	child_go(&other);
	CHECK(child_end(w, &other) == 0);
	CHECK(!watch_count(w, SEEN_CONTEXT, 0));
	check_copied(w, scene_end(w, &c), 2);

	/* The same place for two processes, each with a probe of its own. */
	c = scene_begin(w, "each its own", copy_run);
	other = child_make(copy_run, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)other.pid) == 0);
	CHECK(probe_set_python(w->probe, (uint32_t)other.pid, &layout) == 0);
	CHECK(hook(w, (uint32_t)c.pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	CHECK(hook(w, (uint32_t)other.pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	check_copied(w, scene_end(w, &other), 1);
	check_copied(w, scene_end(w, &c), 1);

	c = scene_begin(w, "taken away", copy_run);
	pid = (uint32_t)c.pid;
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	probe_unhook(w->probe, pid);
	scene_end(w, &c);
	CHECK(!watch_count(w, SEEN_CONTEXT, 0));
}

static int held_run(void *arg)
{
	(void)arg;
	fake_enter(0, true);
	FAKE_STACK(&fake_library, &fake_work);
	hook_held(&fake_contexts[1]);
	hook_held(NULL);              /* it failed */
	hook_held(&fake_contexts[0]); /* the current one */
	hook_held(held_other);
	hook_held((void *)1); /* NOLINT */
	fake_enter(-1, false);
	hook_held(&fake_contexts[2]);
	return 0;
}

/* Before the function returns, where the context is in a register: only if it is one. What is none,
 * or the current one, is told of as such. */
static void check_held(struct watch *w)
{
	static const struct {
		const char *scene;
		enum probe_hook_kind kind;
		const char *place;
	} cases[] = {
		{ "in RAX", PROBE_HOOK_CONTEXT_RAX, hook_held_rax },
		{ "in RBX", PROBE_HOOK_CONTEXT_RBX, hook_held_rbx },
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct child c = scene_begin(w, cases[i].scene, held_run);
		uint32_t pid = (uint32_t)c.pid;

		CHECK(hook(w, pid, cases[i].kind, cases[i].place, false, 0) == 0);
		CHECK(hook(w, pid, cases[i].kind, cases[i].place, true, 0) == -EOPNOTSUPP);
		pid = scene_end(w, &c);
		check_copied(w, pid, 1);
		check_unknown(w, pid);
		CHECK_SAY(w->stats.drops[DROP_CONTEXT_UNLIKELY] == 3, "%llu unlikely",
			  (unsigned long long)w->stats.drops[DROP_CONTEXT_UNLIKELY]);
	}
	check_scene = "the other register";
	{
		struct child c = scene_begin(w, check_scene, held_run);

		CHECK(hook(w, (uint32_t)c.pid, PROBE_HOOK_CONTEXT_RBX, hook_held_rax, false, 0) ==
		      0);
		scene_end(w, &c);
		CHECK(!watch_count(w, SEEN_CONTEXT, 0));
	}
}

/* --- executors and threads ----------------------------------------------------------------------
 */

/* A thread of a pool: it has a state of its own, and works on an item. */
static void *worker(void *arg)
{
	static struct fake_state own;

	(void)arg;
	own = fake_state;
	own.thread_id = (uint64_t)pthread_self();
	own.context = 0;
	pthread_setspecific(fake_key, &own);
	hook_copy(&fake_contexts[2]);
	return NULL;
}

static int work_run(void *arg)
{
	void *args[] = { (void *)(uintptr_t)ITEM };
	pthread_t thread;

	(void)arg;
	fake_enter(0, true);
	FAKE_STACK(&fake_library, &fake_work, &fake_pool);
	fake_frames[1].locals[0] = ITEM;
	hook_put(NULL, args);
	return pthread_create(&thread, NULL, worker, NULL) || pthread_join(thread, NULL);
}

static void check_work(struct watch *w)
{
	struct child c = scene_begin(w, "executors and threads", work_run);
	const struct seen *s, *thread;
	uint32_t pid = (uint32_t)c.pid;
	size_t at = 0;

	CHECK(hook(w, pid, PROBE_HOOK_SUBMIT, hook_put, false, 0) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	scene_end(w, &c);
	thread = watch_first(w, SEEN_THREAD_START, pid);
	s = watch_next(w, SEEN_CONTEXT, pid, &at);
	CHECK(s && s->context.kind == CONTEXT_EVENT_SUBMITTED && s->context.object == ITEM &&
	      s->context.context == address_of(&fake_contexts[0]));
	s = watch_next(w, SEEN_CONTEXT, pid, &at);
	CHECK(s && thread && s->context.kind == CONTEXT_EVENT_BORN &&
	      s->context.object == thread->tid && s->tid == pid &&
	      s->context.context == address_of(&fake_contexts[0]));
	s = watch_next(w, SEEN_CONTEXT, pid, &at);
	CHECK(s && thread && s->context.kind == CONTEXT_EVENT_COPIED && s->tid == thread->tid);
	CHECK(s && !s->context.context && s->has_site && s->site.work == ITEM && s->site.pooled);
	CHECK(!watch_next(w, SEEN_CONTEXT, pid, &at));
}

/* --- native spans -------------------------------------------------------------------------------
 */

static int native_run(void *arg)
{
	(void)arg;
	fake_enter(0, true);
	hook_span(ROUNDS - 1);
	hook_copy(NULL);
	return 0;
}

static void check_native(struct watch *w)
{
	struct child c = scene_begin(w, "native spans", native_run);
	uint32_t pid = (uint32_t)c.pid;
	const struct seen *s[2 * ROUNDS + 1];
	size_t at = 0, i;

	CHECK(hook(w, pid, PROBE_HOOK_SPAN_EXIT, hook_span_end, false, RULE) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_SPAN_ENTRY, hook_span, false, RULE) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_SPAN_ENTRY, hook_copy, false, OTHER_RULE) == 0);
	scene_end(w, &c);
	for (i = 0; i < COUNT(s); i++) {
		s[i] = watch_next(w, SEEN_NATIVE, pid, &at);
		if (!s[i]) {
			CHECK_SAY(false, "%zu of them", i);
			return;
		}
		CHECK(s[i]->tid == pid && s[i]->native.turn && s[i]->ts_ns &&
		      s[i]->native.context == address_of(&fake_contexts[0]));
	}
	for (i = 0; i < ROUNDS; i++) {
		const struct native_span_event *in = &s[i]->native;
		const struct native_span_event *out = &s[2 * ROUNDS - 1 - i]->native;

		CHECK(!in->left && out->left && in->rule == RULE && out->rule == RULE);
		CHECK(in->stack && in->stack == out->stack && out->ts_ns > in->ts_ns);
		CHECK(!i || in->stack < s[i - 1]->native.stack);
	}
	CHECK(s[2 * ROUNDS]->native.rule == OTHER_RULE && !s[2 * ROUNDS]->native.left);
	CHECK(!watch_next(w, SEEN_NATIVE, pid, &at));
}

/* --- what can't be ------------------------------------------------------------------------------
 */

static void check_refusals(struct watch *w)
{
	struct probe_hook h = { .kind = PROBE_HOOK_SUBMIT, .path = "/nonexistent/lib.so" };

	check_scene = "refusals";
	CHECK(probe_attach_hook(w->probe, (uint32_t)getpid(), &h) < 0);
	h.kind = (enum probe_hook_kind)77;
	CHECK(probe_attach_hook(w->probe, (uint32_t)getpid(), &h) == -EINVAL);
	probe_unhook(w->probe, (uint32_t)getpid());
}

/* --- the end of many ----------------------------------------------------------------------------
 */

/* 6.12 and later take probes away beside each other. */
static bool kernel_ends_quickly(void)
{
	unsigned int major = 0, minor = 0;
	struct utsname u;

	return !uname(&u) && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 6 || (major == 6 && minor >= 12));
}

static int wait_run(void *arg)
{
	(void)arg;
	return 0;
}

/* As many as sixty processes have; the agent has to be able to stop, and to start again. */
static void check_end(struct watch *w)
{
	enum { PROBES = 300, END_SECONDS = 10 };
	struct child c;
	time_t begun;

	check_scene = "many probes end";
	if (!kernel_ends_quickly()) {
		watch_close(w);
		return;
	}
	c = child_make(wait_run, NULL);
	for (int i = 0; i < PROBES; i++)
		CHECK(hook(w, (uint32_t)c.pid, PROBE_HOOK_SUBMIT, (const void *)hook_put, false,
			   0) == 0);
	begun = time(NULL);
	watch_close(w);
	CHECK(time(NULL) - begun <= END_SECONDS);
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
}

/* A process that makes code without end keeps the others' place free, and that is counted. */
static void check_codes(struct watch *w)
{
	const struct code_class library = { CODE_LIBRARY, 0 };
	const uint32_t pid = (uint32_t)getpid(), other = pid + 1;
	uint64_t before = w->stats.drops[DROP_CODE_LIMIT];

	check_scene = "too many codes";
	for (uint64_t i = 1; i <= CODES_OF_PROCESS_MAX; i++)
		if (probe_set_code(w->probe, pid, i * 8, &library))
			CHECK(false);
	CHECK(probe_set_code(w->probe, pid, 4, &library) == -E2BIG);
	CHECK(probe_set_code(w->probe, pid, 8, &library) == 0);
	CHECK(probe_set_code(w->probe, other, 8, &library) == 0);
	CHECK(w->stats.drops[DROP_CODE_LIMIT] == before + 1);
	probe_unhook(w->probe, pid);
	CHECK(probe_set_code(w->probe, pid, 4, &library) == 0);
	probe_unhook(w->probe, pid);
	probe_unhook(w->probe, other);
}

static void check_collector(enum probe_collector collector)
{
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_copies(&w);
	check_held(&w);
	check_work(&w);
	check_native(&w);
	check_refusals(&w);
	check_codes(&w);
	check_end(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
