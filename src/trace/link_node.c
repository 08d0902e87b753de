/*
 * The nodes behind link_context.h: what is known of each context of a process, and which was copied
 * from which. It knows no rule. Invariant: a node in the table is at its address; a chain of
 * parents ends, holds every node that may still become a root, and gets no longer than that needs.
 */
#include <stdlib.h>

#include "trace/link_context.h"

enum { SPARE_TRIES = 64 }; /* how many claimed nodes are passed over to forget another one */

struct contexts *link_contexts_new(void)
{
	struct contexts *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	list_init(&x->nodes);
	list_init(&x->item_list);
	list_init(&x->pending);
	list_init(&x->calls);
	return x;
}

struct node *link_node_get(struct node *n)
{
	if (n)
		n->refs++;
	return n;
}

static void drop_meaning(struct node *n)
{
	link_request_put(n->request);
	link_request_put(n->reading);
	link_request_put(n->next);
	link_conn_put(n->task_of);
	link_call_put(n->within);
	n->request = n->reading = n->next = NULL;
	n->task_of = NULL;
	n->within = NULL;
	n->claim = CLAIM_NONE;
}

void link_node_put(struct contexts *x, struct node *n)
{
	while (n && --n->refs == 0) {
		struct node *parent = n->parent;

		drop_meaning(n);
		list_remove(&n->siblings);
		if (!n->forgotten) {
			list_remove(&n->birth);
			x->node_count--;
		}
		free(n);
		n = parent;
	}
}

static void leave_table(struct contexts *x, struct node *n)
{
	if (!n->address)
		return;
	hash_remove(&x->table, n->address);
	n->address = 0;
	link_node_put(x, n);
}

void link_node_leave(struct contexts *x, uint64_t address)
{
	struct node *n = hash_get(&x->table, address);

	if (n)
		leave_table(x, n);
}

/* Cuts a node off: what is below it comes from nowhere that we know. */
static void forget(struct contexts *x, struct node *n)
{
	struct list *it, *tmp;

	link_node_get(n);
	list_each_safe(it, tmp, &n->children) {
		struct node *child = list_entry(it, struct node, siblings);

		list_remove(&child->siblings);
		child->parent = NULL;
		n->refs--;
	}
	drop_meaning(n);
	n->forgotten = true;
	list_remove(&n->birth);
	x->node_count--;
	if (n->address) {
		hash_remove(&x->table, n->address);
		n->address = 0;
		n->refs--;
	}
	link_node_put(x, n);
}

static struct node *oldest(const struct contexts *x)
{
	return list_empty(&x->nodes) ? NULL : list_entry(x->nodes.next, struct node, birth);
}

/* The oldest that no open request has a claim on, or just the oldest. */
static void make_room(struct linker *l, struct contexts *x)
{
	struct node *n = oldest(x);
	int i;

	if (!n || x->node_count < CONTEXTS_MAX)
		return;
	for (i = 0; i < SPARE_TRIES && n->request && !n->request->ended; i++) {
		list_remove(&n->birth);
		list_push(&x->nodes, &n->birth);
		n = oldest(x);
	}
	stats_drop(l->stats, DROP_CONTEXT_LIMIT, 1);
	forget(x, n);
}

static struct node *make(struct linker *l, struct contexts *x, uint64_t address)
{
	struct node *n;

	make_room(l, x);
	n = calloc(1, sizeof(*n));
	if (!n || (address && !hash_put(&x->table, address, n))) {
		free(n);
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	n->refs = 1;
	n->address = address;
	n->number = ++x->next_number;
	list_init(&n->children);
	list_init(&n->siblings);
	list_init(&n->birth);
	list_push(&x->nodes, &n->birth);
	x->node_count++;
	return n;
}

struct node *link_node_of(struct linker *l, struct contexts *x, uint64_t address)
{
	struct node *n = hash_get(&x->table, address);

	return n ? n : make(l, x, address);
}

static void set_parent(struct contexts *x, struct node *n, struct node *parent)
{
	struct node *old = n->parent;

	if (old == parent)
		return;
	list_remove(&n->siblings);
	n->parent = link_node_get(parent);
	if (parent)
		list_push(&parent->children, &n->siblings);
	link_node_put(x, old);
}

/* The nearest ancestor of `n` that decides anything, for nodes that no request that is pending or
 * comes can have as its root. What those on the way tell goes to `n`. */
static struct node *nearest_meaning(struct node *n, struct node *parent)
{
	struct node *p = parent;

