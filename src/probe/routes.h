/* Connection attempts without a route: the kernel side keeps what the lookup said, here it is taken
 * for a failure. */
#ifndef PROBE_ROUTES_H
#define PROBE_ROUTES_H

#include <stdint.h>

#include "probe/probe.h"

/* Hands on, and forgets, the failures in the map `map_fd` that are old enough to be final. */
void routes_collect(int map_fd, const struct probe_sink *sink, uint64_t now_ns);

#endif
