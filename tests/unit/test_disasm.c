/*
 * Where functions end and where their entries are cheap to probe, by machine code as compilers
 * write it: each case is a short function in bytes, its instructions beside it.
 */
#include <errno.h>
#include <stdint.h>

#include "check.h"
#include "runtimes/disasm.h"

#ifdef __x86_64__

#define CODE(...) ((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })

enum { AT = 0x1000 };

static void test_returns(void)
{
	struct disasm d;

	/* test edi,edi; je +1; ret; xor eax,eax; ret */
	CHECK(disasm_function(CODE(0x85, 0xff, 0x74, 0x01, 0xc3, 0x31, 0xc0, 0xc3), AT, true, &d) ==
	      0);
	CHECK(d.return_count == 2 && d.returns[0] == 4 && d.returns[1] == 7);
	CHECK(d.jump_count == 0 && d.length == 8);
	disasm_free(&d);
	disasm_free(&d);
	/* repz ret, and one that takes its arguments along */
	CHECK(disasm_function(CODE(0xf3, 0xc3, 0xc2, 0x08, 0x00), AT, true, &d) == 0);
	CHECK(d.return_count == 2 && d.returns[0] == 0 && d.returns[1] == 2);
	disasm_free(&d);
}

static void test_leaves(void)
{
	struct disasm d;

	/* call 0x2000; jne 0x3000; jmp rax; jmp *[rip+0x10]; jmp 0x1000; jmp 0x4000 */
	CHECK(disasm_function(CODE(0xe8, 0xfb, 0x0f, 0x00, 0x00, 0x0f, 0x85, 0xf5, 0x1f, 0x00, 0x00,
				   0xff, 0xe0, 0xff, 0x25, 0x10, 0x00, 0x00, 0x00, 0xeb, 0xeb, 0xe9,
				   0xe6, 0x2f, 0x00, 0x00),
			      AT, true, &d) == 0);
	CHECK(d.return_count == 0 && d.jump_count == 5);
	CHECK(d.jumps[0].kind == DISASM_CALL && d.jumps[0].call && d.jumps[0].target == 0x2000);
	CHECK(d.jumps[1].kind == DISASM_LEAVE && !d.jumps[1].call && d.jumps[1].target == 0x3000);
	CHECK(d.jumps[2].kind == DISASM_INDIRECT && d.jumps[2].offset == 11);
	CHECK(d.jumps[3].kind == DISASM_SLOT && d.jumps[3].target == AT + 19 + 0x10);
	CHECK(d.jumps[4].kind == DISASM_LEAVE && d.jumps[4].target == 0x4000);
	disasm_free(&d);
}

static void test_unknown_end(void)
{
	struct disasm d;

	/* je +1; ret; ret | what follows is another function's */
	CHECK(disasm_function(CODE(0x74, 0x01, 0xc3, 0xc3, 0x90, 0xc3), AT, false, &d) == 0);
	CHECK(d.length == 4 && d.return_count == 2);
	disasm_free(&d);
	/* endbr64; jmp +2: a thunk, and what it jumps to */
	CHECK(disasm_function(CODE(0xf3, 0x0f, 0x1e, 0xfa, 0xeb, 0x02, 0x90, 0x90, 0xc3), AT, false,
			      &d) == 0);
	CHECK(d.length == 6 && d.jump_count == 1 && d.jumps[0].target == AT + 8);
	disasm_free(&d);
	CHECK(disasm_function(CODE(0x90, 0x90), AT, false, &d) == -EINVAL);
}

static void test_refused(void)
{
	struct disasm d;

	CHECK(disasm_function(CODE(0xc3), AT, true, &d) == 0);
	disasm_free(&d);
	CHECK(disasm_function((const uint8_t[]){ 0xc3 }, 0, AT, true, &d) == -EINVAL);
	CHECK(disasm_function(CODE(0xc3, 0x06), AT, true, &d) == -EINVAL); /* no instruction */
	CHECK(disasm_function(CODE(0xc3, 0xe8, 0x00), AT, true, &d) == -EINVAL); /* cut */
}

static void test_entry(void)
{
	/* push rbx; push r12 */
	CHECK(disasm_entry(CODE(0x53, 0xc3), true) == 0);
	CHECK(disasm_entry(CODE(0x41, 0x54, 0xc3), true) == 0);
	/* endbr64; push rbx */
	CHECK(disasm_entry(CODE(0xf3, 0x0f, 0x1e, 0xfa, 0x53), true) == 4);
	/* endbr64; mov rdx,fs:[-24]; mov rax,[rdx+208]; test rax,rax; je: the stack is as it was */
	CHECK(disasm_entry(CODE(0xf3, 0x0f, 0x1e, 0xfa, 0x64, 0x48, 0x8b, 0x14, 0x25, 0xe8, 0xff,
				0xff, 0xff, 0x48, 0x8b, 0x82, 0xd0, 0x00, 0x00, 0x00, 0x48, 0x85,
				0xc0, 0x74, 0x09),
			   false) == 23);
	/* the same, but its arguments are wanted */
	CHECK(disasm_entry(CODE(0xf3, 0x0f, 0x1e, 0xfa, 0x64, 0x48, 0x8b, 0x14, 0x25, 0xe8, 0xff,
				0xff, 0xff, 0x74, 0x09),
			   true) == 4);
	/* sub rsp,24; push rbx: the return address is elsewhere by then */
	CHECK(disasm_entry(CODE(0x48, 0x83, 0xec, 0x18, 0x53), false) == 0);
	/* mov eax,1; ret */
	CHECK(disasm_entry(CODE(0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3), false) == 0);
}

int main(void)
{
	test_returns();
	test_leaves();
	test_unknown_end();
	test_refused();
	test_entry();
	return check_result();
}

#else

int main(void)
{
	struct disasm d;

	CHECK(disasm_function((const uint8_t[]){ 0 }, 1, 0, true, &d) == -ENOTSUP);
	return check_result();
}

#endif
