/*
 * Map from a 64-bit key to a pointer: open addressing, linear probing, tombstone-free deletion. It
 * owns its table, never the values. Key 0 is allowed. NULL values are not.
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_slot {
	uint64_t key;
	void *value;
};

struct hash {
	struct hash_slot *slots;
	size_t cap; /* a power of two, or 0 */
	size_t count;
};

void hash_free(struct hash *h);
/* NULL when absent. */
void *hash_get(const struct hash *h, uint64_t key);
/* Inserts or replaces; false when out of memory, the map unchanged. */
bool hash_put(struct hash *h, uint64_t key, void *value);
/* The value that was there, NULL when none. */
void *hash_remove(struct hash *h, uint64_t key);
/*
 * Walks all entries: start with *pos = 0; false at the end. The entry just returned may be removed
 * only by hash_remove_at(), after which the same position is visited again.
 */
bool hash_next(const struct hash *h, size_t *pos, uint64_t *ret_key, void **ret_value);
void hash_remove_at(struct hash *h, size_t *pos);

#endif
