/*
 * Where a function's result can be seen before it returns. Every way through the function is gone
 * through, with a number for what each register holds: a new one for whatever is written there, the
 * same where a register is moved to another, one of its own for 0. What is in memory isn't
 * followed. It refuses functions with loops, with too many ways, and with any instruction that
 * isn't in the list of those whose effect is certain. Invariant: what isn't understood has no such
 * place.
 */
#include "runtimes/disasm_result.h"

#ifdef __x86_64__

#include <string.h>

#include "runtimes/disasm_engine.h"

enum {
	REGISTERS = 16,
	RAX = 0,
	RBX = 3,
	RSP = 4,
	RBP = 5,
	VALUE_NONE = 0, /* nothing is known to be compared */
	VALUE_ZERO = 1, /* the constant */
	STEPS_MAX = 256,
	ALL_STEPS_MAX = 8192,
	MET_MAX = 32,
	WAYS_MAX = 64, /* bits of a mask */
	CANDIDATES_MAX = 64,
};

/* A cheap instruction that was met, and what was in RAX and RBX then. */
struct met {
	uint64_t address;
	uint32_t rax, rbx;
};

struct way {
	uint64_t at;
	uint32_t values[REGISTERS];
	uint32_t tested; /* the value that the zero flag is of */
	struct met met[MET_MAX];
	size_t met_count, steps;
};

/* A place and a register, and the ways that it tells the result of. */
struct candidate {
	struct disasm_place place;
	uint64_t ways;
	bool wrong;
};

struct search {
	csh engine;
	cs_insn *insn;
	disasm_fetch_fn fetch;
	void *ctx;
	uint32_t last_value;
	size_t steps, ways; /* ways that return something */
	struct candidate candidates[CANDIDATES_MAX];
	size_t count;
};

/* 0 to 15 as machine code counts them; -1: not one of these. */
static int register_number(unsigned int reg)
{
	static const uint16_t names[REGISTERS][5] = {
		{ X86_REG_RAX, X86_REG_EAX, X86_REG_AX, X86_REG_AL, X86_REG_AH },
		{ X86_REG_RCX, X86_REG_ECX, X86_REG_CX, X86_REG_CL, X86_REG_CH },
		{ X86_REG_RDX, X86_REG_EDX, X86_REG_DX, X86_REG_DL, X86_REG_DH },
		{ X86_REG_RBX, X86_REG_EBX, X86_REG_BX, X86_REG_BL, X86_REG_BH },
		{ X86_REG_RSP, X86_REG_ESP, X86_REG_SP, X86_REG_SPL },
		{ X86_REG_RBP, X86_REG_EBP, X86_REG_BP, X86_REG_BPL },
		{ X86_REG_RSI, X86_REG_ESI, X86_REG_SI, X86_REG_SIL },
		{ X86_REG_RDI, X86_REG_EDI, X86_REG_DI, X86_REG_DIL },
		{ X86_REG_R8, X86_REG_R8D, X86_REG_R8W, X86_REG_R8B },
		{ X86_REG_R9, X86_REG_R9D, X86_REG_R9W, X86_REG_R9B },
		{ X86_REG_R10, X86_REG_R10D, X86_REG_R10W, X86_REG_R10B },
		{ X86_REG_R11, X86_REG_R11D, X86_REG_R11W, X86_REG_R11B },
		{ X86_REG_R12, X86_REG_R12D, X86_REG_R12W, X86_REG_R12B },
		{ X86_REG_R13, X86_REG_R13D, X86_REG_R13W, X86_REG_R13B },
		{ X86_REG_R14, X86_REG_R14D, X86_REG_R14W, X86_REG_R14B },
		{ X86_REG_R15, X86_REG_R15D, X86_REG_R15W, X86_REG_R15B },
	};

	for (int i = 0; reg && i < REGISTERS; i++)
		for (int k = 0; k < 5; k++)
			if (names[i][k] == reg)
				return i;
	return -1;
}

