#include "base/hash.h"

#include <stdlib.h>

enum { HASH_MIN_SLOTS = 16 };

/* The finalizer of MurmurHash3: every input bit reaches every output bit. */
static size_t mix(uint64_t k)
{
	k ^= k >> 33;
	k *= 0xff51afd7ed558ccdULL;
	k ^= k >> 33;
	k *= 0xc4ceb9fe1a85ec53ULL;
	k ^= k >> 33;
	return (size_t)k;
}

void hash_free(struct hash *h)
{
	free(h->slots);
	*h = (struct hash){ 0 };
}

/* The slot that holds `key`, or the free one where it belongs. The table must have a free slot. */
static size_t find(const struct hash *h, uint64_t key)
{
	size_t i = mix(key) & (h->cap - 1);

	while (h->slots[i].value && h->slots[i].key != key)
		i = (i + 1) & (h->cap - 1);
	return i;
}

void *hash_get(const struct hash *h, uint64_t key)
{
	return h->count ? h->slots[find(h, key)].value : NULL;
}

static bool grow(struct hash *h)
{
	struct hash bigger = { .cap = h->cap ? h->cap * 2 : HASH_MIN_SLOTS, .count = h->count };
	size_t i;

	bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
	if (!bigger.slots)
		return false;
	for (i = 0; i < h->cap; i++) {
		if (h->slots[i].value)
			bigger.slots[find(&bigger, h->slots[i].key)] = h->slots[i];
	}
	free(h->slots);
	*h = bigger;
	return true;
}

bool hash_put(struct hash *h, uint64_t key, void *value)
{
	size_t i;

	if (h->count * 4 >= h->cap * 3 && !grow(h))
		return false;
	i = find(h, key);
	if (!h->slots[i].value)
		h->count++;
	h->slots[i] = (struct hash_slot){ key, value };
	return true;
}

/* Empties slot i and moves back what probing had pushed past it. */
static void erase(struct hash *h, size_t i)
{
	size_t mask = h->cap - 1, j = i;

	h->slots[i].value = NULL;
	h->count--;
	for (;;) {
		size_t home;

		j = (j + 1) & mask;
		if (!h->slots[j].value)
			return;
		home = mix(h->slots[j].key) & mask;
		if (((j - home) & mask) >= ((j - i) & mask)) {
			h->slots[i] = h->slots[j];
			h->slots[j].value = NULL;
			i = j;
		}
	}
}

void *hash_remove(struct hash *h, uint64_t key)
{
	void *value;
	size_t i;

	if (!h->count)
		return NULL;
	i = find(h, key);
	value = h->slots[i].value;
	if (value)
		erase(h, i);
	return value;
}

bool hash_next(const struct hash *h, size_t *pos, uint64_t *ret_key, void **ret_value)
{
	size_t i;

	for (i = *pos; i < h->cap; i++) {
		if (!h->slots[i].value)
			continue;
		if (ret_key)
			*ret_key = h->slots[i].key;
		*ret_value = h->slots[i].value;
		*pos = i + 1;
		return true;
	}
	*pos = h->cap;
	return false;
}

void hash_remove_at(struct hash *h, size_t *pos)
{
	erase(h, --*pos);
}
