/*
 * Compares what the kernel side takes for the roots of requests with what their answers prove, and
 * tells how far it may be relied upon. It links nothing. Invariant: what a process was distrusted
 * in is never trusted again.
 */
#include "trace/link_trust.h"

#include "trace/link_context.h"

static void tell(struct linker *l, struct process *p, uint32_t trust)
{
	if (trust == p->trust)
		return;
	p->trust = trust;
	p->trusted_ever = p->trusted_ever || trust;
	if (l->ops.trust)
		l->ops.trust(l->ops.ctx, p->pid, trust);
}

void link_trust(struct linker *l, struct process *p, uint32_t what)
{
	tell(l, p, p->trust | (what & ~p->distrust));
}

void link_distrust(struct linker *l, struct process *p, uint32_t what)
{
	p->distrust |= what;
	tell(l, p, p->trust & ~what);
}

void link_trust_reset(struct linker *l, struct process *p)
{
	p->distrust = 0;
	tell(l, p, 0);
}

/* Of the requests on the connection the last whose head was read. */
static struct request *read_last(const struct link_conn *k)
{
	struct list *it;

	for (it = k->requests.prev; it != &k->requests; it = it->prev) {
		struct request *r = list_entry(it, struct request, by_conn);

		if (r->head_seq)
			return r;
	}
	return NULL;
}

void link_trust_bound(struct linker *l, uint64_t conn_id, struct node *n)
{
	struct link_conn *k = hash_get(&l->conns, conn_id);
	struct request *r = k ? read_last(k) : NULL;

	/* Of several in one read the kernel side can't know which. */
	if (!r || !n || r->blocking || r->pipelined)
		return;
	if (r->bound)
		link_distrust(l, r->process, TRACER_TRUST_CONTEXTS);
	else
		r->bound = link_node_get(n);
}

void link_trust_root(struct linker *l, struct request *r, const struct node *root)
{
	if (!r->bound)
		return;
	if (root == r->bound)
		link_trust(l, r->process, TRACER_TRUST_CONTEXTS);
	else
		link_distrust(l, r->process, TRACER_TRUST_CONTEXTS);
}
