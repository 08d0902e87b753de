/*
 * Who of the application had a context copied: told where the running function is its own or one
 * that makes tasks for its caller, past everything of libraries, up to the event loop that runs
 * them; nothing is told, and nobody is looked for, elsewhere. No Python is needed.
 */
#include "python_scene.h"
#include "sockets.h"

__asm__(".text\n"
	".globl maker_copy\n"
	"maker_copy: push %rbp; mov %rdi, %rax; pop %rbp; ret\n");
void *maker_copy(void *context);

static struct fake_class task, coroutine, serve, handle, loop, ready;

static const struct classified classes[] = {
	{ &fake_library, { CODE_LIBRARY, 0 } },
	{ &fake_application, { CODE_APPLICATION, 0 } },
	{ &fake_stop, { CODE_STOP, 0 } },
	{ &fake_work, { CODE_WORK, 0 } },
	{ &task, { CODE_TASK, 0 } },
	{ &coroutine, { CODE_TASK, 1 } },
	{ &serve, { CODE_SERVE, 0 } },
	{ &handle, { CODE_SERVE, 1 } },
	{ &loop, { CODE_LOOP, 0 } },
	{ &ready, { CODE_LOOP, 1 } },
};

enum told { NOTHING, NOBODY, APPLICATION, UNSURE };

enum { STACK_MAX = 8 };

static const struct {
	const char *name;
	const struct fake_class *codes[STACK_MAX];
	enum told told;
} stacks[] = {
	{ "the application itself", { &fake_application, &fake_stop }, APPLICATION },
	{ "a library for it", { &fake_library, &fake_application }, NOTHING },
	{ "a task for it", { &task, &fake_application }, APPLICATION },
	{ "a task for a library", { &task, &fake_library, &task, &fake_application }, APPLICATION },
	{ "a task of a library", { &task, &fake_library, &fake_stop, &fake_application }, NOBODY },
	{ "nothing behind it", { &task, &fake_library }, NOBODY },
	{ "a request", { &task, &serve, &fake_application }, NOTHING },
	{ "its handler", { &coroutine, &coroutine, &handle, &fake_application }, NOTHING },
	{ "further out", { &task, &fake_library, &serve, &fake_application }, APPLICATION },
	{ "nobody has said", { &task, &fake_unknown, &fake_stop }, UNSURE },
	{ "the loop runs it", { &task, &fake_library, &loop, &fake_application }, NOBODY },
	{ "the loop runs what is new", { &task, &fake_unknown, &loop, &fake_application }, UNSURE },
	{ "the loop makes it", { &task, &loop, &loop, &fake_application }, APPLICATION },
	{ "a coroutine", { &coroutine, &fake_library, &fake_application }, APPLICATION },
	{ "the loop runs it itself", { &coroutine, &loop, &fake_application }, NOBODY },
	{ "the loop calls it", { &task, &ready, &loop, &fake_application }, NOBODY },
	{ "what nobody knows", { &fake_unknown, &task, &fake_application }, NOTHING },
	{ "no frames", { NULL }, NOTHING },
};

static int copies_run(void *arg)
{
	size_t i;

	(void)arg;
	fake_enter(0, true);
	for (i = 0; i < COUNT(stacks); i++) {
		fake_stack(stacks[i].codes);
		maker_copy(&fake_contexts[1]);
	}
	return 0;
}

static uint32_t scene_run(struct watch *w, const char *scene, const struct python_layout *l,
			  int (*run)(void *arg))
{
	const struct probe_hook h = { .kind = PROBE_HOOK_CONTEXT_COPY,
				      .path = "/proc/self/exe",
				      .offset = file_offset(address_of(maker_copy)),
				      .at_return = true };
	const struct python_scene s = { classes, COUNT(classes), &h, run };

	return scene_play(w, scene, l, &s);
}

static void check_copies(struct watch *w, const char *scene, const struct python_layout *l)
{
	uint32_t pid = scene_run(w, scene, l, copies_run);
	const struct seen *s;
	size_t at = 0, i;

	CHECK(watch_count(w, SEEN_CONTEXT, pid) == COUNT(stacks));
	for (i = 0; i < COUNT(stacks) && (s = watch_next(w, SEEN_CONTEXT, pid, &at)); i++) {
		enum told told = l->walks & PYTHON_WALK_MAKERS ? stacks[i].told : NOTHING;

		CHECK_SAY(s->has_site == (told != NOTHING), "%s", stacks[i].name);
		CHECK_SAY(s->site.nobody == (told == NOBODY), "%s", stacks[i].name);
		CHECK_SAY(s->site.caller ==
				  (told == APPLICATION ? address_of(&fake_application) : 0),
			  "%s: %llx", stacks[i].name, (unsigned long long)s->site.caller);
		CHECK(!s->site.cut && s->context.context == address_of(&fake_contexts[0]));
	}
	CHECK(!w->stats.drops[DROP_PYTHON_READ_FAULT]);
}

/* Of a call it is the same: who began the loop called nothing that runs in it. And a thread that
 * runs an item tells that, wherever its caller is. */
static int calls_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2];

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	fake_enter(0, true);
	FAKE_STACK(&fake_library, &task, &loop, &fake_application);
	if (socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10))
		return 2;
	fake_enter(-1, false);
	FAKE_STACK(&fake_library, &loop, &fake_application, &fake_work);
	if (socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10))
		return 3;
	return 0;
}

static void check_calls(struct watch *w, const struct python_layout *l)
{
	uint32_t pid = scene_run(w, "calls", l, calls_run);
	const struct seen *s, *calls[2] = { NULL };
	size_t at = 0, n = 0;

	while (n < 2 && (s = watch_next(w, SEEN_IO, pid, &at))) {
		if (s->io.dir == IO_SEND && s->has_site)
			calls[n++] = s;
	}
	CHECK(n == 2);
	if (n == 2) {
		CHECK(calls[0]->site.nobody && !calls[0]->site.caller && !calls[0]->site.work);
		CHECK(calls[1]->site.nobody && !calls[1]->site.caller && calls[1]->site.work);
	}
}

static void check_collector(enum probe_collector collector)
{
	struct python_layout l = fake_layout();
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_copies(&w, "not asked", &l);
	l.walks = PYTHON_WALK_MAKERS;
	check_copies(&w, "3.13", &l);
	check_calls(&w, &l);
	l.tstate_frame = offsetof(struct fake_state, words);
	fake_state.words[0] = address_of(fake_cframe);
	l.cframe_frame = 8;
	check_copies(&w, "3.11", &l);
	l = fake_layout();
	l.walks = PYTHON_WALK_MAKERS;
	l.reference_tags = fake_tag = 3;
	check_copies(&w, "3.14", &l);
	fake_tag = 0;
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
