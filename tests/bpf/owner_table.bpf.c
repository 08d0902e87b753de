/* The table of owners with two sets only, and a program that does to it what test_owner_table.c
 * asks. */
#define OWNER_SET_BITS 1
#include "../../bpf/owner_table.bpf.c"

#include "owner_table_call.h"

SEC("syscall")
int table_call(struct table_call *call)
{
	volatile struct table_call *c = call; /* the kernel wants each word of it by its offset */
	u64 memory = c->memory, context = c->context;
	struct owner o = {};
	u64 *words = (u64 *)&o;
	u32 op = c->op, i;

#pragma unroll
	for (i = 0; i < TABLE_OWNER_WORDS; i++)
		words[i] = c->owner[i];
	if (op == TABLE_READ)
		c->result = owner_read(memory, context, &o);
	else if (op == TABLE_WRITE)
		c->result = owner_write(memory, context, &o);
	else
		c->result = owner_forget(memory, context);
#pragma unroll
	for (i = 0; i < TABLE_OWNER_WORDS; i++)
		c->owner[i] = words[i];
	return 0;
}
