/*
 * What the files behind disasm.h and disasm_result.h share: capstone's engine, and which
 * instructions cost a probe little. x86-64 only.
 */
#ifndef RUNTIMES_DISASM_ENGINE_H
#define RUNTIMES_DISASM_ENGINE_H

#include <stdbool.h>

#include <capstone/capstone.h>

#include "runtimes/disasm_result.h"

/* With details. 0 or -ENOMEM; ended by disasm_engine_close(). */
int disasm_engine_open(csh *ret_engine, cs_insn **ret_insn);
void disasm_engine_close(csh *engine, cs_insn *insn);
/* Decodes the instruction at `address` into *ret_insn. False: it can't be read, or is none. */
bool disasm_decode_at(csh engine, disasm_fetch_fn fetch, void *ctx, uint64_t address,
		      cs_insn *ret_insn);
/* Whether the kernel emulates it instead of stepping over it. */
bool disasm_is_cheap(const cs_insn *insn);

#endif
