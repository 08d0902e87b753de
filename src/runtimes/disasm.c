#include "runtimes/disasm.h"

#include <capstone/capstone.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum { PARTS_MAX = 8 };

/* What a register was last given, as far as a jump through it is to be understood. */
enum given {
	GIVEN_POINTER, /* as it came in, or was read from memory */
	GIVEN_SUM,     /* something was added to it */
	GIVEN_UNKNOWN,
};

struct sweep {
	const struct disasm_part *parts;
	size_t count;
	uint64_t entry; /* where the probe is */
	uint64_t *exits;
	size_t exit_count, max;
	bool reached[PARTS_MAX];
	uint8_t given[X86_REG_ENDING]; /* enum given */
	const char *why;               /* set: refused */
};

size_t disasm_entry(const uint8_t *code, size_t bytes)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

	return bytes > sizeof(endbr64) && memcmp(code, endbr64, sizeof(endbr64)) == 0
		       ? sizeof(endbr64)
		       : 0;
}

static void add_exit(struct sweep *s, uint64_t address)
{
	if (s->exit_count == s->max)
		s->why = "it has too many ends";
	else
		s->exits[s->exit_count++] = address;
}

/* The part that holds the address, or -1. */
static int part_of(const struct sweep *s, uint64_t address)
{
	for (size_t i = 0; i < s->count; i++) {
		if (address - s->parts[i].address < s->parts[i].bytes)
			return (int)i;
	}
	return -1;
}

static void on_direct_jump(struct sweep *s, const cs_insn *insn, uint64_t target)
{
	int part = part_of(s, target);

	if (target == s->parts[0].address || target == s->entry)
		s->why = "a loop goes back to its first instruction";
	else if (part >= 0)
		s->reached[part] = true;
	else if (insn->id == X86_INS_JMP)
		add_exit(s, insn->address);
	else
		s->why = "a conditional jump leaves it";
}

/*
 * A switch jumps to the sum of a table's place and an entry of it, or is marked (notrack) where
 * control flow is protected; a tail call takes a pointer as it is. A pointer out of an array may be
 * either.
 */
static void on_indirect_jump(struct sweep *s, const cs_insn *insn)
{
	const cs_x86 *x86 = &insn->detail->x86;
	const cs_x86_op *to = &x86->operands[0];
	uint8_t given = GIVEN_UNKNOWN;

	if (insn->bytes[0] == X86_PREFIX_DS || x86->prefix[1] == X86_PREFIX_DS)
		return;
	if (to->type == X86_OP_MEM && to->mem.index == X86_REG_INVALID)
		given = GIVEN_POINTER;
	else if (to->type == X86_OP_REG)
		given = s->given[to->reg];
	if (given == GIVEN_UNKNOWN)
		s->why = "where one of its jumps goes is known only when it runs";
	else if (given == GIVEN_POINTER)
		add_exit(s, insn->address);
}

/* Remembers what a register is given, when it is given all of it at once. */
static void on_other(struct sweep *s, const cs_insn *insn)
{
	const cs_x86 *x86 = &insn->detail->x86;
	const cs_x86_op *to = &x86->operands[0], *from = &x86->operands[1];
	uint8_t given = GIVEN_UNKNOWN;

	if (x86->op_count < 1 || to->type != X86_OP_REG || !(to->access & CS_AC_WRITE))
		return;
	if (insn->id == X86_INS_ADD)
		given = GIVEN_SUM;
	else if (insn->id == X86_INS_LEA || insn->id == X86_INS_POP)
		given = GIVEN_POINTER;
	else if (insn->id == X86_INS_MOV && from->type == X86_OP_MEM &&
		 from->mem.index == X86_REG_INVALID)
		given = GIVEN_POINTER;
	else if (insn->id == X86_INS_MOV && from->type == X86_OP_REG)
		given = s->given[from->reg];
	s->given[to->reg] = given;
}

static void on_instruction(struct sweep *s, csh handle, const cs_insn *insn)
{
	const cs_x86 *x86 = &insn->detail->x86;

	if (cs_insn_group(handle, insn, CS_GRP_RET))
		add_exit(s, insn->address);
	else if (!cs_insn_group(handle, insn, CS_GRP_JUMP))
		on_other(s, insn);
	else if (x86->op_count >= 1 && x86->operands[0].type == X86_OP_IMM)
		on_direct_jump(s, insn, (uint64_t)x86->operands[0].imm);
	else
		on_indirect_jump(s, insn);
}

static void sweep_part(struct sweep *s, csh handle, cs_insn *insn, const struct disasm_part *part)
{
	const uint8_t *code = part->code;
	uint64_t address = part->address;
	size_t left = part->bytes;

	memset(s->given, GIVEN_POINTER, sizeof(s->given));
	while (left && !s->why) {
		if (!cs_disasm_iter(handle, &code, &left, &address, insn))
			s->why = "an instruction in it is not known";
		else
			on_instruction(s, handle, insn);
	}
}

/* Parts one after the other as they are reached, each once. */
static void sweep_all(struct sweep *s, csh handle, cs_insn *insn)
{
	bool done[PARTS_MAX] = { false }, more = true;

	s->reached[0] = true;
	while (more && !s->why) {
		more = false;
		for (size_t i = 0; i < s->count && !s->why; i++) {
			if (!s->reached[i] || done[i])
				continue;
			sweep_part(s, handle, insn, &s->parts[i]);
			done[i] = more = true;
		}
	}
}

int disasm_exits(const struct disasm_part *parts, size_t count, uint64_t *ret, size_t max,
		 const char **ret_why)
{
	struct sweep s = { .parts = parts,
			   .count = count < PARTS_MAX ? count : PARTS_MAX,
			   .entry = parts[0].address + disasm_entry(parts[0].code, parts[0].bytes),
			   .exits = ret,
			   .max = max };
	cs_insn *insn;
	csh handle;

	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		return -ENOMEM;
	insn = cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON) == CS_ERR_OK ? cs_malloc(handle) : NULL;
	if (!insn) {
		cs_close(&handle);
		return -ENOMEM;
	}
	sweep_all(&s, handle, insn);
	cs_free(insn, 1);
	cs_close(&handle);
	if (!s.why)
		return (int)s.exit_count;
	*ret_why = s.why;
	return -EOPNOTSUPP;
}
