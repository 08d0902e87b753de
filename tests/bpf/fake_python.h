/*
 * A CPython that isn't one: the structures that the kernel side reads of an interpreter, made in
 * the test's own memory and laid out by hand, and the layout that says so. They are static, so a
 * forked child has them at the addresses that its parent knows. Nothing in here runs Python.
 */
#ifndef TESTS_BPF_FAKE_PYTHON_H
#define TESTS_BPF_FAKE_PYTHON_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "python_layout.h"

enum {
	FAKE_FRAMES = 80,
	FAKE_LOCALS = 4,
	FAKE_ENTRIES = 8,
	FAKE_VALUES = 4,
	FAKE_KEY_SPACE = 64, /* thread-specific data keys that are tried */
	FAKE_THREAD_BYTES = 0x900,
};

struct fake_state {
	uint64_t words[6];
	uint64_t frame;
	uint64_t between[5];
	uint64_t thread_id;
	uint64_t more[4];
	uint64_t context;
};

struct fake_context {
	uint64_t refcount, type;
	uint64_t words[3];
	int32_t entered, zero;
};

struct fake_frame {
	uint64_t code, previous;
	uint64_t words[6];
	uint8_t bytes[6], owner, byte; /* owner at 70, as in 3.12 and 3.13 */
	uint64_t locals[FAKE_LOCALS];
};

/* struct _dictkeysobject of 3.11 and later, entries without hash, and the dict. */
struct fake_keys {
	uint64_t refcount;
	uint8_t log2_size, log2_index_bytes, kind, zero;
	uint32_t version;
	uint64_t usable, count;
	uint8_t indices[8];
	struct {
		uint64_t key, value;
	} entries[FAKE_ENTRIES];
};

/* The same of 3.9 and 3.10, with hashes. */
struct fake_keys_old {
	uint64_t refcount, size, lookup, usable, count;
	uint8_t indices[8];
	struct {
		uint64_t hash, key, value;
	} entries[FAKE_ENTRIES];
};

struct fake_dict {
	uint64_t refcount, type, used, version;
	uint64_t keys, values;
};

/* PyASCIIObject. */
struct fake_str {
	uint64_t refcount, type, length, hash;
	uint32_t state, zero;
	char text[120];
};

/* An object with the values of its attributes wherever a version has them. */
struct fake_object {
	uint64_t before[4]; /* 3.11: values at -32; 3.12: at -24 */
	uint64_t refcount, type, dict;
	uint64_t values[FAKE_VALUES];
};

struct fake_class {
	char code[16]; /* its address is the code object's */
};

static struct fake_state fake_state;
static uint64_t fake_cframe[2]; /* 3.11: the frame at 8 */
static struct fake_context fake_contexts[3];
static uint64_t fake_context_type;
static struct fake_frame fake_frames[FAKE_FRAMES];
/* Code objects; a test need not use all. */
static __attribute__((unused)) struct fake_class fake_library, fake_application, fake_other,
	fake_span, fake_stop, fake_pool, fake_work, fake_answer_self, fake_answer_local,
	fake_answer_match, fake_unknown;
static pthread_key_t fake_key;
static uint64_t fake_tag; /* in references to code */

static inline uint64_t address_of(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

/* Where in the thread's own memory the value of fake_key is; 0: not found. */
static inline uint16_t fake_slot(void)
{
	const uint64_t *words = (const uint64_t *)pthread_self(); /* NOLINT */
	uint64_t value = address_of(&fake_state);
	size_t i;

	for (i = 0; i < FAKE_THREAD_BYTES / sizeof(*words); i++) {
		if (words[i] == value)
			return (uint16_t)(i * sizeof(*words));
	}
	return 0;
}

/* As 3.13 has it. */
static inline struct python_layout fake_layout(void)
{
	uint16_t slot;

	if (!fake_key)
		CHECK(pthread_key_create(&fake_key, NULL) == 0);
	/* Key 0 is nobody's: then 0 may mean none. */
	if (!fake_key)
		CHECK(pthread_key_create(&fake_key, NULL) == 0);
	pthread_setspecific(fake_key, &fake_state);
	fake_state.thread_id = (uint64_t)pthread_self();
	for (size_t i = 0; i < sizeof(fake_contexts) / sizeof(fake_contexts[0]); i++)
		fake_contexts[i].type = address_of(&fake_context_type);
	slot = fake_slot();
	CHECK(slot);
	return (struct python_layout){
		.tss_key = fake_key,
		.tsd_offset = (uint16_t)(slot - 8 - fake_key * 16),
		.tsd = PYTHON_TSD_GLIBC,
		.tstate_thread_id = offsetof(struct fake_state, thread_id),
		.tstate_context = offsetof(struct fake_state, context),
		.tstate_frame = offsetof(struct fake_state, frame),
		.cframe_frame = PYTHON_NONE,
		.context_type = address_of(&fake_context_type),
		.context_entered = offsetof(struct fake_context, entered),
		.frame_code = offsetof(struct fake_frame, code),
		.frame_previous = offsetof(struct fake_frame, previous),
		.frame_owner = offsetof(struct fake_frame, owner),
		.frame_locals = offsetof(struct fake_frame, locals),
		.frame_owner_skip = 3,
		.values = PYTHON_VALUES_INLINE,
		.values_offset = offsetof(struct fake_object, values) -
				 offsetof(struct fake_object, refcount),
		.dict_offset =
			offsetof(struct fake_object, dict) - offsetof(struct fake_object, refcount),
		.dict_keys = offsetof(struct fake_dict, keys),
		.dict_values = offsetof(struct fake_dict, values),
		.keys = PYTHON_KEYS_NEW,
	};
}

/* A stack of these code objects, innermost first, ended by NULL. Locals: the frame's number * 100 +
 * theirs. */
static inline void fake_stack(const struct fake_class *const *codes)
{
	size_t i, k;

	fake_state.frame = 0;
	memset(fake_frames, 0, sizeof(fake_frames));
	for (i = 0; codes[i] && i < FAKE_FRAMES; i++) {
		struct fake_frame *f = &fake_frames[i];

		f->code = address_of(codes[i]) | fake_tag;
		if (codes[i + 1] && i + 1 < FAKE_FRAMES)
			f->previous = address_of(f + 1);
		for (k = 0; k < FAKE_LOCALS; k++)
			f->locals[k] = (i * 100 + k) | fake_tag;
	}
	fake_state.frame = i ? address_of(&fake_frames[0]) : 0;
	fake_cframe[1] = fake_state.frame;
}

#define FAKE_STACK(...) fake_stack((const struct fake_class *const[]){ __VA_ARGS__, NULL })

/* The current context: an index, -1 none; entered or not. */
static inline void fake_enter(int i, bool entered)
{
	fake_state.context = i < 0 ? 0 : address_of(&fake_contexts[i]);
	if (i >= 0)
		fake_contexts[i].entered = entered;
}

/* Where in its file the code at `address` is. */
static inline uint64_t file_offset(uint64_t address)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long begin, end, offset;
	uint64_t found = 0;
	char line[512];

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx", &begin, &end, &offset) == 3 &&
		    address >= begin && address < end)
			found = address - begin + offset;
	}
	if (f)
		fclose(f);
	return found;
}

#endif
