/*
 * The row of CPython in the table of runtimes: 3.9 to 3.14 on x86-64, with the global interpreter
 * lock; the main interpreter only.
 */
#ifndef RUNTIMES_PYTHON_H
#define RUNTIMES_PYTHON_H

#include "runtimes/runtime.h"

extern const struct runtime python_runtime;

#endif
