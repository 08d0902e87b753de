/*
 * Which request a context belongs to, by the client that it says it serves: rule 7 of
 * link_context.h. It keeps the table of the connections by their peers. Invariant: a context is
 * given to a request only while nothing else speaks for or against it; where something does, what
 * it serves is nobody's.
 */
#include <string.h>

#include "trace/link_context.h"
#include "trace/link_trust.h"

/* --- connections by peer --- */

static uint64_t peer_key(uint32_t pid, const struct runtime_client *c)
{
	uint64_t h = 0xcbf29ce484222325 ^ (uint64_t)pid << 17 ^ c->port ^ (uint64_t)c->v6 << 16;
	size_t i;

	for (i = 0; i < sizeof(c->address); i++)
		h = (h ^ c->address[i]) * 0x100000001b3;
	return h;
}

static bool peer_is(const struct link_conn *k, uint32_t pid, const struct runtime_client *c)
{
	return k->pid == pid && k->peer.port == c->port && k->peer.v6 == c->v6 &&
	       memcmp(k->peer.address, c->address, sizeof(c->address)) == 0;
}

/* The same connection can't be there twice: the end of the older one was not told (nobody follows
 * it any more). */
static bool is_gone(const struct link_conn *old, const struct link_conn *k)
{
	return peer_is(old, k->pid, &k->peer) && old->local_port == k->local_port &&
	       memcmp(old->local, k->local, sizeof(k->local)) == 0;
}

void link_peer_open(struct linker *l, struct link_conn *k, const struct conn_info *info)
{
	struct link_conn *twin;
	uint64_t key;

	if (info->family == CONN_UNIX || !info->peer_port)
		return;
	k->peer = (struct runtime_client){ .known = true,
					   .v6 = info->family == CONN_INET6,
					   .port = info->peer_port };
	k->local_port = info->local_port;
	memcpy(k->peer.address, info->peer, k->peer.v6 ? 16 : 4);
	memcpy(k->local, info->local, k->peer.v6 ? 16 : 4);
	key = peer_key(k->pid, &k->peer);
	twin = hash_remove(&l->peers, key);
	if (twin && !is_gone(twin, k))
		twin->has_twin = k->has_twin = true;
	if (!hash_put(&l->peers, key, k))
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
}

void link_peer_close(struct linker *l, struct link_conn *k)
{
	uint64_t key = peer_key(k->pid, &k->peer);

	if (k->peer.known && hash_get(&l->peers, key) == k)
		hash_remove(&l->peers, key);
	link_request_put(k->last);
	k->last = NULL;
}

/* The one connection with this peer; NULL: none, or not the only one. */
static struct link_conn *conn_of(const struct linker *l, uint32_t pid,
				 const struct runtime_client *c)
{
	struct link_conn *k = hash_get(&l->peers, peer_key(pid, c));

	return k && peer_is(k, pid, c) && !k->has_twin ? k : NULL;
}

void link_peer_ended(struct link_conn *k, struct request *r)
{
	link_request_put(k->last);
	k->last = r->pipelined || r->behind_seq ? NULL : link_request_get(r);
}

/* --- rule 7 --- */

static struct request *only_open(const struct link_conn *k)
{
	return !list_empty(&k->requests) && k->requests.next == k->requests.prev
		       ? list_entry(k->requests.next, struct request, by_conn)
		       : NULL;
}

/* Two connections are served in one context: what is done there is nobody's. */
static void contradict(struct node *n)
{
	if (n->request && n->request->root != ROOT_TORN)
		link_claim_give_up(n->request, ROOT_TORN);
	link_node_claim(n, CLAIM_TORN, NULL);
}

/*
 * Is `from` no context of an earlier request of the connection? It isn't if it is older than the
 * first one. Of a connection that is older than what we know only the first one seen is known; then
 * it has to have led to work for different clients, which no request's context does.
 */
static bool hands_out(const struct link_conn *k, struct node *from)
{
	uint64_t key = peer_key(k->pid, &k->peer);

	if (!from)
		return k->fresh;
	if (from->seq >= k->first_seq)
		return false;
	from->hands_out = from->hands_out || (from->hands_to && from->hands_to != key);
	from->hands_to = key;
	return k->fresh || from->hands_out;
}

/* The furthest ancestor of `n` that was made in the time in which all that serves the connection
 * works for `r`; NULL: there is none, or it comes from something that may have served it before. */
static struct node *root_of(const struct link_conn *k, const struct request *r, struct node *n)
{
	uint64_t since = r->ended ? r->head_seq : link_since(r);
	uint64_t until = r->quit_seq ? r->quit_seq : r->end_seq;
	struct node *root = NULL;
	int i;

	for (i = 0; n && n->seq > since && i < CHAIN_MAX; n = n->parent, i++)
		root = n;
	if (!root || (until && root->seq > until))
		return NULL;
	return hands_out(k, n) ? root : NULL;
}

/* Gives the lineage of `n` to `r`; false when it has nothing to do with it. */
static bool claim(struct linker *l, struct request *r, struct node *n)
{
	struct contexts *x = r->process->contexts;
	struct node *root;

	if (!r->head_seq || r->blocking || (r->root == ROOT_NONE && !r->quit_seq))
		return false;
	root = root_of(r->conn, r, n);
	if (!root)
		return false;
	if (r->root == ROOT_KNOWN || r->root == ROOT_TORN ||
	    (r->root == ROOT_EARLY && r->early != root)) {
		link_claim_give_up(r, ROOT_TORN);
		link_node_claim(root, CLAIM_TORN, NULL);
		return true;
	}
	link_trust_root(l, r, root);
	link_node_claim(root, CLAIM_ROOT, r);
	r->by_client = true;
	link_next_rooted(r, root);
	r->root = ROOT_KNOWN;
	list_remove(&r->pending);
	x->claims_ever = true;
	return true;
}

void link_serves(struct linker *l, uint32_t pid, uint64_t context,
		 const struct runtime_client *client, uint64_t now_ns)
{
	struct process *p = link_process(l, pid);
	struct link_conn *k = conn_of(l, pid, client);
	struct node *n, *known;
	struct request *r;
	int i;

	if (!p || !p->contexts || !p->contexts->runtime || !context || !k)
		return;
	n = link_node_of(l, p->contexts, context);
	for (known = n, i = 0; known && known->claim == CLAIM_NONE && i < CHAIN_MAX; i++)
		known = known->parent;
	if (!n || (known && (known->claim == CLAIM_TORN || known->request->conn == k)))
		return;
	r = only_open(k);
	if (known)
		contradict(known);
	else if (!(r && claim(l, r, n)) && !(k->last && claim(l, k->last, n)) &&
		 n->seq > k->first_seq)
		link_node_claim(n, CLAIM_TORN, NULL);
	link_look(l, p, now_ns, false);
}
