/*
 * Which request a context belongs to: the rules 1 to 3 of link_context.h. Invariant: a request in
 * contexts.pending has its head complete and its root open; one whose root is torn keeps its
 * claims, so that what comes from there is known to be doubtful.
 */
#include <stdlib.h>

#include "trace/link_context.h"
#include "trace/link_settle.h"
#include "trace/link_trust.h"

/* --- connections --- */

struct link_conn *link_conn_get(struct linker *l, uint32_t pid, uint64_t conn_id)
{
	struct link_conn *k = hash_get(&l->conns, conn_id);

	if (k)
		return k;
	k = calloc(1, sizeof(*k));
	if (!k || !hash_put(&l->conns, conn_id, k)) {
		free(k);
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	k->refs = 1;
	k->pid = pid;
	k->conn_id = conn_id;
	list_init(&k->requests);
	return k;
}

void link_conn_put(struct link_conn *k)
{
	if (k && --k->refs == 0)
		free(k);
}

void link_conn_close(struct linker *l, uint64_t conn_id)
{
	struct link_conn *k = hash_remove(&l->conns, conn_id);

	if (!k)
		return;
	k->closed = true;
	link_peer_close(l, k);
	link_conn_put(k);
}

void link_conn_read(struct linker *l, uint32_t pid, uint64_t conn_id, uint64_t context)
{
	struct process *p = context ? link_process(l, pid) : NULL;
	struct node *n;

	if (!p || !p->contexts || !p->contexts->runtime)
		return;
	n = link_node_of(l, p->contexts, context);
	if (!n || n->reads_conn == conn_id)
		return;
	if (n->reads_conn && hash_get(&l->conns, n->reads_conn))
		n->reads_many = true;
	n->reads_conn = conn_id;
}

static struct request *first_of(const struct link_conn *k)
{
	return list_empty(&k->requests) ? NULL
					: list_entry(k->requests.next, struct request, by_conn);
}

struct request *link_task_request(const struct node *n)
{
	struct request *r = n->task_of ? first_of(n->task_of) : NULL;

