/*
 * One scene with an interpreter made by hand: a child that runs it from its start to its end, with
 * its layout, its code objects classified and, where wanted, a probe in it.
 */
#ifndef BPF_TEST_PYTHON_SCENE_H
#define BPF_TEST_PYTHON_SCENE_H

#include "fake_python.h"
#include "watch.h"

struct classified {
	const struct fake_class *code;
	struct code_class class_;
};

struct python_scene {
	const struct classified *classes;
	size_t class_count;
	const struct probe_hook *hook; /* NULL: none */
	int (*run)(void *arg);
};

static inline void scene_classify(struct watch *w, uint32_t pid, const struct python_scene *s)
{
	size_t i;

	for (i = 0; i < s->class_count; i++)
		CHECK(probe_set_code(w->probe, pid, address_of(s->classes[i].code),
				     &s->classes[i].class_) == 0);
}

/* Gives the child's number. */
static inline uint32_t scene_play(struct watch *w, const char *name,
				  const struct python_layout *layout, const struct python_scene *s)
{
	struct child c;
	int code;

	check_scene = name;
	watch_reset(w);
	c = child_make(s->run, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_set_python(w->probe, (uint32_t)c.pid, layout) == 0);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0); /* changes nothing */
	scene_classify(w, (uint32_t)c.pid, s);
	if (s->hook)
		CHECK(probe_attach_hook(w->probe, (uint32_t)c.pid, s->hook) == 0);
	child_go(&c);
	code = child_end(w, &c);
	CHECK_SAY(code == 0, "the child ended with %d", code);
	return (uint32_t)c.pid;
}

#endif
