/* Memory that ends where an unmapped page begins: a parser that reads one byte too far dies there.
 */
#ifndef TESTS_UNIT_GUARD_H
#define TESTS_UNIT_GUARD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GUARD_BYTES = 65536, GUARD_PAGE_BYTES = 4096 };

/* A copy of `len` bytes that ends at the guard page. Valid until the next call. */
static inline const uint8_t *guard_copy(const void *data, size_t len)
{
	static uint8_t *memory;

	if (!memory) {
		memory = mmap(NULL, GUARD_BYTES + GUARD_PAGE_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED ||
		    mprotect(memory + GUARD_BYTES, GUARD_PAGE_BYTES, PROT_NONE))
			abort();
	}
	if (len > GUARD_BYTES)
		abort();
	if (len)
		memcpy(memory + GUARD_BYTES - len, data, len);
	return memory + GUARD_BYTES - len;
}

#endif
