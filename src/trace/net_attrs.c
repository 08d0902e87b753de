/* Turns a connection's addresses into text once, and adds them to spans. Invents nothing: what is
 * empty is left out. */
#include "trace/net_attrs.h"

#include <arpa/inet.h>
#include <errno.h>

static uint8_t address_text(const struct connection *c, const uint8_t *address, char *out)
{
	int family = c->info.family == CONN_INET ? AF_INET : AF_INET6;

	if (!inet_ntop(family, address, out, NET_ADDRESS_BYTES))
		return 0;
	return (uint8_t)strlen(out);
}

void net_text_make(struct net_text *t, const struct connection *c)
{
	if (t->made)
		return;
	t->made = true;
	if (c->info.family != CONN_UNIX) {
		t->peer_len = address_text(c, c->info.peer, t->peer);
		t->local_len = address_text(c, c->info.local, t->local);
		return;
	}
	/* The path is the listener's: the peer of a client, the own one of a server, whose peers
	 * have none. */
	if (c->role == ROLE_SERVER) {
		t->local_len = (uint8_t)strnlen(c->info.path, CONN_PATH_BYTES);
		memcpy(t->local, c->info.path, t->local_len);
	} else {
		t->peer_len = (uint8_t)strnlen(c->info.path, CONN_PATH_BYTES);
		memcpy(t->peer, c->info.path, t->peer_len);
	}
}

struct slice net_peer(const struct net_text *t)
{
	return slice_of(t->peer, t->peer_len);
}

struct slice net_server(const struct net_text *t, const struct connection *c)
{
	return c->role == ROLE_SERVER ? slice_of(t->local, t->local_len) : net_peer(t);
}

uint16_t net_server_port(const struct connection *c)
{
	if (c->info.family == CONN_UNIX)
		return 0;
	return c->role == ROLE_SERVER ? c->info.local_port : c->info.peer_port;
}

void net_add_server(struct span *s, const struct net_text *t, const struct connection *c)
{
	struct slice address = net_server(t, c);

	if (address.len)
		span_add_str(s, "server.address", address);
	if (net_server_port(c))
		span_add_int(s, "server.port", net_server_port(c));
}

void net_add_peer(struct span *s, const struct net_text *t, const struct connection *c)
{
	if (t->peer_len)
		span_add_str(s, "network.peer.address", net_peer(t));
	if (c->info.family == CONN_UNIX)
		span_add_str(s, "network.transport", slice_str("unix"));
	else if (c->info.peer_port)
		span_add_int(s, "network.peer.port", c->info.peer_port);
}

int net_cut_off_error(const struct connection *c, const struct exchange *ex)
{
	if (c->event || c->role != ROLE_CLIENT)
		return -ECONNRESET;
	return ex->response_ns ? -ECANCELED : -ETIMEDOUT;
}

struct slice net_error_type(int error)
{
	static const struct {
		int error;
		const char *type;
	} types[] = {
		{ ECONNRESET, "connection_reset" },
		{ EPIPE, "connection_reset" },
		{ ECONNABORTED, "connection_reset" },
		{ ENOTCONN, "connection_reset" },
		{ ESHUTDOWN, "connection_reset" },
		{ ETIMEDOUT, "timeout" },
		{ ECONNREFUSED, "connection_refused" },
		{ EHOSTUNREACH, "host_unreachable" },
		{ ENETUNREACH, "network_unreachable" },
		{ ENETDOWN, "network_unreachable" },
		{ ECANCELED, "cancelled" },
	};
	size_t i;

	for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (types[i].error == -error)
			return slice_str(types[i].type);
	}
	return slice_str("_OTHER");
}
