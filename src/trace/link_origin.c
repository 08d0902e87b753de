/*
 * Where things come from in a process with contexts: copies, items of executors and threads that
 * are handed on (link_context.h), and what a thread does now. It decides nothing. Invariant: what
 * was handed on at an address or number before means nothing once it is handed on anew.
 */
#include "trace/link_context.h"
#include "trace/link_trust.h"

/* --- where things come from --- */

/* A node for what a thread does in no context while it handles `r` (rule 4). */
static struct node *thread_node(struct linker *l, struct contexts *x, struct node *parent,
				struct request *r)
{
	struct node *n = link_node_new(l, x, 0, parent);

	if (n)
		link_node_claim(n, CLAIM_THREAD, r);
	return n;
}

static bool is_claimed(const struct node *n)
{
	int i;

	for (i = 0; n && i < CHAIN_MAX; n = n->parent, i++) {
		if (n->claim != CLAIM_NONE || n->task_of)
			return true;
	}
	return false;
}

struct node *link_origin_of(struct linker *l, struct process *p, uint32_t tid, uint64_t context,
			    const struct runtime_site *site)
{
	struct contexts *x = p->contexts;
	const struct thread *t = hash_get(&l->threads, tid);
	struct request *own = t && t->pid == p->pid && t->open == 1 ? t->handling : NULL;
	struct node *n = context ? link_node_of(l, x, context) : NULL;

	if (own && !own->head_read)
		own = NULL;
	if (n)
		return own && !is_claimed(n) ? thread_node(l, x, n, own) : link_node_get(n);
	/* Before the item: in a threaded server the item is the connection. */
	if (own)
		return thread_node(l, x, NULL, own);
	if (site && site->work) {
		const struct item *item = hash_get(&x->items, site->work);

		return item ? link_node_get(item->origin) : NULL;
	}
	if ((site && (site->pooled || site->cut)) || (t && t->pid == p->pid && t->open))
		return NULL;
	return link_node_get(hash_get(&x->births, tid));
}

struct call *link_within_by_lineage(const struct node *n)
{
	int i;

	for (i = 0; n && i < CHAIN_MAX; n = n->parent, i++) {
		if (n->claim == CLAIM_ROOT || n->claim == CLAIM_TORN)
			return NULL;
		if (n->within)
			return n->within;
	}
	return NULL;
}

uint64_t link_maker(uint64_t first, const struct node *n)
{
	uint64_t maker = first;
	int i;

	for (i = 0; maker == MAKER_ABOVE && i < CHAIN_MAX; n = n->parent, i++) {
		if (!n || n->claim == CLAIM_ROOT || n->claim == CLAIM_TORN || n->task_of)
			return 0;
		maker = n->maker;
		if (n->claim != CLAIM_NONE)
			break;
	}
	return maker == MAKER_ABOVE ? 0 : maker;
}

uint64_t link_item_maker(const struct contexts *x, uint64_t context,
			 const struct runtime_site *site, const struct node *origin)
{
	const struct item *item =
		!context && site && site->work && origin ? hash_get(&x->items, site->work) : NULL;

	return item && item->origin == origin ? item->maker : MAKER_ABOVE;
}

/* What the frames say of who hands something on. */
static uint64_t maker_of(const struct contexts *x, const struct context_event *ev,
			 const struct node *from)
{
	if (!ev->site)
		return MAKER_UNKNOWN;
	return ev->site->nobody ? link_item_maker(x, ev->context, ev->site, from)
				: ev->site->caller;
}

/* Where it was on nobody's behalf, what was left out above the node has said so already. */
static void set_maker(struct node *n, uint64_t maker)
{
	if (maker != MAKER_ABOVE)
		n->maker = maker;
}

/* The finalizer of splitmix64: one to one, and every bit counts. */
static uint64_t mix(uint64_t v)
{
	v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ULL;
	v = (v ^ v >> 27) * 0x94d049bb133111ebULL;
	return v ^ v >> 31;
}

uint64_t link_strand(struct linker *l, uint32_t pid, uint32_t tid, uint64_t context,
		     const struct runtime_site *site)
{
	const struct process *p = link_process(l, pid);
	struct contexts *x = p ? p->contexts : NULL;
	const struct thread *t = hash_get(&l->threads, tid);
	const struct node *n = x && x->runtime && context ? link_node_of(l, x, context) : NULL;
	const struct item *item = x && site && site->work ? hash_get(&x->items, site->work) : NULL;
	uint64_t strand = mix(n ? n->number << 1 : (uint64_t)tid << 1 | 1);

	if (t && t->pid == pid && t->handling)
		strand = mix(strand ^ t->handling->number);
	return item ? mix(strand + item->number) : strand;
}

