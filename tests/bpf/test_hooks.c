/*
 * Probes in a process's own code: contexts that are copied, at a return and at a RET instruction;
 * items for executors; threads that are born; writes that an event loop puts off; native functions
 * that are spans. Each for the one process that it was attached for, and gone with it.
 */
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>

#include "fake_python.h"
#include "sockets.h"
#include "watch.h"

enum { RULE = 3, OTHER_RULE = 4, ITEM = 4242, ROUNDS = 3 };

/*
 * The probed functions, with a name for each place. What the first two return is their argument,
 * which the second has in two registers, one after the other; the others return nothing that
 * matters.
 */
__asm__(".text\n"
	".globl hook_copy, hook_copy_end, hook_held, hook_held_rax, hook_held_rbx\n"
	".globl hook_put, hook_write, hook_span, hook_span_end\n"
	"hook_copy: push %rbp; mov %rdi, %rax; pop %rbp\n"
	"hook_copy_end: ret\n"
	"hook_held: push %rbx; xor %ebx, %ebx; mov %rdi, %rax\n"
	"hook_held_rax: jmp 1f; 1: mov %rdi, %rbx; xor %eax, %eax\n"
	"hook_held_rbx: jmp 1f; 1: mov %rbx, %rax; pop %rbx; ret\n"
	"hook_put: push %rbp; pop %rbp; ret\n"
	"hook_write: push %rbp; pop %rbp; ret\n"
	"hook_span: push %rbp; test %rdi, %rdi; jz 1f; dec %rdi; call hook_span\n"
	"1: pop %rbp\n"
	"hook_span_end: ret\n");

void *hook_copy(void *context);
void *hook_held(void *context);
void hook_put(void *queue, void *const *args);
void hook_write(void *stream, void *data);
void hook_span(long depth);
extern const char hook_copy_end[], hook_held_rax[], hook_held_rbx[], hook_span_end[];

/* A uvloop stream: its handle at 24, the descriptor at 184 in there. */
struct fake_handle {
	char bytes[184];
	int fd;
};

struct fake_stream {
	char bytes[24];
	struct fake_handle *handle;
};

static struct fake_handle handle;
static struct fake_stream stream = { .handle = &handle };
static struct python_layout layout;

static int hook(struct watch *w, uint32_t pid, enum probe_hook_kind kind, const void *place,
		bool at_return, uint32_t arg)
{
	const struct probe_hook h = { .kind = kind,
				      .path = "/proc/self/exe",
				      .offset = file_offset(address_of(place)),
				      .at_return = at_return,
				      .arg = arg };

	return probe_attach_hook(w->probe, pid, &h);
}

static struct child scene_begin(struct watch *w, const char *scene, int (*run)(void *arg))
{
	static const struct code_class kinds[] = {
		{ CODE_LIBRARY, 0 }, { CODE_APPLICATION, 0 }, { CODE_WORK, 0 },
		{ CODE_POOL, 0 },    { CODE_SPAN, RULE },     { CODE_ANSWER_LOCAL, 1 },
	};
	const struct fake_class *codes[] = { &fake_library, &fake_application, &fake_work,
					     &fake_pool,    &fake_span,        &fake_answer_local };
	struct child c;
	size_t i;

	check_scene = scene;
	watch_reset(w);
	layout = fake_layout();
	c = child_make(run, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_set_python(w->probe, (uint32_t)c.pid, &layout) == 0);
	for (i = 0; i < COUNT(codes); i++)
		CHECK(probe_set_code(w->probe, (uint32_t)c.pid, address_of(codes[i]), &kinds[i]) ==
		      0);
	return c;
}

static uint32_t scene_end(struct watch *w, struct child *c)
{
	int code;

	child_go(c);
	code = child_end(w, c);
	CHECK_SAY(code == 0, "the child ended with %d", code);
	return (uint32_t)c->pid;
}

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

static void check_copied(const struct watch *w, uint32_t pid, size_t times)
{
	const struct seen *s;
	size_t at = 0, i;

	CHECK_SAY(watch_count(w, SEEN_CONTEXT, pid) == 2 * times, "%zu copies",
		  watch_count(w, SEEN_CONTEXT, pid));
	for (i = 0; i < 2 * times && (s = watch_next(w, SEEN_CONTEXT, pid, &at)); i++) {
		bool first = i < times;

		CHECK(s->context.kind == CONTEXT_EVENT_COPIED && s->tid == pid && s->context.turn);
		CHECK(s->context.context == (first ? address_of(&fake_contexts[0]) : 0));
		CHECK(s->context.object == address_of(&fake_contexts[first ? 1 : 2]));
		CHECK(!s->has_site); /* the main thread works for no executor */
	}
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
	static uint64_t other[2] = { 1, 4242 }; /* an object of another type */

	(void)arg;
	fake_enter(0, true);
	FAKE_STACK(&fake_library, &fake_work);
	hook_held(&fake_contexts[1]);
	hook_held(NULL);              /* it failed */
	hook_held(&fake_contexts[0]); /* the current one */
	hook_held(other);
	hook_held((void *)1); /* NOLINT */
	fake_enter(-1, false);
	hook_held(&fake_contexts[2]);
	return 0;
}

/* Before the function returns, where the context is in a register: only if it is one. */
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
		check_copied(w, scene_end(w, &c), 1);
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

