/* What test_owner_table.c hands to its BPF program, and gets back. */
#ifndef TESTS_BPF_OWNER_TABLE_CALL_H
#define TESTS_BPF_OWNER_TABLE_CALL_H

#include "event.h"

enum table_op { TABLE_READ, TABLE_WRITE, TABLE_FORGET };

enum { TABLE_OWNER_WORDS = 5 };

struct table_call {
	u64 memory, context;
	u32 op; /* enum table_op */
	s32 result;
	u64 owner[TABLE_OWNER_WORDS];
};

#endif