bool link_is_handling(struct linker *l, uint32_t pid, uint64_t context)
{
	const struct process *p = link_process(l, pid);

	if (!p)
		return false;
	return p->open || (p->contexts && p->contexts->runtime && context &&
			   is_claimed(hash_get(&p->contexts->table, context)));
}

bool link_strand_over(const struct call *c, uint64_t context)
{
	const struct node *n = context ? hash_get(&c->process->contexts->table, context) : NULL;

	return n && n->task_of && n->task_of->last_end_seq > c->seq;
}

/* --- what is handed on --- */

static void on_copied(struct linker *l, struct process *p, const struct context_event *ev,
		      struct node *from, struct call *within)
{
	struct contexts *x = p->contexts;
	struct node *to = hash_get(&x->table, ev->object), *n;

	/* A way to make a context may lead over another one: told twice, made once. */
	if (to && ev->tid == x->last_tid && ev->object == x->last_object &&
	    ev->context == x->last_from && list_empty(&to->children))
		return;
	link_trust_reused(l, p, ev->object);
	n = link_node_new(l, x, ev->object, from);
	if (!n)
		return;
	set_maker(n, maker_of(x, ev, from));
	if (within) {
		link_call_get(within);
		link_call_put(n->within);
		n->within = within;
	}
	if (from)
		link_claim_copied(x, from, n, ev->root_of);
	if (ev->root_of)
		link_trust_bound(l, ev, n);
	link_next_copied(x, ev, from, n);
	x->last_tid = ev->tid;
	x->last_object = ev->object;
	x->last_from = ev->context;
}

static void on_born(struct linker *l, struct contexts *x, const struct context_event *ev,
		    struct node *from, struct call *within)
{
	uint32_t tid = (uint32_t)ev->object;
	struct node *n;

	link_node_put(x, hash_remove(&x->births, tid));
	n = from ? link_node_new(l, x, 0, from) : NULL;
	if (!n)
		return;
	n->born_tid = tid;
	set_maker(n, maker_of(x, ev, from));
	if (within && !n->within)
		n->within = link_call_get(within);
	if (!hash_put(&x->births, tid, n)) {
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
		link_node_put(x, n);
	}
}

static void on_submitted(struct linker *l, struct contexts *x, const struct context_event *ev,
			 struct node *from, struct call *within)
{
	struct node *n = from && within ? link_node_new(l, x, 0, from) : link_node_get(from);
	struct item *item;

	if (n && within && !n->within)
		n->within = link_call_get(within);
	item = link_item_put(l, x, ev->object, n);
	if (item)
		item->maker = maker_of(x, ev, from);
	link_node_put(x, n);
}

static void on_unknown(struct linker *l, struct process *p, const struct context_event *ev)
{
	struct contexts *x = p->contexts;
	struct node *from = ev->context ? hash_get(&x->table, ev->context) : NULL;

	if (ev->object != ev->context) {
		link_trust_reused(l, p, ev->object);
		link_node_leave(x, ev->object);
	}
	if (from) { /* that may have been the root */
		link_request_put(from->reading);
		from->reading = NULL;
	}
	x->last_object = 0;
}

void link_context(struct linker *l, const struct context_event *ev, struct call *within)
{
	struct process *p = link_process(l, ev->pid);
	struct contexts *x = p ? p->contexts : NULL;
	struct node *from;

	if (!x || !x->runtime || (ev->kind == CONTEXT_EVENT_COPIED && ev->object == ev->context))
		return;
	if (ev->kind == CONTEXT_EVENT_UNKNOWN) {
		on_unknown(l, p, ev);
		return;
	}
	from = link_origin_of(l, p, ev->tid, ev->context, ev->site);
	/* A thread that works for whoever comes says nothing by how it was made. */
	if (from && from->born_tid && !ev->context && !ev->site) {
		link_node_put(x, from);
		from = NULL;
	}
	switch (ev->kind) {
	case CONTEXT_EVENT_COPIED:
		on_copied(l, p, ev, from, within);
		break;
	case CONTEXT_EVENT_SUBMITTED:
		on_submitted(l, x, ev, from, within);
		break;
	case CONTEXT_EVENT_BORN:
		on_born(l, x, ev, from, within);
		break;
	case CONTEXT_EVENT_UNKNOWN:
		break;
	}
	link_node_put(x, from);
}

void link_birth_gone(struct contexts *x, uint32_t tid, uint64_t now_ns)
{
	struct node *n = hash_remove(&x->births, tid);

	if (!n)
		return;
	n->gone_ns = now_ns;
	link_node_put(x, n);
}

void link_births_end(struct contexts *x, uint64_t now_ns)
{
	struct list *it, *tmp;

	list_each_safe(it, tmp, &x->nodes) {
		struct node *n = list_entry(it, struct node, birth);

		if (n->gone_ns && now_ns < n->gone_ns + LINK_GRACE_NS)
			n->gone_ns = 0;
	}
}
