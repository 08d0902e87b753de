/*
 * The attributes that say between whom a connection is: addresses as text without brackets, ports,
 * unix paths (OpenTelemetry semantic conventions, "network" and "server"). Shared by the protocols;
 * keeps one text per connection.
 */
#ifndef TRACE_NET_ATTRS_H
#define TRACE_NET_ATTRS_H

#include "trace/connection.h"

enum { NET_ADDRESS_BYTES = CONN_PATH_BYTES };

/* Zeroed: not made yet. Part of a protocol's state. */
struct net_text {
	bool made;
	uint8_t peer_len, local_len;
	char peer[NET_ADDRESS_BYTES], local[NET_ADDRESS_BYTES];
};

/* Fills `t` from the connection unless it is. */
void net_text_make(struct net_text *t, const struct connection *c);
struct slice net_peer(const struct net_text *t);
/* The address of the end that serves; empty when it has none. */
struct slice net_server(const struct net_text *t, const struct connection *c);
/* 0: none (unix). */
uint16_t net_server_port(const struct connection *c);
/* server.address and server.port as the connection has them. */
void net_add_server(struct span *s, const struct net_text *t, const struct connection *c);
/* network.peer.address, network.peer.port; network.transport for unix sockets. */
void net_add_peer(struct span *s, const struct net_text *t, const struct connection *c);

/* The error.type of a failed transfer (negative errno). */
struct slice net_error_type(int error);
/*
 * The error (negative errno) of an exchange whose connection ended without one before its answer
 * was whole. A client that closes before any answer came has given up waiting.
 */
int net_cut_off_error(const struct connection *c, const struct exchange *ex);

#endif
