/*
 * Compares what the kernel side takes for the roots of requests with what their answers prove, and
 * tells how far it may be relied upon. It links nothing. Invariant: what a process was distrusted
 * in is never trusted again.
 */
#include "trace/link_trust.h"

#include <string.h>

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

void link_trust_bound(struct linker *l, const struct context_event *ev, struct node *n)
{
	struct link_conn *k = hash_get(&l->conns, ev->root_of);
	struct request *r = k ? read_last(k) : NULL;

	/* Of several in one read the kernel side can't know which. */
	if (!r || r->blocking || r->pipelined || !(ev->bound || ev->context))
		return;
	if (r->bound)
		return; /* of a request behind it that was not seen */
	r->bound = link_node_get(n);
	r->bound_surely = ev->bound;
	if (ev->context)
		r->bound_in = link_node_get(link_node_of(l, r->process->contexts, ev->context));
}

/* --- handlers: see link_trust.h --- */

static void tell_handlers(struct linker *l, const struct process *p)
{
	if (l->ops.handlers)
		l->ops.handlers(l->ops.ctx, p->pid, p->contexts->handlers);
}

/* The place of `address` (0: a free one) among the handlers; NULL: there is none. */
static uint64_t *handler_at(struct contexts *x, uint64_t address)
{
	for (size_t i = 0; i < TRACER_HANDLERS_MAX; i++) {
		if (x->handlers[i] == address)
			return &x->handlers[i];
	}
	return NULL;
}

void link_trust_reused(struct linker *l, struct process *p, uint64_t address)
{
	uint64_t *at = address ? handler_at(p->contexts, address) : NULL;

	if (!at)
		return;
	*at = 0;
	tell_handlers(l, p);
}

/* The root of `r` is a copy of r->bound_in. */
static void learn_handler(struct linker *l, const struct request *r)
{
	struct contexts *x = r->process->contexts;
	struct node *n = r->bound_in;
	uint64_t conn_id = r->conn->conn_id, *at;

	if (n->no_handler || !n->address)
		return;
	at = handler_at(x, n->address);
	if (!at && (!n->roots_conn || n->roots_conn == conn_id)) {
		n->roots_conn = conn_id;
		return;
	}
	if (!at)
		at = handler_at(x, 0);
	if (!at)
		return;
	*at = n->address;
	n->shared = true;
	tell_handlers(l, r->process);
	link_trust(l, r->process, TRACER_TRUST_CONTEXTS);
}

/* What was said of it is not so. */
static void unlearn_handler(struct linker *l, const struct request *r)
{
	r->bound_in->no_handler = true;
	link_trust_reused(l, r->process, r->bound_in->address);
}

void link_handlers_forget(struct linker *l, const struct process *p)
{
	uint64_t *handlers = p->contexts->handlers;
	bool any = false;

	for (size_t i = 0; i < TRACER_HANDLERS_MAX; i++)
		any = any || handlers[i];
	memset(handlers, 0, sizeof(p->contexts->handlers));
	if (any)
		tell_handlers(l, p);
}

/* --- */

void link_trust_root(struct linker *l, struct request *r, const struct node *root)
{
	if (!r->bound)
		return;
	if (r->bound_surely && root == r->bound)
		link_trust(l, r->process, TRACER_TRUST_CONTEXTS);
	else if (r->bound_surely)
		link_distrust(l, r->process, TRACER_TRUST_CONTEXTS);
	else if (r->bound_in && root == r->bound)
		learn_handler(l, r);
	else if (r->bound_in && root)
		unlearn_handler(l, r);
}

void link_trust_refused(struct linker *l, struct request *r, const struct node *n)
{
	if (n != r->bound_in)
		link_trust_root(l, r, NULL);
}