static bool decode(struct search *s, uint64_t address)
{
	return ++s->steps <= ALL_STEPS_MAX &&
	       disasm_decode_at(s->engine, s->fetch, s->ctx, address, s->insn);
}

/* --- what an instruction does --- */

enum effect {
	EFFECT_UNKNOWN,
	EFFECT_NONE,  /* writes no general register and no flag */
	EFFECT_FLAGS, /* writes flags only */
	EFFECT_MOVE,  /* writes its first operand */
	EFFECT_BOTH,  /* its first operand and flags */
};

/* Of those whose operands are explicit, but for what push, pop and leave do to RSP and RBP. */
static enum effect effect_of(unsigned int id)
{
	switch (id) {
	case X86_INS_NOP:
	case X86_INS_ENDBR64:
		return EFFECT_NONE;
	case X86_INS_TEST:
	case X86_INS_CMP:
		return EFFECT_FLAGS;
	case X86_INS_MOV:
	case X86_INS_MOVABS:
	case X86_INS_MOVZX:
	case X86_INS_MOVSX:
	case X86_INS_MOVSXD:
	case X86_INS_LEA:
	case X86_INS_PUSH:
	case X86_INS_POP:
	case X86_INS_LEAVE:
	case X86_INS_CMOVE:
	case X86_INS_CMOVNE:
	case X86_INS_CMOVS:
	case X86_INS_CMOVNS:
	case X86_INS_SETE:
	case X86_INS_SETNE:
	case X86_INS_MOVD:
	case X86_INS_MOVQ:
	case X86_INS_MOVAPS:
	case X86_INS_MOVUPS:
	case X86_INS_MOVAPD:
	case X86_INS_MOVUPD:
	case X86_INS_MOVDQA:
	case X86_INS_MOVDQU:
	case X86_INS_MOVHPS:
	case X86_INS_MOVLPS:
	case X86_INS_PXOR:
	case X86_INS_XORPS:
	case X86_INS_PUNPCKLQDQ:
	case X86_INS_PINSRQ:
		return EFFECT_MOVE;
	case X86_INS_ADD:
	case X86_INS_SUB:
	case X86_INS_AND:
	case X86_INS_OR:
	case X86_INS_XOR:
	case X86_INS_INC:
	case X86_INS_DEC:
	case X86_INS_NEG:
	case X86_INS_SHL:
	case X86_INS_SHR:
	case X86_INS_SAR:
		return EFFECT_BOTH;
	default:
		return EFFECT_UNKNOWN;
	}
}

static void write_new(struct search *s, struct way *w, int number)
{
	if (number >= 0)
		w->values[number] = ++s->last_value;
}

/* What is in the register after `mov` or `xor`, where that is known; VALUE_NONE elsewhere. */
static uint32_t known_result(const struct way *w, const cs_insn *insn)
{
	const cs_x86 *x = &insn->detail->x86;
	const cs_x86_op *to = &x->operands[0], *from = &x->operands[1];
	int number;

	if (x->op_count != 2 || to->type != X86_OP_REG || to->size < 4)
		return VALUE_NONE;
	if (insn->id == X86_INS_XOR)
		return from->type == X86_OP_REG && from->reg == to->reg ? VALUE_ZERO : VALUE_NONE;
	if (insn->id != X86_INS_MOV)
		return VALUE_NONE;
	if (from->type == X86_OP_IMM)
		return from->imm == 0 ? VALUE_ZERO : VALUE_NONE;
	number = from->type == X86_OP_REG && to->size == 8 ? register_number(from->reg) : -1;
	return number >= 0 ? w->values[number] : VALUE_NONE;
}

