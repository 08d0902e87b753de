/*
 * Two things that the newest kernels forgive and older ones refuse a whole program for, dead code
 * or not; both depend on what the compiler makes of the source.
 *
 * Loops, before 6.8: the walk over the program may come back to where it is only by a jump, never
 * by a plain step ("back-edge").
 *
 * Stack, before 6.13: a program and the functions that it calls have 512 bytes in all, and each
 * takes a multiple of 32.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include "check.h"
#include "event.h"
#include "spanloom.skel.h"

enum { UNSEEN, ON_THE_WAY, DONE };
enum { STACK_BYTES = 512, STACK_STEP = 32, FUNCTIONS_MAX = 64, CALLS_MAX = 8 };

struct walk {
	const struct bpf_insn *insns;
	uint32_t count;
	uint8_t *state, *edges; /* of each instruction; the edges that were taken */
	uint32_t *stack, depth;
};

/* Edge number `n` of the instruction at `at`; false: it has no such. *ret_jump: it is a jump's. */
static bool edge(const struct walk *w, uint32_t at, uint32_t n, uint32_t *ret, bool *ret_jump)
{
	const struct bpf_insn *i = &w->insns[at];
	uint8_t class = BPF_CLASS(i->code), op = BPF_OP(i->code);
	bool jumps = class == BPF_JMP || class == BPF_JMP32;

	*ret_jump = jumps && op != BPF_CALL;
	if (jumps && op == BPF_EXIT)
		return false;
	if (jumps && op == BPF_JA) {
		*ret = at + 1 + (uint32_t)i->off;
		return n == 0;
	}
	if (n == 0) {
		*ret = at + (i->code == (BPF_LD | BPF_IMM | BPF_DW) ? 2 : 1);
		return true;
	}
	*ret = at + 1 + (uint32_t)(int32_t)i->off;
	return n == 1 && *ret_jump;
}

/* The first instruction that the old kernels refuse among those reached from `entry`; -1: none. */
static int64_t walk_from(struct walk *w, uint32_t entry)
{
	w->depth = 0;
	w->stack[w->depth++] = entry;
	w->state[entry] = ON_THE_WAY;
	while (w->depth) {
		uint32_t at = w->stack[w->depth - 1], next;
		bool jump;

		if (!edge(w, at, w->edges[at], &next, &jump)) {
			w->state[at] = DONE;
			w->depth--;
			continue;
		}
		w->edges[at]++;
		if (next >= w->count || (w->state[next] == ON_THE_WAY && !jump))
			return at;
		if (w->state[next] == UNSEEN) {
			w->state[next] = ON_THE_WAY;
			w->stack[w->depth++] = next;
		}
	}
	return -1;
}

/* The function that a call or a reference leads to; -1: none. */
static int64_t callee(const struct bpf_insn *insns, uint32_t at)
{
	const struct bpf_insn *i = &insns[at];

	if ((i->code == (BPF_JMP | BPF_CALL) && i->src_reg == BPF_PSEUDO_CALL) ||
	    (i->code == (BPF_LD | BPF_IMM | BPF_DW) && i->src_reg == BPF_PSEUDO_FUNC))
		return (int64_t)at + 1 + i->imm;
	return -1;
}

/* --- the stack -------------------------------------------------------------------------------- */

struct functions {
	const struct bpf_insn *insns;
	uint32_t count;
	uint32_t begins[FUNCTIONS_MAX + 1], n; /* in their order; one behind the last */
};

