/*
 * What the files behind disasm.h and disasm_result.h share: capstone's engine, and which
 * instructions cost a probe little. x86-64 only.
 */
#ifndef RUNTIMES_DISASM_ENGINE_H
#define RUNTIMES_DISASM_ENGINE_H

#include <stdbool.h>

#include <capstone/capstone.h>

/* With details. 0 or -ENOMEM; ended by disasm_engine_close(). */
int disasm_engine_open(csh *ret_engine, cs_insn **ret_insn);
void disasm_engine_close(csh *engine, cs_insn *insn);
/* Whether the kernel emulates it instead of stepping over it. */
bool disasm_is_cheap(const cs_insn *insn);

#endif