	return r && r->task == n ? r : NULL;
}

/* --- a request's life --- */

void link_claim_begin(struct linker *l, struct request *r, const struct exchange *ex)
{
	const struct contexts *x = r->process->contexts;
	const struct conn_info *info = &ex->conn->info;
	bool is_new = !hash_get(&l->conns, info->conn_id);

	if (!x || !x->runtime)
		return;
	r->conn = link_conn_get(l, ex->pid, info->conn_id);
	if (!r->conn)
		return;
	r->conn->refs++;
	if (is_new) {
		r->conn->fresh = (info->flags & CONN_FRESH) && info->ts_ns > x->began_ns;
		r->first =
			r->conn->fresh && !r->conn->last_end_seq && list_empty(&r->conn->requests);
		link_peer_open(l, r->conn, info);
	}
	list_push(&r->conn->requests, &r->by_conn);
}

uint64_t link_since(const struct request *r)
{
	uint64_t end = r->conn->last_end_seq;

	return end > r->head_seq ? end : r->head_seq;
}

void link_request_head(struct linker *l, struct request *r, uint64_t context)
{
	struct contexts *x = r->process->contexts;
	struct list *it, *tmp;
	struct node *n;

	r->head_read = true;
	link_settle_head(l, r);
	if (!r->conn || r->head_seq)
		return;
	r->head_seq = ++l->seq;
	if (!r->conn->first_seq)
		r->conn->first_seq = r->head_seq;
	x->last_object = 0;
	r->rested = r->conn->last_end_ns && r->began_ns > r->conn->last_end_ns + LINK_PAUSE_NS;
	list_each_safe(it, tmp, &r->conn->requests) {
		struct request *before = list_entry(it, struct request, by_conn);

		if (before == r)
			break;
		r->pipelined = true;
		if (!before->behind_seq)
			before->behind_seq = r->head_seq;
	}
	if (r->blocking || r->root != ROOT_OPEN)
		return;
	list_push(&x->pending, &r->pending);
	n = context && !r->pipelined && !x->early_wrong ? link_node_of(l, x, context) : NULL;
	if (!n || n->reads_many || n->reads_conn != r->conn->conn_id)
		return;
	link_request_get(r);
	link_request_put(n->reading);
	n->reading = r;
}

/* What rule 2 gave away while a request was pending that found no root may have been its own, if
 * its connection has no task that would have done it. */
static void doubt_weak(struct contexts *x, const struct request *r)
{
	struct list *it, *tmp;

	if (!x->weak_ever || r->conn->has_task)
		return;
	list_each_safe(it, tmp, &x->nodes) {
		struct node *n = list_entry(it, struct node, birth);

		if (n->claim == CLAIM_WEAK && n->seq > r->head_seq && n->request != r)
			link_node_claim(n, CLAIM_TORN, NULL);
	}
}

void link_claim_give_up(struct request *r, enum root root)
{
	struct contexts *x = r->process->contexts;

	r->root = root;
	list_remove(&r->pending);
	if (r->head_seq)
		doubt_weak(x, r);
}

static void forget_nodes(struct contexts *x, struct request *r)
{
	link_node_put(x, r->early);
	link_node_put(x, r->task);
	link_node_put(x, r->bound);
	link_node_put(x, r->bound_in);
	r->early = r->task = r->bound = r->bound_in = NULL;
}

void link_claim_end(struct linker *l, struct request *r)
{
	struct contexts *x = r->process->contexts;

	if (!r->conn)
		return;
	r->end_seq = ++l->seq;
	r->conn->last_end_seq = r->end_seq;
	r->conn->last_end_ns = r->ended_ns;
	list_remove(&r->by_conn);
	if (r->root == ROOT_OPEN) {
		r->quit_seq = r->end_seq;
		link_claim_give_up(r, ROOT_NONE);
	}
	if (!r->conn->closed)
		link_peer_ended(r->conn, r);
	forget_nodes(x, r);
}

void link_claims_lost(struct linker *l, struct process *p)
{
	struct contexts *x = p->contexts;
	struct list *it, *tmp;
	size_t pos = 0;
	void *value;

	list_each_safe(it, tmp, &p->requests) {
		struct request *r = list_entry(it, struct request, node);

		list_remove(&r->pending);
		forget_nodes(x, r);
		r->root = ROOT_NONE;
	}
	while (hash_next(&l->conns, &pos, NULL, &value)) {
		struct link_conn *k = value;

		if (k->pid == p->pid)
			k->fresh = false;
	}
}

/* --- rule 3, and copies of a connection's own task --- */

void link_claim_copied(struct contexts *x, struct node *from, struct node *to, uint64_t root_of)
{
	struct request *r = from->reading, *current = link_task_request(from);

	from->reading = NULL;
	if (r && root_of && root_of != r->conn->conn_id) {
		link_request_put(r); /* of one that isn't reported */
		return;
	}
	if (r && r->root == ROOT_OPEN && !r->ended && !from->reads_many && !x->early_wrong) {
		link_node_claim(to, CLAIM_ROOT, r);
		r->root = ROOT_EARLY;
		r->early = link_node_get(to);
		list_remove(&r->pending);
	} else if (current) {
		link_node_claim(to, CLAIM_WEAK, current);
	}
	link_request_put(r);
}

void link_claim_called(struct contexts *x, const struct call *c)
{
	const struct node *n = c->origin;
	const struct request *next;
	uint64_t made = c->seq;
	int i;

	for (i = 0; n && n->claim == CLAIM_NONE && !n->task_of && i < CHAIN_MAX; n = n->parent, i++)
		made = n->seq;
	if (!n || !n->task_of || n->claim != CLAIM_NONE || n->task_of->closed ||
	    !n->task_of->last_end_seq)
		return;
	next = first_of(n->task_of);
	if (made > n->task_of->last_end_seq && (!next || !next->head_seq || made < next->head_seq))
		x->tails = true;
}

/* --- rules 1 and 2 --- */

/* Two answers to the question. */
static void tear(struct request *r)
{
	struct contexts *x = r->process->contexts;

	if (r->root == ROOT_EARLY)
		x->early_wrong = true;
	link_claim_give_up(r, ROOT_TORN);
}

static void confirm(struct request *r)
{
	struct contexts *x = r->process->contexts;

	if (r->root == ROOT_EARLY)
		x->early_proven = true;
	r->root = ROOT_KNOWN;
	list_remove(&r->pending);
	x->claims_ever = true;
}

/* Its answer came out of `root`. */
static void prove(struct request *r, struct node *root)
{
	link_node_claim(root, CLAIM_ROOT, r);
	confirm(r);
	link_next_rooted(r, root);
}

/* The root of another connection's request, of which all of `n` comes; NULL: there is none. */
static struct node *foreign(struct node *n, const struct request *r)
{
	n = link_node_owned(n);
	return n && n->claim == CLAIM_ROOT && n->request->conn != r->conn ? n : NULL;
}

/* Rule 1: the answer was written in `n`, which is younger than the request could have begun. */
static void claim_root(struct linker *l, struct request *r, struct node *n, uint64_t since)
{
	struct contexts *x = r->process->contexts;
	struct node *root = n, *rival = NULL;

	for (; n && n->seq > since; n = n->parent) {
		root = n;
		if (n->task_of && n->task_of != r->conn) {
			x->workers = true; /* and not the task of that connection */
			rival = n;
		}
		if (n->claim == CLAIM_WEAK && n->request != r)
			link_node_claim(n, CLAIM_NONE, NULL);
		if (n->claim != CLAIM_NONE && n->request != r)
			rival = n;
	}
	rival = rival ? rival : foreign(n, r);
	if (rival) {
		x->crossed = true;
		link_node_claim(rival, CLAIM_TORN, NULL);
	}
	link_trust_root(l, r, rival ? NULL : root);
	if (rival)
		link_distrust(l, r->process, TRACER_TRUST_CONTEXTS);
	if (rival || (r->root == ROOT_EARLY && r->early != root)) {
		tear(r);
		return;
	}
	prove(r, root);
	/* Made by the request before, behind its end: what else comes from there is told apart. */
	n = root->parent;
	if (r->pipelined && n && n->claim == CLAIM_ROOT && n->request->conn == r->conn)
		n->request->behind_seq = 0;
}

/* Calls that the connection's task made itself since the request could have begun. */
static void claim_own_calls(struct linker *l, struct request *r, struct node *task, uint64_t since)
{
	struct contexts *x = r->process->contexts;
	struct list *it, *tmp;

	list_each_safe(it, tmp, &x->calls) {
		struct call *c = list_entry(it, struct call, node);
		struct node *own;

		if (c->origin != task || c->seq <= since)
			continue;
		own = link_node_new(l, x, 0, task);
		if (!own)
			continue;
		own->seq = c->seq;
		link_node_claim(own, CLAIM_WEAK, r);
		link_node_put(x, c->origin);
		c->origin = own;
	}
}

/* Rule 2: makes `n` the own task of the request's connection; false when it is none. */
static bool bind_task(struct request *r, struct node *n)
{
	struct contexts *x = r->process->contexts;
	bool bound = n->task_of == r->conn;

	if (n->task_of && !bound && !n->task_of->closed) {
		struct request *other = link_task_request(n);

		x->workers = n->shared = true;
		link_node_claim(n, CLAIM_TORN, NULL);
		if (other)
			tear(other);
		tear(r);
		return false;
	}
	r->conn->refs++;
	link_conn_put(n->task_of);
	n->task_of = r->conn;
	if (r->root == ROOT_EARLY && r->early->parent != n) {
		tear(r);
		return false;
	}
	/* Older than all we know on a connection that is not: rather a worker. Where both are, its
	 * first answer only shows that it may be the connection's. */
	if (x->workers || (!n->seq && (r->conn->fresh || !bound))) {
		link_claim_give_up(r, ROOT_NONE);
		return false;
	}
	return true;
}

static void claim_task(struct linker *l, struct request *r, struct node *n, uint64_t since)
{
	struct contexts *x = r->process->contexts;
	bool bound = bind_task(r, n);
	struct list *it, *tmp;

	link_trust_refused(l, r, n);
	if (!bound)
		return;
	r->conn->has_task = true;
	r->task = link_node_get(n);
	x->weak_ever = true;
	x->rests = x->rests || r->rested;
	list_each_safe(it, tmp, &n->children) {
		struct node *child = list_entry(it, struct node, siblings);

		if (child->seq > since && child->claim == CLAIM_NONE)
			link_node_claim(child, CLAIM_WEAK, r);
	}
	claim_own_calls(l, r, n, since);
	confirm(r);
}

/* The answer was written in a context that is older than the request. */
static void claim_by_older(struct linker *l, struct request *r, struct node *n, uint64_t since)
{
	struct contexts *x = r->process->contexts;
	struct node *owned = n;

	/* What answers there is no work of the request's: it was refused where it was read. */
	if (n->shared) {
		link_trust_refused(l, r, n);
		if (r->root == ROOT_EARLY)
			tear(r);
		else
			link_claim_give_up(r, ROOT_NONE);
		return;
	}
	while (owned && owned->claim == CLAIM_NONE && !owned->task_of)
		owned = owned->parent;
	if (!owned || owned->claim == CLAIM_NONE) {
		claim_task(l, r, n, since);
		return;
	}
	if (!owned->request || owned->request->conn != r->conn) {
		x->workers = x->workers || owned->claim != CLAIM_TORN;
		x->crossed = true;
		link_distrust(l, r->process, TRACER_TRUST_CONTEXTS);
		link_node_claim(n, CLAIM_TORN, NULL);
		tear(r);
		return;
	}
	if (owned != n && r->pipelined) {
		/* It was made for this one while the answer before was still on its way. */
		if (r->root == ROOT_EARLY) {
			tear(r);
			return;
		}
		prove(r, n);
		return;
	}
	/* It goes on from request to request. */
	if (owned == n)
		link_node_claim(n, CLAIM_NONE, NULL);
	claim_task(l, r, n, since);
}

void link_request_root(struct linker *l, struct request *r, uint64_t context, uint64_t now_ns)
{
	struct contexts *x = r->process->contexts;
	struct node *n;
	uint64_t since;

	if (!r->conn || r->blocking || (r->root != ROOT_OPEN && r->root != ROOT_EARLY) ||
	    r->answer_seen)
		return;
	r->answer_seen = true;
	r->answer_seq = ++l->seq;
	n = context && r->head_seq ? link_node_of(l, x, context) : NULL;
	if (!n) {
		x->answers_bare = x->answers_bare || !context;
		if (r->root == ROOT_OPEN) {
			r->quit_seq = ++l->seq;
			link_claim_give_up(r, ROOT_NONE);
		}
	} else {
		since = link_since(r);
		if (n->seq > since)
			claim_root(l, r, n, since);
		else
			claim_by_older(l, r, n, since);
	}
	link_look(l, r->process, now_ns, false);
}
