/*
 * Decoding with capstone. A function is swept from its first byte to its last: compilers keep jump
 * tables out of x86-64 code, so every byte belongs to an instruction; where one doesn't, the whole
 * function is refused, for then no end of it is certain.
 */
#include "runtimes/disasm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtimes/disasm_engine.h"

enum { ENTRY_STEPS_MAX = 8, INSTRUCTION_MAX_BYTES = 15 };

#ifdef __x86_64__

struct sweep {
	csh engine;
	cs_insn *insn;
	uint64_t address;
	size_t len;
	bool whole;
	uint64_t reach; /* farthest address within that a jump so far goes to */
	size_t return_cap, jump_cap;
	struct disasm found;
};

int disasm_engine_open(csh *ret_engine, cs_insn **ret_insn)
{
	if (cs_open(CS_ARCH_X86, CS_MODE_64, ret_engine) != CS_ERR_OK)
		return -ENOMEM;
	if (cs_option(*ret_engine, CS_OPT_DETAIL, CS_OPT_ON) != CS_ERR_OK ||
	    !(*ret_insn = cs_malloc(*ret_engine))) {
		cs_close(ret_engine);
		return -ENOMEM;
	}
	return 0;
}

void disasm_engine_close(csh *engine, cs_insn *insn)
{
	cs_free(insn, 1);
	cs_close(engine);
}

bool disasm_decode_at(csh engine, disasm_fetch_fn fetch, void *ctx, uint64_t address,
		      cs_insn *ret_insn)
{
	size_t len = 0;
	const uint8_t *code = fetch(ctx, address, &len);

	return code && cs_disasm_iter(engine, &code, &len, &address, ret_insn);
}

static bool grow(void **array, size_t *cap, size_t count, size_t item_bytes)
{
	size_t want = *cap ? *cap * 2 : 16;
	void *grown;

	if (count < *cap)
		return true;
	grown = realloc(*array, want * item_bytes);
	if (!grown)
		return false;
	*array = grown;
	*cap = want;
	return true;
}

static int add_return(struct sweep *s, uint32_t offset)
{
	struct disasm *d = &s->found;
	void *array = d->returns;

	if (!grow(&array, &s->return_cap, d->return_count, sizeof(*d->returns)))
		return -ENOMEM;
	d->returns = array;
	d->returns[d->return_count++] = offset;
	return 0;
}

static int add_jump(struct sweep *s, struct disasm_jump jump)
{
	struct disasm *d = &s->found;
	void *array = d->jumps;

	if (!grow(&array, &s->jump_cap, d->jump_count, sizeof(*d->jumps)))
		return -ENOMEM;
	d->jumps = array;
	d->jumps[d->jump_count++] = jump;
	return 0;
}

static bool within(const struct sweep *s, uint64_t target)
{
	return target >= s->address && target < s->address + s->len;
}

/* A jump or a call; *ret_ends: the next instruction isn't reached from here. */
static int take_branch(struct sweep *s, bool call, bool *ret_ends)
{
	const cs_insn *insn = s->insn;
	const cs_x86_op *op = &insn->detail->x86.operands[0];
	struct disasm_jump jump = { (uint32_t)(insn->address - s->address), DISASM_INDIRECT, call,
				    0 };

	*ret_ends = !call && insn->id == X86_INS_JMP;
	if (insn->detail->x86.op_count < 1)
		return -EINVAL;
	if (op->type == X86_OP_IMM) {
		jump.target = (uint64_t)op->imm;
		/* Where no end is known, what lies behind a jump ahead may be another function. */
		if (!call && within(s, jump.target) &&
		    (s->whole || !*ret_ends || jump.target <= insn->address)) {
			if (jump.target > s->reach)
				s->reach = jump.target;
			return 0;
		}
		jump.kind = call ? DISASM_CALL : DISASM_LEAVE;
	} else if (op->type == X86_OP_MEM && op->mem.base == X86_REG_RIP &&
		   op->mem.index == X86_REG_INVALID) {
		jump.kind = DISASM_SLOT;
		jump.target = insn->address + insn->size + (uint64_t)op->mem.disp;
	} else if (call) {
		return 0;
	}
	return add_jump(s, jump);
}

