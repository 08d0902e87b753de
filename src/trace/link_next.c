/*
 * Where the work for one request may go over into the next one on its connection: a server that is
 * not done with the first may begin the second in there. Invariant: a copy that may be the root of
 * the next request is nobody's until that request's answer tells, and for good where it doesn't or
 * was already there.
 */
#include "trace/link_context.h"

void link_next_copied(const struct linker *l, const struct context_event *ev, struct node *from,
		      struct node *to)
{
	struct link_conn *k;

	if (!ev->root_of || ev->bound)
		return;
	from = link_node_owned(from);
	k = from && from->request ? from->request->conn : NULL;
	if (!k || k->conn_id != ev->root_of)
		return;
	to->may_be_next = true;
	k->next_seq = l->seq;
}

void link_next_elsewhere(struct request *r, struct node *origin)
{
	struct contexts *x = r->process->contexts;
	struct node *former;
	struct list *it;
	int i = 0;

	if (!origin || x->workers || x->crossed || r->conn->next_seq <= r->head_seq ||
	    r->behind_seq || link_node_owned(origin))
		return;
	for (it = x->nodes.prev; it != &x->nodes && i++ < CHAIN_MAX; it = it->prev) {
		struct node *n = list_entry(it, struct node, birth);

		if (n->seq <= r->head_seq || !n->may_be_next)
			continue;
		former = link_node_owned(n->parent);
		if (former && former->request && former->request->conn == r->conn &&
		    former->parent == origin)
			n->may_be_next = false;
	}
}
