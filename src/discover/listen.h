/*
 * Which TCP ports a process listens on: the listening sockets of its network namespace
 * (/proc/PID/net/tcp and tcp6) matched by inode number to the sockets it holds (/proc/PID/fd). The
 * tables are read once per namespace and scan.
 */
#ifndef DISCOVER_LISTEN_H
#define DISCOVER_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"

/* Zeroed memory is a valid empty one. */
struct listeners {
	struct hash port_by_inode; /* inode number of a listening socket → port */
	struct hash namespaces;    /* inode numbers of the network namespaces that were read */
};

void listeners_free(struct listeners *l);

/*
 * Calls `wanted` for the ports that `pid` listens on until it returns true; true when it did. False
 * as well when the process is gone or may not be read.
 */
bool listeners_any(struct listeners *l, int proc_fd, uint32_t pid,
		   bool (*wanted)(void *ctx, uint16_t port), void *ctx);

/*
 * Pure: one line of /proc/net/tcp{,6}. True when it is a socket (not the header line);
 * ret_listening: in state LISTEN.
 */
bool listen_parse_line(const char *line, bool *ret_listening, uint16_t *ret_port,
		       uint64_t *ret_inode);

#endif