static int take(struct sweep *s, bool *ret_ends)
{
	const cs_insn *insn = s->insn;

	*ret_ends = false;
	switch (insn->id) {
	case X86_INS_RET:
	case X86_INS_RETF:
	case X86_INS_RETFQ:
		*ret_ends = true;
		return add_return(s, (uint32_t)(insn->address - s->address));
	case X86_INS_UD2:
	case X86_INS_HLT:
	case X86_INS_INT3:
		*ret_ends = true;
		return 0;
	default:
		break;
	}
	if (cs_insn_group(s->engine, insn, CS_GRP_CALL))
		return take_branch(s, true, ret_ends);
	if (cs_insn_group(s->engine, insn, CS_GRP_JUMP))
		return take_branch(s, false, ret_ends);
	return 0;
}

static int run(struct sweep *s, const uint8_t *code)
{
	const uint8_t *at = code;
	size_t left = s->len;
	uint64_t address = s->address;
	bool ends = false;
	int err;

	s->reach = s->address;
	while (left && cs_disasm_iter(s->engine, &at, &left, &address, s->insn)) {
		err = take(s, &ends);
		if (err)
			return err;
		s->found.length = (uint32_t)(address - s->address);
		if (!s->whole && ends && s->reach < address)
			return 0;
	}
	return s->whole && !left ? 0 : -EINVAL;
}

int disasm_function(const uint8_t *code, size_t len, uint64_t address, bool whole,
		    struct disasm *ret)
{
	struct sweep s = { .address = address, .len = len, .whole = whole };
	int err;

	if (!len || len > DISASM_FUNCTION_MAX_BYTES)
		return -EINVAL;
	err = disasm_engine_open(&s.engine, &s.insn);
	if (err)
		return err;
	err = run(&s, code);
	disasm_engine_close(&s.engine, s.insn);
	if (err)
		disasm_free(&s.found);
	else
		*ret = s.found;
	return err;
}

/* What the kernel emulates: see push_setup_xol_ops and branch_setup_xol_ops there. */
bool disasm_is_cheap(const cs_insn *insn)
{
	const uint8_t *b = insn->bytes;

	if (insn->size == 1)
		return b[0] == 0x90 || (b[0] >= 0x50 && b[0] <= 0x57);
	if (insn->size == 2 && b[0] == 0x41)
		return b[1] >= 0x50 && b[1] <= 0x57;
	if (insn->size == 2)
		return b[0] == 0xeb || (b[0] >= 0x70 && b[0] <= 0x7f);
	if (insn->size == 5)
		return b[0] == 0xe8 || b[0] == 0xe9;
	return insn->size == 6 && b[0] == 0x0f && b[1] >= 0x80 && b[1] <= 0x8f;
}

static bool changes_stack(csh engine, const cs_insn *insn)
{
	cs_regs read, written;
	uint8_t reads, writes;

	if (cs_regs_access(engine, insn, read, &reads, written, &writes) != CS_ERR_OK)
		return true;
	for (uint8_t i = 0; i < writes; i++)
		if (written[i] == X86_REG_RSP || written[i] == X86_REG_ESP ||
		    written[i] == X86_REG_SP)
			return true;
	return false;
}

static uint32_t entry_of(csh engine, cs_insn *insn, const uint8_t *code, size_t len, bool arguments)
{
	uint64_t address = 0;
	uint32_t after_endbr = 0;

	for (int i = 0; i < ENTRY_STEPS_MAX && len; i++) {
		if (!cs_disasm_iter(engine, &code, &len, &address, insn))
			break;
		if (disasm_is_cheap(insn))
			return (uint32_t)insn->address;
		if (i == 0 && insn->id == X86_INS_ENDBR64) {
			after_endbr = (uint32_t)address;
			continue;
		}
		if (arguments || cs_insn_group(engine, insn, CS_GRP_JUMP) ||
		    cs_insn_group(engine, insn, CS_GRP_CALL) ||
		    cs_insn_group(engine, insn, CS_GRP_RET) || changes_stack(engine, insn))
			break;
	}
	return after_endbr;
}

uint32_t disasm_entry(const uint8_t *code, size_t len, bool arguments)
{
	uint32_t offset;
	csh engine;
	cs_insn *insn;

	if (disasm_engine_open(&engine, &insn))
		return 0;
	offset = entry_of(engine, insn, code, len, arguments);
	disasm_engine_close(&engine, insn);
	return offset;
}

#else

int disasm_function(const uint8_t *code, size_t len, uint64_t address, bool whole,
		    struct disasm *ret)
{
	(void)code, (void)len, (void)address, (void)whole, (void)ret;
	return -ENOTSUP;
}

uint32_t disasm_entry(const uint8_t *code, size_t len, bool arguments)
{
	(void)code, (void)len, (void)arguments;
	return 0;
}

#endif

void disasm_free(struct disasm *d)
{
	free(d->returns);
	free(d->jumps);
	memset(d, 0, sizeof(*d));
}
