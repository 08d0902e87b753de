/*
 * What the agent tells the kernel side without a program running: the values of the traced map, of
 * which neither side may lose the other's bits, and the constants of the sampler.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/ratio.h"
#include "check.h"
#include "event.h"
#include "probe/programs.h"
#include "probe/traced.h"
#include "trace/sample.h"

enum { PROCESSES_MAX = 2 };

static uint32_t value_of(int fd, uint32_t pid)
{
	uint32_t value = UINT32_MAX;

	bpf_map_lookup_elem(fd, &pid, &value);
	return value;
}

static void test_traced(void)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "traced", sizeof(uint32_t), sizeof(uint32_t),
				PROCESSES_MAX, NULL);
	uint32_t by_kernel = TRACED | TRACED_PYTHON | TRACED_SERVES | 7u << TRACED_SERVICE_SHIFT;
	uint32_t pid = 10;

	CHECK(fd >= 0);
	CHECK(traced_change(fd, pid, 0, TRACED_PYTHON) == -ESRCH);
	CHECK(traced_add(fd, pid, TRACED | TRACED_INJECT) == 0);
	CHECK(traced_add(fd, pid, TRACED) == -EEXIST);
	CHECK(value_of(fd, pid) == (TRACED | TRACED_INJECT));
	CHECK(traced_add(fd, 11, TRACED) == 0 && traced_add(fd, 12, TRACED) == -E2BIG);
	bpf_map_update_elem(fd, &pid, &by_kernel, BPF_EXIST);
	CHECK(traced_change(fd, pid, TRACED_CONTEXTS | TRACED_SILENT, TRACED_CONTEXTS) == 0);
	CHECK(value_of(fd, pid) == (by_kernel | TRACED_CONTEXTS));
	CHECK(traced_change(fd, pid, ~0u << TRACED_SERVICE_SHIFT, 9u << TRACED_SERVICE_SHIFT) == 0);
	CHECK(value_of(fd, pid) >> TRACED_SERVICE_SHIFT == 9);
	CHECK(traced_change(fd, pid, TRACED_PYTHON, 0) == 0);
	CHECK(value_of(fd, pid) ==
	      (TRACED | TRACED_SERVES | TRACED_CONTEXTS | 9u << TRACED_SERVICE_SHIFT));
	traced_remove(fd, pid);
	CHECK(traced_change(fd, pid, 0, TRACED) == -ESRCH && value_of(fd, pid) == UINT32_MAX);
	close(fd);
}

static struct probe_constants constants_of(struct probe_options o, bool requests)
{
	struct program_choice choice = { .collector = PROBE_COLLECTOR_SOCK, .requests = requests };
	struct probe_constants c;

	programs_constants(&o, &choice, &c);
	return c;
}

/* The kernel side's way of deciding (bpf/sample.bpf.h). */
static bool kernel_keeps(const struct probe_constants *c, const uint8_t *id)
{
	uint64_t value = 0;
	int i;

	for (i = 8; i < TRACE_ID_BYTES; i++)
		value = value << 8 | id[i];
	return c->sample == SAMPLE_ALL || (c->sample == SAMPLE_RATIO && value < c->sample_below);
}

static void test_ratio(double ratio)
{
	const struct sampler sampler = { .root = SAMPLER_TRACE_ID_RATIO, .ratio = ratio };
	const struct probe_constants c =
		constants_of((struct probe_options){ .sampler_root = SAMPLER_TRACE_ID_RATIO,
						     .sampler_ratio = ratio },
			     true);
	uint64_t seed = 88172645463325252ull;
	int i, k, differ = 0;

	for (i = 0; i < 20000; i++) {
		/* Around the bound as well, where a difference of one would show. */
		uint64_t value = i % 4 ? seed : c.sample_below + (uint64_t)(i % 16 / 4) - 2;
		uint8_t id[TRACE_ID_BYTES] = { 1 };

		for (k = 0; k < 8; k++)
			id[8 + k] = (uint8_t)(value >> (56 - 8 * k));
		differ += kernel_keeps(&c, id) != sampler_decide(&sampler, id, NULL);
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
	}
	CHECK_SAY(!differ, "ratio %g: %d of 20000 decisions differ", ratio, differ);
}

static void test_constants(void)
{
	static const double ratios[] = {
		0, 1e-300, 1e-19, 0.01, 0.1, 0.5, 0.999999999999, 1, 2, -1
	};
	struct probe_constants c = constants_of((struct probe_options){ 0 }, true);
	size_t i;

	for (i = 0; i < sizeof(ratios) / sizeof(ratios[0]); i++)
		test_ratio(ratios[i]);
	CHECK(c.sample == SAMPLE_ALL && !c.mute && c.requests && !c.inject && !c.tcp_option);
	c = constants_of((struct probe_options){ .sampler_root = SAMPLER_ALWAYS_OFF }, true);
	CHECK(c.sample == SAMPLE_NONE && c.mute);
	/* A parent may say no, or the limit. */
	CHECK(constants_of((struct probe_options){ .sampler_parent_based = true }, true).mute);
	CHECK(constants_of((struct probe_options){ .root_limit = 3 }, true).mute);
	/* Who keeps what failed has to see it; nobody is left out whose requests aren't known. */
	c = constants_of((struct probe_options){ .sampler_root = SAMPLER_ALWAYS_OFF,
						 .report_unsampled = true },
			 true);
	CHECK(!c.mute && c.sample == SAMPLE_NONE);
	CHECK(!constants_of((struct probe_options){ .root_limit = 3 }, false).mute);
}

int main(void)
{
	test_traced();
	test_constants();
	return check_result();
}