/* The value that the zero flag then tells of: test r,r and cmp r,0 of whole registers. */
static uint32_t tested_value(const struct way *w, const cs_insn *insn)
{
	const cs_x86 *x = &insn->detail->x86;
	const cs_x86_op *a = &x->operands[0], *b = &x->operands[1];
	bool itself = insn->id == X86_INS_TEST && b->type == X86_OP_REG && b->reg == a->reg;
	bool with_zero = insn->id == X86_INS_CMP && b->type == X86_OP_IMM && b->imm == 0;
	int number;

	if (x->op_count != 2 || a->type != X86_OP_REG || a->size != 8 || (!itself && !with_zero))
		return VALUE_NONE;
	number = register_number(a->reg);
	return number >= 0 ? w->values[number] : VALUE_NONE;
}

/* False: it isn't known. */
static bool apply(struct search *s, struct way *w)
{
	const cs_insn *insn = s->insn;
	const cs_x86 *x = &insn->detail->x86;
	enum effect effect = effect_of(insn->id);
	uint32_t known;
	int number;

	if (effect == EFFECT_UNKNOWN)
		return false;
	if (effect == EFFECT_FLAGS) {
		w->tested = tested_value(w, insn);
		return true;
	}
	if (effect == EFFECT_NONE)
		return true;
	number = x->op_count && x->operands[0].type == X86_OP_REG && insn->id != X86_INS_PUSH
			 ? register_number(x->operands[0].reg)
			 : -1;
	known = known_result(w, insn);
	write_new(s, w, number);
	if (number >= 0 && known != VALUE_NONE)
		w->values[number] = known;
	if (insn->id == X86_INS_PUSH || insn->id == X86_INS_POP || insn->id == X86_INS_LEAVE)
		write_new(s, w, RSP);
	if (insn->id == X86_INS_LEAVE)
		write_new(s, w, RBP);
	if (effect == EFFECT_BOTH)
		w->tested = VALUE_NONE;
	return true;
}

static void after_call(struct search *s, struct way *w)
{
	static const uint8_t lost[] = { RAX, 1, 2, RSP, 6, 7, 8, 9, 10, 11 };

	for (size_t i = 0; i < sizeof(lost); i++)
		write_new(s, w, lost[i]);
	w->tested = VALUE_NONE;
}

/* On this way the value is 0, and was where it was met. */
static void is_zero(struct way *w, uint32_t value)
{
	for (size_t i = 0; i < REGISTERS; i++)
		if (w->values[i] == value)
			w->values[i] = VALUE_ZERO;
	for (size_t i = 0; i < w->met_count; i++) {
		if (w->met[i].rax == value)
			w->met[i].rax = VALUE_ZERO;
		if (w->met[i].rbx == value)
			w->met[i].rbx = VALUE_ZERO;
	}
}

/* --- the ways --- */

static struct candidate *candidate_of(struct search *s, uint64_t address, bool in_rbx)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->candidates[i].place.address == address &&
		    s->candidates[i].place.in_rbx == in_rbx)
			return &s->candidates[i];
	if (s->count == CANDIDATES_MAX)
		return NULL;
	s->candidates[s->count] = (struct candidate){ .place = { address, in_rbx } };
	return &s->candidates[s->count++];
}

static bool way_met(struct search *s, const struct met *met, bool in_rbx, uint32_t result)
{
	struct candidate *c = candidate_of(s, met->address, in_rbx);
	uint64_t mine = result != VALUE_ZERO ? 1ull << (s->ways - 1) : 0;

	if (!c)
		return false;
	if ((in_rbx ? met->rbx : met->rax) != result || (c->ways & mine))
		c->wrong = true;
	c->ways |= mine;
	return true;
}

/* A way has come to a return. False: there are too many. */
static bool way_returns(struct search *s, const struct way *w)
{
	uint32_t result = w->values[RAX];

	if (result != VALUE_ZERO && ++s->ways > WAYS_MAX)
		return false;
	for (size_t i = 0; i < w->met_count; i++)
		if (!way_met(s, &w->met[i], false, result) || !way_met(s, &w->met[i], true, result))
			return false;
	return true;
}

