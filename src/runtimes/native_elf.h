/* One function of an ELF file: where it is entered and left. Opens the file, keeps nothing of it.
 */
#ifndef RUNTIMES_NATIVE_ELF_H
#define RUNTIMES_NATIVE_ELF_H

#include <stddef.h>
#include <stdint.h>

enum { NATIVE_EXITS_MAX = 256 };

/* Offsets into the file. */
struct native_function {
	uint64_t entry;
	uint64_t exits[NATIVE_EXITS_MAX];
	size_t exit_count;
};

/* By a symbol of .symtab or .dynsym. 0; -errno with *ret_why (a literal) and *ret undefined. */
int native_function_find(const char *path, const char *symbol, struct native_function *ret,
			 const char **ret_why);

#endif
