/*
 * From 3.13 on an interpreter tells debuggers its own offsets: _Py_DebugOffsets, at the beginning
 * of _PyRuntime (pycore_runtime.h, 3.14: pycore_debug_offsets.h), a list of 64-bit words. What it
 * tells is compared with our table; a word that differs refuses the process, and so does a build
 * without GIL, which has other layouts. What it doesn't tell is left to python_check.c.
 */
#include "runtimes/python_internal.h"

#include <errno.h>
#include <string.h>

enum {
	WORDS_MAX = 96,
	WORD_VERSION = 1,
	WORD_FREE_THREADED = 2,
	PY_3_13 = 0x30d,
	PY_3_14 = 0x30e,
};

/* Where the word is, as a number of words from the beginning, and which field it must equal. */
struct told {
	uint8_t at_3_13, at_3_14;
	uint8_t bytes; /* of the field */
	uint16_t field;
	const char *name;
};

#define FIELD(at_3_13, at_3_14, field)                                         \
	{                                                                      \
		at_3_13, at_3_14, sizeof(((struct python_offsets *)0)->field), \
			offsetof(struct python_offsets, field), #field         \
	}

static const struct told fields[] = {
	FIELD(5, 5, runtime_interpreters),
	FIELD(8, 8, interp_next),
	FIELD(9, 9, interp_threads),
	FIELD(11, 12, interp_modules),
	FIELD(21, 24, tstate_next),
	FIELD(22, 25, tstate_interp),
	FIELD(23, 26, layout.tstate_frame),
	FIELD(24, 27, layout.tstate_thread_id),
	FIELD(25, 28, tstate_native_thread_id),
	FIELD(29, 32, layout.frame_previous),
	FIELD(30, 33, layout.frame_code),
	FIELD(32, 35, layout.frame_locals),
	FIELD(33, 36, layout.frame_owner),
	FIELD(35, 40, code_filename),
	FIELD(36, 41, code_name),
	FIELD(37, 42, code_qualname),
	FIELD(39, 44, code_firstlineno),
	FIELD(40, 45, code_argcount),
	FIELD(47, 53, type_name),
	FIELD(49, 55, type_flags),
	FIELD(57, 67, layout.dict_keys),
	FIELD(58, 68, layout.dict_values),
	FIELD(70, 80, str_ascii),
};

/* What python_object.c and python_dict.c know by heart. */
static const struct {
	uint8_t at_3_13, at_3_14;
	uint8_t value_3_13, value_3_14;
	const char *name;
} constants[] = {
	{ 45, 51, 8, 8, "ob_type" },          { 51, 57, 24, 32, "ob_item of tuples" },
	{ 52, 58, 16, 16, "ob_size" },        { 54, 60, 24, 24, "ob_item of lists" },
	{ 68, 78, 32, 32, "state of a str" }, { 69, 79, 16, 16, "length of a str" },
};

static uint64_t field_value(const struct python_offsets *o, const struct told *t)
{
	const uint8_t *at = (const uint8_t *)o + t->field;
	uint32_t wide = 0;
	uint16_t narrow = 0;

	if (t->bytes == sizeof(wide)) {
		memcpy(&wide, at, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, at, sizeof(narrow));
	return narrow;
}

static int differs(const struct python *p, const char *name, uint64_t told, uint64_t known,
		   char **ret_why)
{
	return python_refuse(ret_why,
			     "its structures do not match CPython %s: it says that %s is at %llu, "
			     "not %llu",
			     p->base.version, name, (unsigned long long)told,
			     (unsigned long long)known);
}

int python_debug_check(const struct python *p, char **ret_why)
{
	bool old = p->offsets.version == PY_3_13;
	uint64_t words[WORDS_MAX];

	if (p->offsets.version < PY_3_13)
		return 0;
	if (!python_read(p, p->runtime, words, sizeof(words)))
		return -ESRCH;
	if (memcmp(words, "xdebugpy", sizeof(words[0])) != 0)
		return python_refuse(ret_why,
				     "its structures do not match CPython %s: _PyRuntime doesn't "
				     "begin with the offsets for debuggers",
				     p->base.version);
	if (words[WORD_FREE_THREADED])
		return python_refuse(ret_why, "it is a build without the global interpreter lock");
	if (words[WORD_VERSION] != p->hex_version)
		return python_refuse(ret_why,
				     "it says that it is CPython %s, and 0x%llx in its offsets",
				     p->base.version, (unsigned long long)words[WORD_VERSION]);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		uint64_t told = words[old ? fields[i].at_3_13 : fields[i].at_3_14];
		uint64_t known = field_value(&p->offsets, &fields[i]);

		if (told != known)
			return differs(p, fields[i].name, told, known, ret_why);
	}
	for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
		uint64_t told = words[old ? constants[i].at_3_13 : constants[i].at_3_14];
		uint64_t known = old ? constants[i].value_3_13 : constants[i].value_3_14;

		if (told != known)
			return differs(p, constants[i].name, told, known, ret_why);
	}
	return 0;
}
