/*
 * Where a native function is left: all of its ends or none. A function of which one jump may either
 * stay or leave is refused with a reason, since its span would end too early or never. x86-64.
 */
#ifndef RUNTIMES_NATIVE_EXITS_H
#define RUNTIMES_NATIVE_EXITS_H

#include <stddef.h>
#include <stdint.h>

/* Code and its address, in whatever terms the exits are wanted. Borrowed. */
struct native_code {
	uint64_t address;
	const uint8_t *code;
	size_t bytes;
};

/*
 * The addresses of all instructions that leave the function at [begin, begin + bytes) of `text`:
 * returns, and jumps to elsewhere (tail calls). At some of them the function may stay: it is left
 * where the stack pointer is what it was at the entry. The entry is probed at *probe, which is
 * moved to `begin` when the function itself jumps back to before it. Returns how many, or
 * -EOPNOTSUPP with *ret_why (a literal), -ENOMEM.
 */
int native_exits(const struct native_code *text, uint64_t begin, uint64_t bytes, uint64_t *probe,
		 uint64_t *ret, size_t max, const char **ret_why);

#endif
