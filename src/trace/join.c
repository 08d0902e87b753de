/*
 * Finds the two ends of exchanges (join.h). It keeps calls and requests until their other end comes
 * or the time is up, and decides nothing about traces. Invariant: an end is in one of the three
 * lists, in the table of its side when it has sequence numbers, and in its connection's list while
 * that is open; two connections are each other's pair or neither is.
 */
#include "trace/join.h"

#include <stdlib.h>

#include "trace/link_internal.h"

struct join_end {
	struct list node;       /* join.open, over or waiting */
	struct list by_conn;    /* join_conn.ends */
	struct list same;       /* a ring of those of its side with the same numbers */
	struct join_conn *conn; /* NULL: closed */
	struct call *call;      /* counted; NULL: a request's */
	struct request *request;
	struct join_point at;
	uint64_t over_ns;
};

static uint64_t key_of(const struct join_point *at)
{
	return (uint64_t)at->seq << 32 | at->peer_seq;
}

static struct hash *table_of(struct join *j, const struct join_end *e)
{
	return e->call ? &j->calls : &j->requests;
}

void join_init(struct join *j, struct linker *l, struct stats *stats)
{
	j->linker = l;
	j->stats = stats;
	list_init(&j->open);
	list_init(&j->over);
	list_init(&j->waiting);
}

/* --- ends --- */

static void leave_table(struct join *j, struct join_end *e)
{
	struct hash *table = table_of(j, e);
	uint64_t key = key_of(&e->at);

	if (!e->at.has_seq || hash_get(table, key) != e) {
		list_remove(&e->same);
		return;
	}
	/* Replacing takes no memory. */
	if (list_empty(&e->same))
		hash_remove(table, key);
	else
		hash_put(table, key, list_entry(e->same.next, struct join_end, same));
	list_remove(&e->same);
}

static void end_free(struct join *j, struct join_end *e)
{
	leave_table(j, e);
	list_remove(&e->node);
	list_remove(&e->by_conn);
	j->count--;
	if (e->call)
		e->call->join = NULL;
	else
		e->request->join = NULL;
	link_call_put(e->call);
	link_request_put(e->request);
	free(e);
}

static struct join_end *first_of(struct list *list)
{
	return list_empty(list) ? NULL : list_entry(list->next, struct join_end, node);
}

/* Those that wait longest for what rather won't come. */
static void make_room(struct join *j)
{
	struct join_end *e = first_of(&j->over);

	if (!e)
		e = first_of(&j->waiting);
	if (!e)
		e = first_of(&j->open);
	if (e && j->count >= JOIN_ENDS_MAX)
		end_free(j, e);
}

static struct join_end *end_new(struct join *j, struct join_conn *k, struct call *c,
				struct request *r, const struct join_point *at)
{
	struct join_end *e, *same;

	make_room(j);
	e = calloc(1, sizeof(*e));
	if (!e) {
		stats_drop(j->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	list_init(&e->same);
	e->conn = k;
	e->call = link_call_get(c);
	e->request = link_request_get(r);
	e->at = *at;
	list_push(c ? &j->open : &j->waiting, &e->node);
	list_push(&k->ends, &e->by_conn);
	j->count++;
	if (c)
		c->join = e;
	else if (r)
		r->join = e;
	same = at->has_seq ? hash_get(table_of(j, e), key_of(at)) : NULL;
	if (same) {
		list_push(&same->same, &e->same);
	} else if (at->has_seq && !hash_put(table_of(j, e), key_of(at), e)) {
		stats_drop(j->stats, DROP_NO_MEMORY, 1);
		end_free(j, e);
		return NULL;
	}
	return e;
}

static void free_ends(struct join *j, struct list *list)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, list)
		end_free(j, list_entry(it, struct join_end, node));
}

void join_free(struct join *j)
{
	free_ends(j, &j->open);
	free_ends(j, &j->over);
	free_ends(j, &j->waiting);
	hash_free(&j->calls);
	hash_free(&j->requests);
	hash_free(&j->sockets);
}

/* --- connections --- */

static void part(struct join_conn *k)
{
	if (!k->pair)
		return;
	k->pair->pair = NULL;
	k->pair->counted = false;
	k->pair = NULL;
	k->counted = false;
}

static void pair(struct join_conn *k, struct join_conn *other)
{
	k->pair = other;
	other->pair = k;
}

void join_conn_open(struct join *j, struct join_conn *k, const struct conn_info *info)
{
	struct join_conn *old, *other;

	list_init(&k->ends);
	k->is_open = true;
	k->is_unix = info->family == CONN_UNIX;
	if (!k->is_unix || !info->socket || !info->peer_socket)
		return;
	k->socket = info->socket;
	k->peer_socket = info->peer_socket;
	old = hash_get(&j->sockets, k->socket);
	if (old)
		part(old); /* its end was not told */
	if (!hash_put(&j->sockets, k->socket, k)) {
		stats_drop(j->stats, DROP_NO_MEMORY, 1);
		return;
	}
	other = hash_get(&j->sockets, k->peer_socket);
	if (!other || other == k || other->peer_socket != k->socket)
		return;
	part(other);
	pair(k, other);
}