	while (p && p->claim == CLAIM_NONE && !p->task_of && !link_next_is(p) && !p->forgotten &&
	       !p->born_tid) {
		if (p->within && !n->within)
			n->within = link_call_get(p->within);
		if (n->maker == MAKER_ABOVE)
			n->maker = p->maker;
		p = p->parent;
	}
	return p;
}

/* Shortens the chain above the nodes that may still become roots. */
static void shorten(struct contexts *x, struct node *n, uint64_t oldest_head)
{
	struct node *top;
	int i;

	for (i = 0; n && n->seq >= oldest_head && i < CHAIN_MAX; i++)
		n = n->parent;
	if (!n || n->seq >= oldest_head || !n->parent)
		return;
	top = nearest_meaning(n, n->parent);
	set_parent(x, n, top);
}

struct node *link_node_new(struct linker *l, struct contexts *x, uint64_t address,
			   struct node *parent)
{
	struct node *old = address ? hash_get(&x->table, address) : NULL, *n;

	link_node_get(parent);
	if (old)
		leave_table(x, old);
	n = make(l, x, address);
	if (n) {
		n->seq = ++l->seq;
		n->maker = MAKER_ABOVE;
		if (list_empty(&x->pending)) {
			set_parent(x, n, nearest_meaning(n, parent));
		} else {
			const struct request *first =
				list_entry(x->pending.next, struct request, pending);

			n->depth = parent ? parent->depth + 1 : 0;
			if (n->depth % CHAIN_STEP == CHAIN_STEP - 1)
				shorten(x, parent, first->head_seq);
			set_parent(x, n, parent);
		}
	}
	link_node_put(x, parent);
	return n;
}

void link_node_claim(struct node *n, enum claim claim, struct request *r)
{
	link_request_get(r);
	link_request_put(n->request);
	n->request = r;
	n->claim = claim;
}

struct node *link_node_owned(struct node *n)
{
	struct node *doubtful = NULL;
	int i;

	for (i = 0; n && i < CHAIN_MAX; n = n->parent, i++) {
		if (n->claim != CLAIM_NONE || n->task_of)
			break;
		if (!link_next_is(n))
			continue;
		if (doubtful && doubtful->next != n->next)
			return doubtful;
		doubtful = doubtful ? doubtful : n;
	}
	/* What may be the next request's is, below that one's root. */
	return doubtful && !(n && n->request && n->request == doubtful->next) ? doubtful : n;
}

/* --- items of executors --- */

static void item_free(struct contexts *x, struct item *item)
{
	list_remove(&item->node);
	hash_remove(&x->items, item->key);
	link_node_put(x, item->origin);
	free(item);
}

struct item *link_item_put(struct linker *l, struct contexts *x, uint64_t key, struct node *origin)
{
	struct item *item = hash_get(&x->items, key);

	if (item)
		item_free(x, item);
	if (x->items.count >= ITEMS_MAX) {
		stats_drop(l->stats, DROP_CONTEXT_LIMIT, 1);
		item_free(x, list_entry(x->item_list.next, struct item, node));
	}
	item = calloc(1, sizeof(*item));
	if (!item || !hash_put(&x->items, key, item)) {
		free(item);
		stats_drop(l->stats, DROP_NO_MEMORY, 1);
		return NULL;
	}
	item->key = key;
	item->number = ++x->next_number;
	item->origin = link_node_get(origin);
	list_push(&x->item_list, &item->node);
	return item;
}

/* --- the end --- */

void link_contexts_clear(struct contexts *x)
{
	struct list *it, *tmp;
	size_t pos = 0;
	void *value;

	list_each_safe(it, tmp, &x->item_list)
		item_free(x, list_entry(it, struct item, node));
	while (hash_next(&x->births, &pos, NULL, &value))
		link_node_put(x, value);
	hash_free(&x->births);
	list_each_safe(it, tmp, &x->pending)
		link_claim_give_up(list_entry(it, struct request, pending), ROOT_NONE);
	/* Whoever still names one of these finds it forgotten. */
	list_each_safe(it, tmp, &x->nodes)
		forget(x, list_entry(it, struct node, birth));
	x->last_object = 0;
}

void link_contexts_free(struct contexts *x)
{
	if (!x)
		return;
	link_contexts_clear(x);
	hash_free(&x->items);
	hash_free(&x->table);
	free(x);
}
