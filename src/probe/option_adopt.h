/* TCP options for connections that were open before their process was traced. */
#ifndef PROBE_OPTION_ADOPT_H
#define PROBE_OPTION_ADOPT_H

#include <stdint.h>

/*
 * `iterator`: the link of the program that goes over sockets; `sent`: the map of those that send
 * options. Looks into the network namespace of the process. 0, or -errno as process_sockets().
 */
int connections_adopt(int iterator, int sent, uint32_t pid);

#endif
