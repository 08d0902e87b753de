/*
 * What the machine code of one function says about where probes can sit: its RET instructions, the
 * jumps that leave it, what it calls, and where its entry is cheap to probe. Bytes in, offsets out;
 * it reads no file and no process. x86-64 only (-ENOTSUP elsewhere); instructions are decoded by
 * capstone. Invariant: all ends of the function are given, or none.
 */
#ifndef RUNTIMES_DISASM_H
#define RUNTIMES_DISASM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum disasm_jump_kind {
	DISASM_CALL,     /* calls `target` */
	DISASM_LEAVE,    /* jumps, conditionally or not, to `target` outside of the function */
	DISASM_INDIRECT, /* jumps to where a register or the stack says: a table of the function's
			    own, or a tail call; target is 0 */
	DISASM_SLOT,     /* calls or jumps to the address that is kept at `target`, as procedure
			    linkage does */
};

struct disasm_jump {
	uint32_t offset; /* of the instruction, from the function's first byte */
	enum disasm_jump_kind kind;
	bool call;       /* else a jump */
	uint64_t target; /* address */
};

struct disasm {
	uint32_t length;   /* bytes that were decoded */
	uint32_t *returns; /* offsets of the RET instructions, ascending */
	size_t return_count;
	struct disasm_jump *jumps; /* ascending by offset; jumps within the function are left out */
	size_t jump_count;
};

enum { DISASM_FUNCTION_MAX_BYTES = 1 << 20 };

/*
 * Decodes the function whose `len` bytes are at `code` and which is at `address` when it runs.
 * `whole`: len is its size (a symbol's). Else it may be shorter, and its end is taken to be the
 * first instruction that doesn't go on to the next and that no conditional jump before it passes
 * over; other jumps ahead then count as leaving. The caller frees *ret with disasm_free. 0, -EINVAL
 * (not all bytes are instructions, or without `whole` the end isn't among them), -ENOTSUP, -ENOMEM;
 * *ret is untouched then.
 */
int disasm_function(const uint8_t *code, size_t len, uint64_t address, bool whole,
		    struct disasm *ret);
/* Takes a zeroed one. */
void disasm_free(struct disasm *d);

/*
 * Where a probe that is to be hit once for each call costs least: the kernel emulates pushes, jumps
 * and calls and single-steps all else (arch/x86/kernel/uprobes.c), which takes ten times as long.
 * The offset of such an instruction that every call meets first with the stack as at entry, so that
 * the return address is in place; with `arguments` no register has changed either. 0 when there is
 * none (an endbr64 is stepped over where it can be).
 */
uint32_t disasm_entry(const uint8_t *code, size_t len, bool arguments);

#endif
