/* The protocols that the tracer is given, in the order in which they are asked. A new one is one
 * row. */
#ifndef PROTOCOLS_PROTOCOLS_H
#define PROTOCOLS_PROTOCOLS_H

#include "trace/protocol.h"

/* NULL-terminated; static. */
extern const struct protocol *const protocols_all[];

#endif
