/*
 * A function is swept from its first byte to its last; what conditional jumps of it reach elsewhere
 * (the unlikely parts that compilers move away) is swept too, up to where it can't go on. What is
 * swept too much does no harm: whoever takes an end for that of a call compares the stack pointer.
 * Registers that jumps go through are followed a little way.
 */
#include "runtimes/native_exits.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <capstone/capstone.h>

enum {
	PARTS_MAX = 512,      /* the function and what belongs to it elsewhere */
	NEAR_BYTES = 512,     /* so close together are unlikely blocks of one function */
	PART_BYTES = 1 << 16, /* longer than any such block */
};

/* What a register was last given, as far as a jump through it is to be understood. */
enum given {
	GIVEN_POINTER, /* as it came in, or was read from memory */
	GIVEN_SUM,     /* something was added to it */
	GIVEN_UNKNOWN,
};

struct part {
	uint64_t begin, end; /* addresses; end: 0 until it is swept */
};

struct sweep {
	const struct native_code *text;
	struct part parts[PARTS_MAX]; /* [0]: the function */
	size_t part_count, current;
	bool loops_back; /* a jump goes back into what the probe steps over */
	uint64_t probe;  /* where the entry is probed */
	uint64_t *exits;
	size_t exit_count, max;
	uint8_t given[X86_REG_ENDING]; /* enum given */
	const char *why;               /* set: refused */
};

static void add_exit(struct sweep *s, uint64_t address)
{
	for (size_t i = 0; i < s->exit_count; i++) {
		if (s->exits[i] == address)
			return;
	}
	if (s->exit_count == s->max)
		s->why = "it has too many ends";
	else
		s->exits[s->exit_count++] = address;
}

static bool is_known(const struct sweep *s, uint64_t address)
{
	for (size_t i = 0; i < s->part_count; i++) {
		if (address == s->parts[i].begin ||
		    (address > s->parts[i].begin && address < s->parts[i].end))
			return true;
	}
	return false;
}

static void add_part(struct sweep *s, uint64_t address)
{
	if (address - s->text->address >= s->text->bytes)
		s->why = "a conditional jump leaves its file";
	else if (s->part_count == PARTS_MAX)
		s->why = "it is scattered over too many places";
	else
		s->parts[s->part_count++] = (struct part){ address, 0 };
}

static void on_direct_jump(struct sweep *s, const cs_insn *insn, uint64_t target)
{
	bool conditional = insn->id != X86_INS_JMP;

	if (target == s->parts[0].begin)
		s->why = "a loop goes back to its first instruction";
	else if (target > s->parts[0].begin && target <= s->probe)
		s->loops_back = true;
	else if (is_known(s, target))
		return;
	else if (conditional)
		add_part(s, target);
	else
		add_exit(s, insn->address);
	/* Or it goes on to another block of the same part. */
	if (!conditional && s->current && !is_known(s, target) && !s->why &&
	    target - insn->address + NEAR_BYTES < 2 * (uint64_t)NEAR_BYTES)
		add_part(s, target);
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

/* Nothing goes on to the next instruction. */
static bool ends_flow(csh handle, const cs_insn *insn)
{
	return cs_insn_group(handle, insn, CS_GRP_RET) || insn->id == X86_INS_JMP ||
	       insn->id == X86_INS_UD2 || insn->id == X86_INS_HLT || insn->id == X86_INS_INT3;
}

/* The function to its end, which is known; a block up to where it can't go on. */
static void sweep_part(struct sweep *s, csh handle, cs_insn *insn, size_t which)
{
	struct part *part = &s->parts[which];
	bool whole = which == 0;
	uint64_t address = part->begin, offset = address - s->text->address;
	const uint8_t *code = s->text->code + offset;
	size_t left = s->text->bytes - offset;

	if (whole)
		left = part->end - part->begin;
	else if (left > PART_BYTES)
		left = PART_BYTES;
	s->current = which;
	memset(s->given, GIVEN_POINTER, sizeof(s->given));
	while (left && !s->why) {
		if (!cs_disasm_iter(handle, &code, &left, &address, insn)) {
			s->why = "an instruction in it is not known";
			break;
		}
		on_instruction(s, handle, insn);
		if (!whole && ends_flow(handle, insn))
			break;
	}
	part->end = address;
}

int native_exits(const struct native_code *text, uint64_t begin, uint64_t bytes, uint64_t *probe,
		 uint64_t *ret, size_t max, const char **ret_why)
{
	struct sweep s = { .text = text,
			   .parts = { { begin, begin + bytes } },
			   .part_count = 1,
			   .probe = *probe,
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
	for (size_t i = 0; i < s.part_count && !s.why; i++)
		sweep_part(&s, handle, insn, i);
	cs_free(insn, 1);
	cs_close(&handle);
	if (s.why) {
		*ret_why = s.why;
		return -EOPNOTSUPP;
	}
	if (s.loops_back)
		*probe = begin;
	return (int)s.exit_count;
}
