/* Text eight bytes at a time, as they lie in memory (little endian). */
#ifndef SPANLOOM_WORDS_BPF_H
#define SPANLOOM_WORDS_BPF_H

#include "kernel_types.bpf.h"

#define WORD_OF(a, b, c, d, e, f, g, h)                                                \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | \
	 (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)

#define BYTES(c) (0x0101010101010101ull * (c))

/* The highest bit of each byte of `word` that is zero. */
static __always_inline u64 zero_bytes(u64 word)
{
	return ~(((word & BYTES(0x7f)) + BYTES(0x7f)) | word | BYTES(0x7f));
}

/* All bytes below the lowest marked one; all there are when none is marked. */
static __always_inline u64 bytes_below(u64 marks)
{
	return marks ? ((marks & -marks) >> 7) - 1 : ~0ull;
}

#endif
