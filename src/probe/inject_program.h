/* What is known of the program of a process that decides whether its sockets may be in the table:
 * whether it asks for FIONREAD, where the kernel has that wrong, and whether it uses io_uring. */
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
/* Whether an io_uring of the process is for other things than its sockets' bytes, as that of libuv,
 * in Node.js and in Python's uvloop, which waits and reads files by it. Unknown: false. */
bool program_rings_apart(uint32_t pid);
/* Whether the process has an io_uring open. Unknown: true. */
bool process_has_ring(uint32_t pid);

#endif
