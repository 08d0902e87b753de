/* What is known of the program of a process that decides whether its sockets may be in the table,
 * on kernels where FIONREAD is wrong for those. */
#ifndef PROBE_INJECT_PROGRAM_H
#define PROBE_INJECT_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Whether the process runs a program that reads its connections without asking first how much is
 * there (FIONREAD): CPython, Node.js, Go's and curl. Not so nginx, Java and Qt, which stall or see
 * nothing when told zero. Unknown: false.
 */
bool program_never_asks(uint32_t pid);

#endif
