/*
 * Where a function's result can be seen before it returns: functions as compilers write them, and
 * those in which no place says for certain what comes back. They are only read, never called.
 */
#include <stdint.h>

#include "check.h"
#include "runtimes/disasm_result.h"

#ifdef __x86_64__

#include "guard.h"

/* A function; a label `name_at` in it is the place, `name_too` another. */
#define FUNCTION(name, ...)                                                \
	extern const char name[], name##_at[], name##_too[], name##_end[]; \
	__asm__(".text\n" #name ":\n" __VA_ARGS__ "\n" #name               \
		"_end: .byte 6\n") /* 6: no instruction */

static const uint8_t *fetch(void *ctx, uint64_t address, size_t *ret_len)
{
	(void)ctx;
	*ret_len = DISASM_FETCH_BYTES;
	return (const uint8_t *)(uintptr_t)address; /* NOLINT */
}

static uint64_t at(const char *label)
{
	return (uint64_t)(uintptr_t)label;
}

static bool is_place(const struct disasm_place *p, const char *label, bool in_rbx)
{
	return p->address == at(label) && p->in_rbx == in_rbx;
}

#define CHECK_NONE(function) CHECK(disasm_result_places(at(function), fetch, NULL, p) == 0)
#define CHECK_ONE(function, in_rbx)                                      \
	CHECK(disasm_result_places(at(function), fetch, NULL, p) == 1 && \
	      is_place(&p[0], function##_at, in_rbx))

FUNCTION(callee, "xor %eax, %eax; ret");

/* --- proven --- */

/* What the call gave is returned, 0 as well. */
FUNCTION(straight, "endbr64; sub $8, %rsp; call callee; test %rax, %rax; straight_at: je 1f;"
		   "addq $1, 8(%rax); 1: add $8, %rsp; ret");

/* As Debian's 3.11: 0 has a way of its own, which the jump is on, with 0 in the register. */
FUNCTION(checked, "push %rbp; push %rbx; call callee; mov %rax, %rbx; test %rax, %rax;"
		  "checked_at: je 1f; mov %rbp, 24(%rax); call callee; mov %rbx, %rax;"
		  "2: pop %rbx; pop %rbp; ret; 1: xor %eax, %eax; jmp 2b");
FUNCTION(compared, "push %rbx; call callee; cmp $0, %rax; compared_at: jne 1f; mov $0, %eax;"
		   "pop %rbx; ret; 1: pop %rbx; ret");

/* As 3.12 and 3.13: behind two ways to get one, in RBX while RAX has something else. */
FUNCTION(merged, "push %rbp; push %rbx; test %edx, %edx; jle 1f; mov 8(%rdi), %rbx; call callee;"
		 "2: mov (%rbp), %eax; add $1, %eax; merged_at: je 3f; mov %eax, (%rbp);"
		 "3: movq %rdx, %xmm0; mov %rbx, %rax; movups %xmm0, -16(%rbx);"
		 "4: pop %rbx; pop %rbp; ret;"
		 "1: call callee; mov %rax, %rbx; test %rax, %rax; jne 2b; xor %ebx, %ebx;"
		 "mov %rbx, %rax; jmp 4b");

/* As 3.9 to 3.11: no place is on both ways. */
FUNCTION(two, "push %rbx; test %eax, %eax; jne 1f; call callee; mov %rax, %rbx; test %rax, %rax;"
	      "two_at: je 2f; 3: movq $0, 16(%rbx); mov %rbx, %rax; pop %rbx; ret;"
	      "1: mov 8(%rdi), %rbx; call callee; two_too: jmp 3b;"
	      "2: xor %ebx, %ebx; mov %rbx, %rax; pop %rbx; ret");

/* It ends in another function; the place is there, for who comes by a jump and who is called. */
FUNCTION(ends_elsewhere, "mov 24(%rdi), %rdi; jmp checked");

static void test_proven(void)
{
	struct disasm_place p[DISASM_PLACES_MAX];

	CHECK_ONE(straight, false);
	CHECK_ONE(checked, false);
	CHECK_ONE(compared, false);
	CHECK_ONE(merged, true);
	CHECK(disasm_result_places(at(two), fetch, NULL, p) == 2);
	CHECK(is_place(&p[0], two_at, false) != is_place(&p[1], two_at, false));
	CHECK(is_place(&p[0], two_too, true) != is_place(&p[1], two_too, true));
	CHECK(disasm_result_places(at(ends_elsewhere), fetch, NULL, p) == 1 &&
	      is_place(&p[0], checked_at, false));
}

/* --- what comes back may be another --- */

/* As PyContext_New: what it made is given up again, and 0 returned. */
FUNCTION(given_up, "push %rbx; call callee; mov %rax, %rbx; test %rax, %rax; je 1f; call callee;"
		   "test %rax, %rax; je 2f; mov %rbx, %rax; 3: pop %rbx; ret;"
		   "2: mov %rbx, %rdi; call callee; 1: xor %eax, %eax; jmp 3b");
FUNCTION(part_written, "call callee; test %rax, %rax; je 1f; 1: mov $1, %al; ret");
FUNCTION(half_written, "call callee; test %rax, %rax; je 1f; 1: mov %eax, %eax; ret");
FUNCTION(moved_if, "call callee; test %rax, %rax; je 1f; 1: cmove %rdx, %rax; ret");
FUNCTION(counted_up, "call callee; test %rax, %rax; je 1f; 1: add $16, %rax; ret");
FUNCTION(called_again, "call callee; test %rax, %rax; je 1f; call callee; 1: ret");
/* What comes back from the stack isn't followed. */
FUNCTION(spilled, "call callee; push %rax; test %rcx, %rcx; je 1f; call callee; 1: pop %rax; ret");
FUNCTION(always_zero, "test %rdi, %rdi; je 1f; 1: xor %eax, %eax; ret");
FUNCTION(nothing_cheap, "mov %rdi, %rax; ret");

/* A comparison that doesn't say that it is 0. */
FUNCTION(half_tested, "call callee; test %eax, %eax; je 1f; ret; 1: xor %eax, %eax; ret");
FUNCTION(other_tested, "call callee; test %rax, %rcx; je 1f; ret; 1: xor %eax, %eax; ret");
FUNCTION(flags_lost, "call callee; test %rax, %rax; add $1, %rcx; je 1f; ret; 1: xor %eax, %eax;"
		     "ret");
FUNCTION(called_between, "push %rbx; call callee; mov %rax, %rbx; test %rax, %rax; call callee;"
			 "mov %rbx, %rax; je 1f; pop %rbx; ret; 1: xor %eax, %eax; pop %rbx; ret");
FUNCTION(other_sense, "call callee; test %rax, %rax; jne 1f; ret; 1: xor %eax, %eax; ret");

static void test_another(void)
{
	struct disasm_place p[DISASM_PLACES_MAX];

	CHECK_NONE(given_up);
	CHECK_NONE(part_written);
	CHECK_NONE(half_written);
	CHECK_NONE(moved_if);
	CHECK_NONE(counted_up);
	CHECK_NONE(called_again);
	CHECK_NONE(spilled);
	CHECK_NONE(always_zero);
	CHECK_NONE(nothing_cheap);
	CHECK_NONE(half_tested);
	CHECK_NONE(other_tested);
	CHECK_NONE(flags_lost);
	CHECK_NONE(called_between);
	CHECK_NONE(other_sense);
}

/* --- what can't be followed --- */

FUNCTION(looping, "call callee; 1: test %rax, %rax; je 1b; ret");
/* The place is met once for each turn. */
FUNCTION(met_again, "push %rbx; call callee; mov %rax, %rbx; 1: sub $1, %ecx; jne 1b;"
		    "mov %rbx, %rax; pop %rbx; ret");
FUNCTION(jumps_by_table, "call callee; test %rax, %rax; je 1f; 1: jmp *%rdx");
FUNCTION(jumps_by_slot, "call callee; test %rax, %rax; je 1f; 1: jmp *callee(%rip)");
FUNCTION(jumps_by_count, "call callee; test %rax, %rax; je 1f; 1: loop 2f; 2: ret");
FUNCTION(jumps_out, "call callee; test %rax, %rax; je 1f; ret; 1: jmp nowhere; nowhere: .byte 6");
FUNCTION(exchanges, "call callee; test %rax, %rax; je 1f; 1: xchg %rax, %rdx; ret");
FUNCTION(hidden_write, "call callee; test %rax, %rax; je 1f; 1: cpuid; ret");
FUNCTION(asks_the_kernel, "call callee; test %rax, %rax; je 1f; 1: syscall; ret");
FUNCTION(dies, "call callee; test %rax, %rax; je 1f; ret; 1: ud2");
FUNCTION(returns_far, "call callee; test %rax, %rax; je 1f; 1: lretq");
#define EITHER "je 1f; mov (%rdi), %rdx; 1: test %rcx, %rcx;"
FUNCTION(many_ways,
	 "call callee; test %rax, %rax;" EITHER EITHER EITHER EITHER EITHER EITHER EITHER EITHER
	 "ret");
FUNCTION(few_ways, "call callee; test %rax, %rax; few_ways_at: je 1f; mov (%rdi), %rdx;"
		   "1: test %rcx, %rcx;" EITHER EITHER EITHER EITHER "ret");
/* A call is emulated as well, but by some kernels without its shadow stack. */
FUNCTION(only_a_call, "push %rbx; mov 8(%rdi), %rbx; call callee; mov %rbx, %rax; pop %rbx; ret");

static void test_not_followed(void)
{
	struct disasm_place p[DISASM_PLACES_MAX];

	CHECK_NONE(looping);
	CHECK_NONE(met_again);
	CHECK_NONE(jumps_by_table);
	CHECK_NONE(jumps_by_slot);
	CHECK_NONE(jumps_by_count);
	CHECK_NONE(jumps_out);
	CHECK_NONE(exchanges);
	CHECK_NONE(hidden_write);
	CHECK_NONE(asks_the_kernel);
	CHECK_NONE(dies);
	CHECK_NONE(returns_far);
	CHECK_NONE(many_ways);
	CHECK_NONE(only_a_call);
	CHECK(disasm_result_places(at(few_ways), fetch, NULL, p) == 1);
}

/* Cut anywhere, nothing is proven and nothing is read beyond. */
struct cut {
	const uint8_t *code;
	size_t len;
};

static const uint8_t *fetch_cut(void *ctx, uint64_t address, size_t *ret_len)
{
	const struct cut *c = ctx;

	*ret_len = address < c->len ? c->len - address : 0;
	return *ret_len ? c->code + address : NULL;
}

static void test_cut(void)
{
	size_t whole = at(two_end) - at(two);
	struct disasm_place p[DISASM_PLACES_MAX];

	for (size_t len = 0; len <= whole; len++) {
		struct cut c = { guard_copy(two, len), len };

		CHECK(disasm_result_places(0, fetch_cut, &c, p) == (len == whole ? 2 : 0));
	}
}

/* --- who comes by --- */

FUNCTION(calls_it, "sub $8, %rsp; 1: call checked; test %rax, %rax; je 1b; add $8, %rsp; ret");
/* The second of two, where the first calls others. */
FUNCTION(calls_it_late, "call calls_another; call checked; ud2");
FUNCTION(calls_its_caller, "call calls_it; ret");
FUNCTION(calls_another, "call straight; call callee; jmp *%rax");
FUNCTION(calls_unreadable, "call calls_unreadable_end; ret");
FUNCTION(jumps_there, "test %rdi, %rdi; je 1f; call straight; ret; 1: jmp checked_at");

static void test_comes_by(void)
{
	struct disasm_place p[] = { { at(two_at), false }, { at(checked_at), false } };

	CHECK(disasm_comes_by(at(checked), fetch, NULL, p, 2));
	CHECK(disasm_comes_by(at(ends_elsewhere), fetch, NULL, p, 2));
	CHECK(disasm_comes_by(at(calls_it), fetch, NULL, p, 2));
	CHECK(disasm_comes_by(at(calls_it_late), fetch, NULL, p, 2));
	CHECK(disasm_comes_by(at(jumps_there), fetch, NULL, p, 2));
	CHECK(disasm_comes_by(at(calls_unreadable), fetch, NULL, p, 2));
	CHECK(!disasm_comes_by(at(checked), fetch, NULL, p, 1));
	CHECK(!disasm_comes_by(at(calls_it), fetch, NULL, p, 1));
	CHECK(!disasm_comes_by(at(calls_another), fetch, NULL, p, 2));
	CHECK(!disasm_comes_by(at(calls_its_caller), fetch, NULL, p, 2)); /* one deep */
	CHECK(!disasm_comes_by(at(looping), fetch, NULL, p, 2));
	CHECK(!disasm_comes_by(at(calls_unreadable), fetch, NULL, p, 0));
}

int main(void)
{
	test_proven();
	test_another();
	test_not_followed();
	test_cut();
	test_comes_by();
	return check_result();
}

#else

static const uint8_t *fetch(void *ctx, uint64_t address, size_t *ret_len)
{
	(void)ctx, (void)address, (void)ret_len;
	return NULL;
}

int main(void)
{
	struct disasm_place p[DISASM_PLACES_MAX];

	CHECK(disasm_result_places(0, fetch, NULL, p) == 0);
	return check_result();
}

#endif
