/*
 * Which instructions a function may come by: those that jumps lead to, and those of the functions
 * that it calls. Jumps and calls by a register or a slot aren't followed: what they lead to is no
 * part of the function. Invariant: where not all can be read or kept, it may come by anything.
 */
#include "runtimes/disasm_result.h"

#ifdef __x86_64__

#include "runtimes/disasm_engine.h"

enum { REACHED_MAX = 2048 /* instructions */, CALLED_MAX = 32 };

/* Instructions that were reached, in the order of finding; those from `next` on were not looked at.
 */
struct reach {
	csh engine;
	cs_insn *insn;
	disasm_fetch_fn fetch;
	void *ctx;
	uint64_t found[REACHED_MAX], called[CALLED_MAX];
	size_t count, next, call_count;
	bool in_called; /* whose own calls aren't looked at */
};

static bool reach_add(struct reach *r, uint64_t address)
{
	for (size_t i = r->count; i--;)
		if (r->found[i] == address)
			return true;
	if (r->count == REACHED_MAX)
		return false;
	r->found[r->count++] = address;
	return true;
}

static bool ends(const struct reach *r)
{
	switch (r->insn->id) {
	case X86_INS_JMP:
	case X86_INS_UD2:
	case X86_INS_HLT:
	case X86_INS_INT3:
		return true;
	default:
		return cs_insn_group(r->engine, r->insn, CS_GRP_RET);
	}
}

/* Where it goes on from the instruction that was decoded. False: there is no more room. */
static bool reach_next(struct reach *r)
{
	const cs_insn *insn = r->insn;
	const cs_x86 *x = &insn->detail->x86;
	bool direct = x->op_count == 1 && x->operands[0].type == X86_OP_IMM;
	uint64_t target = direct ? (uint64_t)x->operands[0].imm : 0;

	if (insn->id == X86_INS_CALL && direct && !r->in_called) {
		if (r->call_count == CALLED_MAX)
			return false;
		r->called[r->call_count++] = target;
	}
	if (cs_insn_group(r->engine, insn, CS_GRP_JUMP) && direct && !reach_add(r, target))
		return false;
	return ends(r) || reach_add(r, insn->address + insn->size);
}

static bool comes_by(struct reach *r, const struct disasm_place *places, size_t count)
{
	for (; r->next < r->count; r->next++) {
		for (size_t i = 0; i < count; i++)
			if (places[i].address == r->found[r->next])
				return true;
		if (!disasm_decode_at(r->engine, r->fetch, r->ctx, r->found[r->next], r->insn) ||
		    !reach_next(r))
			return true;
	}
	return false;
}

bool disasm_comes_by(uint64_t address, disasm_fetch_fn fetch, void *ctx,
		     const struct disasm_place *places, size_t count)
{
	struct reach r = { .fetch = fetch, .ctx = ctx, .found = { address }, .count = 1 };
	bool comes;

	if (!count)
		return false;
	if (disasm_engine_open(&r.engine, &r.insn))
		return true;
	comes = comes_by(&r, places, count);
	r.in_called = true;
	for (size_t i = 0; !comes && i < r.call_count; i++)
		comes = !reach_add(&r, r.called[i]) || comes_by(&r, places, count);
	disasm_engine_close(&r.engine, r.insn);
	return comes;
}

#else

bool disasm_comes_by(uint64_t address, disasm_fetch_fn fetch, void *ctx,
		     const struct disasm_place *places, size_t count)
{
	(void)address, (void)fetch, (void)ctx, (void)places;
	return count != 0;
}

#endif
