/*
 * Machine code of x86-64: where a function is left, and where a probe at its entry costs least. A
 * function whose ends can't be told for certain is refused with a reason; no other instruction is
 * interpreted, nothing is patched. Instructions are decoded by capstone.
 */
#ifndef RUNTIMES_DISASM_H
#define RUNTIMES_DISASM_H

#include <stddef.h>
#include <stdint.h>

/* A run of code and its address, in whatever terms the exits are wanted. Borrowed. */
struct disasm_part {
	uint64_t address;
	const uint8_t *code;
	size_t bytes;
};

enum { DISASM_FUNCTION_MAX = 1 << 20 };

/*
 * The addresses of all instructions that leave the function: returns, and jumps to elsewhere (tail
 * calls). parts[0] begins with its entry; others (NAME.cold) count when the function jumps into
 * them. Returns how many (at most `max`), or -EOPNOTSUPP with *ret_why (a literal, behind "NAME:
 * "), -ENOMEM.
 */
int disasm_exits(const struct disasm_part *parts, size_t count, uint64_t *ret, size_t max,
		 const char **ret_why);

/* How many bytes an entry probe steps over: an endbr64, where single-stepping is dear and a push
 * behind it is not (the kernel emulates that). */
size_t disasm_entry(const uint8_t *code, size_t bytes);

#endif