/* Bytes below the frame's top that the instructions of function `f` reach. */
static uint32_t function_stack(const struct functions *all, uint32_t f)
{
	uint16_t copies = 0; /* registers that hold the frame's top */
	int32_t least = 0;
	uint32_t at;

	for (at = all->begins[f]; at < all->begins[f + 1]; at++) {
		const struct bpf_insn *i = &all->insns[at];
		uint8_t class = BPF_CLASS(i->code);
		bool stores = class == BPF_ST || class == BPF_STX;
		uint8_t base = stores ? i->dst_reg : i->src_reg;

		if ((stores || class == BPF_LDX) && base == BPF_REG_10 && i->off < least)
			least = i->off;
		if (stores)
			continue;
		if (i->code == (BPF_ALU64 | BPF_ADD | BPF_K) && copies & 1 << i->dst_reg &&
		    i->imm < least)
			least = i->imm;
		copies &= (uint16_t) ~(1 << i->dst_reg);
		if (i->code == (BPF_ALU64 | BPF_MOV | BPF_X) && i->src_reg == BPF_REG_10)
			copies |= (uint16_t)(1 << i->dst_reg);
	}
	least = least ? -least : 1;
	return ((uint32_t)least + STACK_STEP - 1) / STACK_STEP * STACK_STEP;
}

static uint32_t function_at(const struct functions *all, int64_t entry)
{
	uint32_t f = 0;

	while (f < all->n && all->begins[f] != entry)
		f++;
	return f;
}

/* The most that function `f` takes with all that it calls. */
static uint32_t stack_of(const struct functions *all, uint32_t f, uint32_t calls)
{
	uint32_t most = 0, at;

	if (f >= all->n || calls > CALLS_MAX)
		return STACK_BYTES + 1;
	for (at = all->begins[f]; at < all->begins[f + 1]; at++) {
		int64_t entry = callee(all->insns, at);
		uint32_t below = entry >= 0 ? stack_of(all, function_at(all, entry), calls + 1) : 0;

		if (below > most)
			most = below;
	}
	return function_stack(all, f) + most;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void functions_find(struct functions *all)
{
	uint32_t at;

	all->begins[all->n++] = 0;
	for (at = 0; at < all->count; at++) {
		int64_t entry = callee(all->insns, at);

		if (entry >= 0 && function_at(all, entry) == all->n && all->n < FUNCTIONS_MAX)
			all->begins[all->n++] = (uint32_t)entry;
	}
	qsort(all->begins, all->n, sizeof(all->begins[0]), by_number);
	all->begins[all->n] = all->count;
}

static void program_stacks(const struct bpf_program *prog)
{
	struct functions all = { .insns = bpf_program__insns(prog),
				 .count = (uint32_t)bpf_program__insn_cnt(prog) };
	uint32_t bytes;

	functions_find(&all);
	bytes = stack_of(&all, 0, 1);
	CHECK_SAY(bytes <= STACK_BYTES, "%s: %u bytes of stack of %u", bpf_program__name(prog),
		  bytes, (uint32_t)STACK_BYTES);
}

/* ---------------------------------------------------------------------------------------------- */

static void program_flows(const struct bpf_program *prog)
{
	struct walk w = { .insns = bpf_program__insns(prog),
			  .count = (uint32_t)bpf_program__insn_cnt(prog) };
	int64_t wrong, entry = 0;
	uint32_t at;

	w.state = calloc(w.count, 2);
	w.stack = calloc(w.count, sizeof(*w.stack));
	if (!w.state || !w.stack || !w.insns)
		abort();
	w.edges = w.state + w.count;
	wrong = walk_from(&w, 0);
	for (at = 0; at < w.count && wrong < 0; at++) {
		entry = callee(w.insns, at);
		if (entry >= 0 && entry < w.count && w.state[entry] == UNSEEN)
			wrong = walk_from(&w, (uint32_t)entry);
	}
	CHECK_SAY(wrong < 0, "%s: a step into a loop at instruction %lld of %u",
		  bpf_program__name(prog), (long long)wrong, w.count);
	free(w.state);
	free(w.stack);
}

int main(void)
{
	struct spanloom *skel = spanloom__open();
	struct bpf_program *prog;

	check_scene = "older kernels";
	CHECK(skel != NULL);
	if (!skel)
		return check_result();
	/* The instructions are whole, with the functions that are called, once they are loaded. */
	if (spanloom__load(skel))
		check_skip("this kernel can't load all programs");
	bpf_object__for_each_program(prog, skel->obj)
	{
		program_flows(prog);
		program_stacks(prog);
	}
	spanloom__destroy(skel);
	return check_result();
}