static bool is_conditional_jump(const cs_insn *insn)
{
	const uint8_t *opcode = insn->detail->x86.opcode;

	return (opcode[0] & 0xf0) == 0x70 || (opcode[0] == 0x0f && (opcode[1] & 0xf0) == 0x80);
}

static bool follow(struct search *s, struct way w);

/* A jump of any kind; both ways of a conditional one. False: it can't be followed. */
static bool jump(struct search *s, struct way *w)
{
	const cs_insn *insn = s->insn;
	const cs_x86_op *op = &insn->detail->x86.operands[0];
	uint64_t next = w->at + insn->size, target = (uint64_t)op->imm;
	bool if_zero = insn->id == X86_INS_JE, if_not = insn->id == X86_INS_JNE;
	struct way taken;

	if (insn->detail->x86.op_count != 1 || op->type != X86_OP_IMM ||
	    (insn->id != X86_INS_JMP && !is_conditional_jump(insn)))
		return false;
	w->at = target;
	if (insn->id == X86_INS_JMP)
		return true;
	taken = *w;
	taken.steps++;
	w->at = next;
	if ((if_zero || if_not) && w->tested != VALUE_NONE)
		is_zero(if_zero ? &taken : w, w->tested);
	return follow(s, taken);
}

/* To all the ends that it may have. False: not all of them are known. */
static bool follow(struct search *s, struct way w)
{
	const cs_insn *insn = s->insn;

	for (; w.steps < STEPS_MAX; w.steps++) {
		if (!decode(s, w.at))
			return false;
		/* Calls are emulated as well, but by some kernels without the shadow stack. */
		if (disasm_is_cheap(insn) && !cs_insn_group(s->engine, insn, CS_GRP_CALL)) {
			if (w.met_count == MET_MAX)
				return false;
			w.met[w.met_count++] = (struct met){ w.at, w.values[RAX], w.values[RBX] };
		}
		if (insn->id == X86_INS_RET)
			return way_returns(s, &w);
		if (cs_insn_group(s->engine, insn, CS_GRP_JUMP)) {
			if (!jump(s, &w))
				return false;
			continue;
		}
		if (insn->id == X86_INS_CALL)
			after_call(s, &w);
		else if (!apply(s, &w))
			return false;
		w.at += insn->size;
	}
	return false;
}

/* --- choosing --- */

/* `limit` places of the candidates that tell of each way of `left` once, and of no other. */
static size_t cover(const struct search *s, uint64_t left, size_t limit, struct disasm_place *ret)
{
	size_t used;

	for (size_t i = 0; limit && i < s->count; i++) {
		const struct candidate *c = &s->candidates[i];

		/* One has to tell of the first that is left. */
		if (c->wrong || !(c->ways & left & -left) || (c->ways & ~left))
			continue;
		*ret = c->place;
		if (c->ways == left)
			return 1;
		used = cover(s, left & ~c->ways, limit - 1, ret + 1);
		if (used)
			return used + 1;
	}
	return 0;
}

size_t disasm_result_places(uint64_t address, disasm_fetch_fn fetch, void *ctx,
			    struct disasm_place ret[DISASM_PLACES_MAX])
{
	struct search s = { .fetch = fetch, .ctx = ctx, .last_value = VALUE_ZERO };
	struct way w = { .at = address };
	size_t found = 0;

	if (disasm_engine_open(&s.engine, &s.insn))
		return 0;
	for (int i = 0; i < REGISTERS; i++)
		w.values[i] = ++s.last_value;
	if (follow(&s, w) && s.ways)
		for (size_t limit = 1; !found && limit <= DISASM_PLACES_MAX; limit++)
			found = cover(&s, ~0ull >> (WAYS_MAX - s.ways), limit, ret);
	disasm_engine_close(&s.engine, s.insn);
	return found;
}

#else

size_t disasm_result_places(uint64_t address, disasm_fetch_fn fetch, void *ctx,
			    struct disasm_place ret[DISASM_PLACES_MAX])
{
	(void)address, (void)fetch, (void)ctx, (void)ret;
	return 0;
}

#endif
