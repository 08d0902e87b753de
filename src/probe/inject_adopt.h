/* Connections that a process had made before it was traced. */
#ifndef PROBE_INJECT_ADOPT_H
#define PROBE_INJECT_ADOPT_H

#include <stdint.h>

/* Puts those that fit into the table; the descriptors are the maps'. Returns how many, or -errno as
 * inject_adopt(). */
int sockets_adopt(int sockets, int injections, uint32_t pid);

#endif
