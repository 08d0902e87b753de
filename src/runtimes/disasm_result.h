/*
 * Where a function's result can be seen before it returns, at an instruction that the kernel
 * emulates: a probe there costs what one at an entry does, less than a return probe and a tenth of
 * one at a RET. Machine code in, addresses out; x86-64 only. Invariant: what isn't proven for every
 * way through the function is no such place.
 */
#ifndef RUNTIMES_DISASM_RESULT_H
#define RUNTIMES_DISASM_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DISASM_PLACES_MAX = 3, DISASM_FETCH_BYTES = 15 };

struct disasm_place {
	uint64_t address;
	bool in_rbx; /* else in RAX */
};

/* The machine code at an address, *ret_len bytes of it (DISASM_FETCH_BYTES or more, the longest
 * instruction, where there are so many); borrowed until the next one is asked for. NULL: it can't
 * be read. */
typedef const uint8_t *(*disasm_fetch_fn)(void *ctx, uint64_t address, size_t *ret_len);

/*
 * Places that tell together what the function at `address` returns: each way from its entry to the
 * return of anything but 0 comes by exactly one of them, once, with what it returns in the register
 * that the place names; each way that returns 0 comes by them only with 0 there. Jumps to other
 * functions are followed, so a place may be in one of those; calls are taken to keep the registers
 * that they have to (System V), and to give nothing that is known. Returns how many; 0: nothing was
 * proven.
 */
size_t disasm_result_places(uint64_t address, disasm_fetch_fn fetch, void *ctx,
			    struct disasm_place ret[DISASM_PLACES_MAX]);

/* Might the function at `address` come by one of the places, itself or in one that it calls? What
 * those call in turn isn't looked at. Where it can't be read, it might. */
bool disasm_comes_by(uint64_t address, disasm_fetch_fn fetch, void *ctx,
		     const struct disasm_place *places, size_t count);

#endif
