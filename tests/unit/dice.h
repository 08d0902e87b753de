/*
 * What the players of random servers share: dice that fall the same way for the same seed, ids that
 * count up, and a resource for every process. A test has one of each.
 */
#ifndef TESTS_UNIT_DICE_H
#define TESTS_UNIT_DICE_H

#include <stddef.h>
#include <stdint.h>

#include "trace/resource.h"

static uint32_t dice_seed;

static inline uint32_t roll(uint32_t n)
{
	dice_seed = dice_seed * 1664525u + 1013904223u;
	return (dice_seed >> 8) % n;
}

/* As struct tracer_ops has them. */
static inline struct resource *on_resource(void *ctx, uint32_t pid)
{
	(void)ctx;
	return resource_new(pid);
}

static inline void on_random(void *ctx, uint8_t *data, size_t len)
{
	static uint64_t last_id;
	uint64_t id = ++last_id;

	(void)ctx;
	while (len) {
		data[--len] = (uint8_t)id;
		id >>= 8;
	}
}

#endif
