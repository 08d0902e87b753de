/*
 * Where the work for one request may go over into the next one on its connection: a server that is
 * not done with the first may begin the second in there. Invariant: a copy that may be the root of
 * the next request is nobody's until that request's answer tells, and for good where it doesn't.
 */
#include "trace/link_context.h"

/* The oldest open request on the connection but `former` whose head was read; NULL: none. */
static struct request *next_of(const struct link_conn *k, const struct request *former)
{
	struct list *it;

	for (it = k->requests.next; it != &k->requests; it = it->next) {
		struct request *r = list_entry(it, struct request, by_conn);

		if (r != former && r->head_seq)
			return r;
	}
	return NULL;
}

/* What a client has got of an answer may be all of it before the server knows: it is not done with
 * the request until then. (Where rule 7 finds roots, threads that are not the runtime's begin all
 * requests.) */
static bool ended_before(const struct node *former, const struct request *next)
{
	return former->claim == CLAIM_ROOT && former->request->end_seq &&
	       !former->request->by_client && next && next->root == ROOT_OPEN;
}

void link_next_copied(const struct contexts *x, const struct context_event *ev, struct node *from,
		      struct node *to)
{
	const struct link_conn *k;
	struct request *next;

	if (ev->bound || (!ev->root_of && list_empty(&x->pending)))
		return;
	from = link_node_owned(from);
	k = from && from->request ? from->request->conn : NULL;
	if (!k || (ev->root_of && ev->root_of != k->conn_id))
		return;
	next = next_of(k, from->request);
	if (!ev->root_of && !ended_before(from, next))
		return;
	to->may_be_next = true;
	to->next = link_request_get(next);
	to->next_beside = from->parent ? from->parent->number : 0;
}

void link_next_rooted(struct request *r, const struct node *root)
{
	struct node *origin = root->parent;
	const struct node *owned = link_node_owned(origin);

	r->root_seq = root->seq;
	if (origin && (!owned || (owned == origin && (owned->task_of || owned->shared))))
		r->root_from = origin->number;
}

bool link_next_is(const struct node *n)
{
	const struct request *r = n->next;
	const struct contexts *x = r ? r->process->contexts : NULL;

	if (!n->may_be_next)
		return false;
	if (!x || !r->root_seq || x->workers || x->crossed)
		return true;
	if (n->seq > r->root_seq) /* whoever made it was done with the request before by then */
		return false;
	/* Nor would it have begun one that is behind that one. */
	return !r->root_from || r->root_from != n->next_beside;
}
