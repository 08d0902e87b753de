/*
 * Which arguments of a function stay what they are while it runs: those that none of its
 * instructions assigns. The numbers of the instructions are the process's own (module opcode, which
 * inspect imports, and asyncio that), but for those that 3.11 and 3.12 put in their place while the
 * code runs. Whatever is in doubt counts as assigned.
 */
#include "runtimes/python_object.h"

#include <stdlib.h>

enum {
	UNITS_MAX = 16384, /* instructions that are looked at, of two bytes each */
	OPCODES_MAX = 8,
	INT_DIGIT = 24,         /* of a small int, its value */
	CODE_BEHIND_CONSTS = 8, /* 3.9, 3.10: co_code stands in front of co_consts */
	BYTES_CONTENT = 32,
	INLINE = 0x30b, /* 3.11: the instructions are within the code object */
};

/* What assigns a local: its number is the operand, or its upper half. */
static const struct {
	const char *name;
	bool pair, halves; /* it may be the lower half as well */
} assigning[] = {
	{ "STORE_FAST", false, false },          { "DELETE_FAST", false, false },
	{ "LOAD_FAST_AND_CLEAR", false, false }, { "STORE_FAST_LOAD_FAST", true, false },
	{ "STORE_FAST_STORE_FAST", true, true },
};
enum { ASSIGNING = sizeof(assigning) / sizeof(assigning[0]) };

/* Those that stand for STORE_FAST where it is followed by another one (Include/internal/
 * pycore_opcode.h of the version). */
static const struct {
	uint32_t version;
	uint8_t opcodes[2];
} adapted[] = { { 0x30b, { 161, 167 } }, { 0x30c, { 154, 158 } } };

/* For each opcode what it assigns, as 1 + its row; false: they aren't known. */
static bool opcodes_read(const struct python *p, uint8_t rows[256])
{
	uint64_t module = python_module(p, "opcode");
	uint64_t map = module ? python_module_get(p, module, "opmap") : 0;

	for (uint8_t i = 0; map && i < ASSIGNING; i++) {
		uint64_t number = python_dict_get(p, map, assigning[i].name);
		uint32_t opcode = 0;

		if (number && python_read(p, number + INT_DIGIT, &opcode, sizeof(opcode)) &&
		    opcode > 0 && opcode < 256)
			rows[opcode] = (uint8_t)(i + 1);
		else if (i < 2)
			return false; /* every version has these */
	}
	for (size_t i = 0; i < sizeof(adapted) / sizeof(adapted[0]); i++)
		if (adapted[i].version == p->offsets.version)
			rows[adapted[i].opcodes[0]] = rows[adapted[i].opcodes[1]] = 1;
	return map != 0;
}

/* The instructions, malloc'd; NULL: they can't be read, or are too many. */
static uint8_t *units_read(const struct python *p, uint64_t code, size_t *ret_bytes)
{
	uint64_t at = code, basic = 0;
	size_t bytes;
	uint8_t *units;

	if (p->offsets.version < INLINE)
		at = python_pointer(p, code + p->offsets.code_consts - CODE_BEHIND_CONSTS);
	else
		basic = python_pointer(p, p->code_type + p->offsets.type_basicsize);
	bytes = python_pointer(p, at + PYTHON_OBJECT_SIZE);
	if (bytes > UNITS_MAX)
		return NULL;
	bytes *= p->offsets.version < INLINE ? 1 : 2;
	units = bytes ? (uint8_t *)malloc(bytes) : NULL;
	if (units && !python_read(p, at + (basic ? basic : BYTES_CONTENT), units, bytes)) {
		free(units);
		return NULL;
	}
	*ret_bytes = bytes;
	return units;
}

static uint32_t bit(uint32_t local)
{
	return local < SPAN_ARGUMENTS_MAX ? 1U << local : 0;
}

static uint32_t assigned(const uint8_t rows[256], const uint8_t *units, size_t bytes)
{
	uint32_t found = 0;

	for (size_t i = 0; i + 1 < bytes; i += 2) {
		uint8_t row = rows[units[i]], operand = units[i + 1];

		if (!row)
			continue;
		if (!assigning[row - 1].pair) {
			found |= bit(operand);
			continue;
		}
		found |= bit(operand >> 4);
		if (assigning[row - 1].halves)
			found |= bit(operand & 15);
	}
	return found;
}

uint32_t python_arguments(const struct python *p, uint64_t code)
{
	uint8_t rows[256] = { 0 }, *units;
	uint32_t words[3] = { 0 }, count,
		 found; /* arguments, those by position only, by name only */
	size_t bytes;

	if (!python_read(p, code + p->offsets.code_argcount, words, sizeof(words)) ||
	    !opcodes_read(p, rows))
		return 0;
	count = words[0] < SPAN_ARGUMENTS_MAX ? words[0] + words[2] : words[0];
	if (count > SPAN_ARGUMENTS_MAX)
		count = SPAN_ARGUMENTS_MAX;
	units = units_read(p, code, &bytes);
	if (!units)
		return 0;
	found = assigned(rows, units, bytes);
	free(units);
	return ~found & ((1U << count) - 1);
}
