/*
 * A process whose functions are probed as an interpreter's are: the functions, with a name for each
 * place, and a scene in a child that is traced as a Python process. For the tests of hooks; each
 * file has its own copy.
 */
#ifndef TESTS_BPF_HOOK_SCENE_H
#define TESTS_BPF_HOOK_SCENE_H

#include "fake_python.h"
#include "sockets.h"
#include "watch.h"

enum { RULE = 3 };

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

static struct python_layout layout;

/* As probe_attach_hook(), at a place of this program. */
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

/* A child that will run `run`, traced, its code known to the kernel side. */
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

/* It runs, and has ended. */
static uint32_t scene_end(struct watch *w, struct child *c)
{
	int code;

	child_go(c);
	code = child_end(w, c);
	CHECK_SAY(code == 0, "the child ended with %d", code);
	return (uint32_t)c->pid;
}

#endif
