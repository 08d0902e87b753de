/*
 * Takes failed route lookups out of their map. A lookup is final when the attempt has not gone on
 * for ROUTE_FINAL_NS: the next table is asked, and the connection leaves its first state, within
 * microseconds.
 */
#include "probe/routes.h"

#include <bpf/bpf.h>
#include <string.h>
#include <sys/socket.h>

#include "event.h"

#define ROUTE_FINAL_NS 20000000ull

static void hand_on(const struct probe_sink *sink, const struct route_key *key,
		    const struct route_failure *failure)
{
	struct connect_failure f = {
		.conn = {
			.ts_ns = failure->ts_ns,
			.pid = key->pid,
			.tid = key->tid,
			.flags = CONN_ACTIVE,
			.family = key->family == AF_INET ? CONN_INET : CONN_INET6,
			.peer_port = key->port,
			.connect_context = failure->context,
		},
		.end_ns = failure->ts_ns,
		.error = failure->error,
	};

	memcpy(f.conn.peer, key->address, sizeof(f.conn.peer));
	sink->connect_failed(sink->ctx, &f);
}

void routes_collect(int map_fd, const struct probe_sink *sink, uint64_t now_ns)
{
	struct route_key final[UNROUTABLE_MAX], key, *last = NULL;
	struct route_failure failure;
	size_t i, count = 0;

	while (count < UNROUTABLE_MAX && bpf_map_get_next_key(map_fd, last, &key) == 0) {
		last = &key;
		if (bpf_map_lookup_elem(map_fd, &key, &failure) == 0 &&
		    now_ns > failure.ts_ns + ROUTE_FINAL_NS)
			final[count++] = key;
	}
	for (i = 0; i < count; i++) {
		if (bpf_map_lookup_elem(map_fd, &final[i], &failure) ||
		    bpf_map_delete_elem(map_fd, &final[i]))
			continue;
		hand_on(sink, &final[i], &failure);
	}
}