void join_conn_close(struct join *j, struct join_conn *k)
{
	struct list *it, *tmp;

	if (!k->is_open)
		return;
	list_each_safe(it, tmp, &k->ends) {
		struct join_end *e = list_entry(it, struct join_end, by_conn);

		list_remove(it);
		e->conn = NULL;
	}
	part(k);
	if (k->socket && hash_get(&j->sockets, k->socket) == k)
		hash_remove(&j->sockets, k->socket);
	k->is_open = false;
}

void join_conn_lost(struct join_conn *k)
{
	k->counted = false;
	if (!k->pair)
		return;
	if (k->is_unix)
		k->pair->counted = false;
	else
		part(k);
}

/* --- matching --- */

static void match(struct join *j, struct join_end *call, struct join_end *request)
{
	struct join_conn *a = call->conn, *b = request->conn;
	struct call *c = link_call_get(call->call);
	struct request *r = link_request_get(request->request);

	if (a && b && a != b && !a->is_unix && !a->pair && !b->pair)
		pair(a, b);
	if (a && a->is_unix) {
		a->counted = true;
		a->ahead = request->at.number - call->at.number;
	}
	end_free(j, call);
	end_free(j, request);
	link_join(j->linker, c, r);
	link_call_put(c);
	link_request_put(r);
}

static bool agree(const struct join_end *call, const struct join_end *request,
		  const struct join_conn *client)
{
	bool next = client->counted ? request->at.number == call->at.number + client->ahead
				    : call->at.first && request->at.first;

	/* Of a unix socket that is gone nobody may have told yet, and its name is another's. */
	if (client->is_unix)
		return next && call->at.alone && call->at.key == request->at.key &&
		       request->request->began_ns + LINK_JOIN_NS > call->call->began_ns;
	return call->at.has_seq && request->at.has_seq && call->at.seq == request->at.seq;
}

/* The other end of `e` on the connection that belongs to its own; *ret_count: how many fit. */
static struct join_end *find_in_pair(const struct join_end *e, uint32_t *ret_count)
{
	const struct join_conn *k = e->conn;
	struct join_end *found = NULL;
	struct list *it, *tmp;

	list_each_safe(it, tmp, &k->pair->ends) {
		struct join_end *other = list_entry(it, struct join_end, by_conn);

		if (!other->call == !e->call)
			continue;
		if (!(e->call ? agree(e, other, k) : agree(other, e, k->pair)))
			continue;
		found = other;
		++*ret_count;
	}
	return found;
}

/* The same by both numbers, on a connection whose other end isn't known. */
static struct join_end *find_by_numbers(struct join *j, const struct join_end *e,
					uint32_t *ret_count)
{
	struct join_end *first, *other, *found = NULL;

	if (!e->at.has_seq)
		return NULL;
	first = other = hash_get(e->call ? &j->requests : &j->calls, key_of(&e->at));
	while (other) {
		if (!other->conn || !other->conn->pair) {
			found = other;
			++*ret_count;
		}
		other = list_entry(other->same.next, struct join_end, same);
		if (other == first)
			break;
	}
	return found;
}

static void none(struct join *j, struct join_end *e)
{
	struct request *r = link_request_get(e->request);

	end_free(j, e);
	link_join_none(j->linker, r);
	link_request_put(r);
}

static struct join_end *find(struct join *j, struct join_end *e, uint32_t *ret_count)
{
	*ret_count = 0;
	return e->conn->pair ? find_in_pair(e, ret_count) : find_by_numbers(j, e, ret_count);
}

void join_call(struct join *j, struct join_conn *k, struct call *c, const struct join_point *at)
{
	struct join_end *e = end_new(j, k, c, NULL, at), *other;
	uint32_t count;

	if (!at->alone && k->is_unix)
		k->counted = false;
	other = e ? find(j, e, &count) : NULL;
	if (other && count == 1) {
		match(j, e, other);
		return;
	}
	for (; other; other = find(j, e, &count))
		none(j, other);
}

void join_request(struct join *j, struct join_conn *k, struct request *r,
		  const struct join_point *at)
{
	struct join_end *e = end_new(j, k, NULL, r, at), *other;
	uint32_t count;

	other = e ? find(j, e, &count) : NULL;
	if (other && count == 1)
		match(j, other, e);
	else if (other)
		none(j, e);
}

void join_call_over(struct join *j, struct join_conn *k, struct call *c, uint64_t now_ns, bool idle)
{
	struct join_end *e = c->join;

	if (e) {
		list_remove(&e->node);
		list_push(&j->over, &e->node);
		e->over_ns = now_ns;
	}
	/* Whatever was asked for is answered: what comes next at both ends belongs together. */
	if (idle && k->is_unix && k->pair) {
		k->counted = true;
		k->ahead = k->pair->last_number - k->last_number;
	}
}

void join_tick(struct join *j, uint64_t now_ns)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &j->over) {
		struct join_end *e = list_entry(it, struct join_end, node);

		if (now_ns < e->over_ns + JOIN_HOLD_NS)
			break;
		end_free(j, e);
	}
	list_each_safe(it, tmp, &j->waiting) {
		struct join_end *e = list_entry(it, struct join_end, node);

		if (!link_request_waits(e->request))
			end_free(j, e);
	}
}