/* --- writes that are put off --------------------------------------------------------------------
 */

/* What was written in a context, and once more in `second` in the same turn, is sent in none. */
static int late_move(int from, int to, int context, int second)
{
	handle.fd = from;
	fake_enter(context, true);
	hook_write(&stream, NULL);
	fake_enter(second, true);
	hook_write(&stream, NULL);
	fake_enter(-1, false);
	fake_state.frame = 0;
	return socket_move(from, to, 100);
}

static int late_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2], i, file = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	for (i = 0; i < ROUNDS; i++) {
		FAKE_STACK(&fake_library, &fake_application);
		if (late_move(fds[0], fds[1], 0, 0))
			return 2;
		FAKE_STACK(&fake_library, &fake_answer_local);
		if (late_move(fds[1], fds[0], 1, 2) || late_move(fds[1], fds[0], 1, 2))
			return 3;
		FAKE_STACK(&fake_library, &fake_application);
		if (late_move(fds[0], fds[1], 0, 2) || socket_move(fds[1], fds[0], 100))
			return 5;
	}
	handle.fd = file; /* no socket, no descriptor, no handle */
	hook_write(&stream, NULL);
	handle.fd = -1;
	hook_write(&stream, NULL);
	stream.handle = NULL;
	hook_write(&stream, NULL);
	/* Written, and never sent: the next connection is another. */
	stream.handle = &handle;
	handle.fd = fds[0];
	fake_enter(0, true);
	hook_write(&stream, NULL);
	close(fds[0]);
	close(fds[1]);
	fake_enter(-1, false);
	if (socket_pair(&a, fds))
		return 4;
	return socket_move(fds[0], fds[1], 100);
}

static void check_late_round(const struct watch *w, uint32_t pid, size_t *at)
{
	const struct seen *s[10];
	size_t i;

	for (i = 0; i < COUNT(s); i++) {
		s[i] = watch_next(w, SEEN_IO, pid, at);
		if (!s[i]) {
			CHECK_SAY(false, "%zu transfers", i);
			return;
		}
	}
	CHECK(s[0]->io.dir == IO_SEND && s[0]->io.context == address_of(&fake_contexts[0]));
	CHECK(s[0]->has_site && s[0]->site.caller == address_of(&fake_application));
	CHECK(!s[0]->has_route && !s[1]->has_site && !s[1]->io.context);
	CHECK(s[2]->io.dir == IO_SEND && s[2]->io.context == address_of(&fake_contexts[1]));
	CHECK(s[2]->has_route && s[2]->route.scope == 101 && !s[2]->has_site);
	CHECK(s[4]->io.dir == IO_SEND && s[4]->io.context == address_of(&fake_contexts[1]));
	CHECK(!s[4]->has_route && !s[3]->has_route && !s[5]->has_route);
	/* Two contexts have written to a client's connection: it is neither's. */
	CHECK(s[6]->io.dir == IO_SEND && !s[6]->io.context && s[6]->io.flags & IO_RUNTIME);
}

static void check_late(struct watch *w)
{
	struct child c = scene_begin(w, "written late", late_run);
	uint32_t pid = (uint32_t)c.pid;
	const struct seen *s;
	size_t at = 0, i;

	CHECK(hook(w, pid, PROBE_HOOK_LATE_WRITE, hook_write, false, 0) == 0);
	scene_end(w, &c);
	for (i = 0; i < ROUNDS; i++)
		check_late_round(w, pid, &at);
	s = watch_next(w, SEEN_IO, pid, &at);
	CHECK(s && s->io.dir == IO_SEND && !s->io.context && !s->site.caller);
	CHECK_SAY(w->stats.drops[DROP_LATE_WRITE_LOST] == 2, "%llu late writes lost",
		  (unsigned long long)w->stats.drops[DROP_LATE_WRITE_LOST]);
}

/* The context of a write ends before the bytes are sent, and the next one is at its address. */
static int late_again_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2], i;

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	handle.fd = fds[0];
	for (i = 0; i < 4; i++) {
		fake_enter(0, true);
		hook_write(&stream, NULL);
		fake_enter(1, true);
		if (i % 2)
			hook_copy(&fake_contexts[0]);
		fake_enter(-1, false);
		if (socket_move(fds[0], fds[1], 100) || socket_move(fds[1], fds[0], 100))
			return 2;
	}
	return 0;
}

static void check_late_again(struct watch *w)
{
	struct child c = scene_begin(w, "written late, ended", late_again_run);
	uint32_t pid = (uint32_t)c.pid;
	const struct seen *s;
	size_t at = 0, sent = 0;

	CHECK(hook(w, pid, PROBE_HOOK_LATE_WRITE, hook_write, false, 0) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	scene_end(w, &c);
	while ((s = watch_next(w, SEEN_IO, pid, &at))) {
		if (s->io.dir != IO_SEND || sent++ % 2) /* the other end's answer */
			continue;
		CHECK_SAY(s->io.context == (sent % 4 == 1 ? address_of(&fake_contexts[0]) : 0),
			  "send %zu: context %llx", sent, (unsigned long long)s->io.context);
	}
	CHECK_SAY(sent == 8, "%zu sends", sent);
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
	check_late(&w);
	check_late_again(&w);
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
