/*
 * The table of contexts and their owners: what is read is what was written last for that very
 * context, and nothing else, also while others write to the same places; what is not used goes
 * first. Its program runs with two sets of eight, so that nothing is ever far from anything.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>
#include <time.h>

#include "check.h"
#include "owner_table.skel.h"
#include "owner_table_call.h"

enum { SETS = 2, WAYS = 8, THREADS = 4, CONTEXTS = 24, ROUNDS = 500000, MEMORY = 1 };

static int program;

static int call(enum table_op op, uint64_t memory, uint64_t context,
		uint64_t owner[TABLE_OWNER_WORDS])
{
	struct table_call c = { .op = op, .memory = memory, .context = context, .result = -2 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = &c, .ctx_size_in = sizeof(c));

	memcpy(c.owner, owner, sizeof(c.owner));
	if (bpf_prog_test_run_opts(program, &opts) || opts.retval)
		return -3;
	memcpy(owner, c.owner, sizeof(c.owner));
	return c.result;
}

/* What `turn` writes for a context: no word of it is what another context or turn has. */
static void owner_make(uint64_t owner[TABLE_OWNER_WORDS], uint64_t memory, uint64_t context,
		       uint64_t turn)
{
	for (uint64_t i = 0; i < TABLE_OWNER_WORDS; i++)
		owner[i] = memory << 56 | context << 40 | turn << 8 | i;
}

static bool owner_is(const uint64_t owner[TABLE_OWNER_WORDS], uint64_t memory, uint64_t context)
{
	uint64_t expected[TABLE_OWNER_WORDS];

	owner_make(expected, memory, context, owner[0] >> 8 & 0xffffffff);
	return !memcmp(owner, expected, sizeof(expected));
}

static int write_owner(uint64_t memory, uint64_t context, uint64_t turn)
{
	uint64_t owner[TABLE_OWNER_WORDS];

	owner_make(owner, memory, context, turn);
	return call(TABLE_WRITE, memory, context, owner);
}

static int read_owner(uint64_t memory, uint64_t context)
{
	uint64_t owner[TABLE_OWNER_WORDS] = { 0 };
	int found = call(TABLE_READ, memory, context, owner);

	if (found == 1)
		CHECK(owner_is(owner, memory, context));
	return found;
}

static int forget_owner(uint64_t memory, uint64_t context)
{
	uint64_t owner[TABLE_OWNER_WORDS] = { 0 };

	return call(TABLE_FORGET, memory, context, owner);
}

static void check_one(void)
{
	check_scene = "one after the other";
	CHECK(read_owner(MEMORY, 1) == 0);
	CHECK(write_owner(MEMORY, 1, 1) == 0);
	CHECK(read_owner(MEMORY, 1) == 1);
	CHECK(write_owner(MEMORY, 1, 1) == 1); /* the very same */
	CHECK(write_owner(MEMORY, 1, 2) == 0);
	CHECK(read_owner(MEMORY, 1) == 1);
	CHECK(read_owner(MEMORY + 1, 1) == 0); /* another process */
	CHECK(write_owner(MEMORY + 1, 1, 3) == 0);
	CHECK(read_owner(MEMORY, 1) == 1);
	CHECK(forget_owner(MEMORY, 1) == 0);
	CHECK(forget_owner(MEMORY, 2) == 0);
	CHECK(read_owner(MEMORY, 1) == 0);
	CHECK(read_owner(MEMORY + 1, 1) == 1);
	CHECK(forget_owner(MEMORY + 1, 1) == 0);
}

/* A clock of the kernel's that moves every 10 ms at the slowest. */
static void tick(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 25000000 }, NULL);
}

static void check_full(void)
{
	uint64_t context;
	int kept = 0;

	check_scene = "full";
	for (context = 1; context <= 4; context++)
		CHECK(write_owner(MEMORY, context, 1) == 0);
	tick();
	for (context = 100; context < 200; context++) {
		CHECK(write_owner(MEMORY, context, 1) == 0);
		CHECK(read_owner(MEMORY, context) == 1);
		if (context % 4 == 0)
			tick();
		for (uint64_t used = 1; used <= 4; used++)
			CHECK_SAY(read_owner(MEMORY, used) == 1, "%d was used and is gone at %d",
				  (int)used, (int)context);
	}
	for (context = 100; context < 200; context++)
		kept += read_owner(MEMORY, context) == 1;
	CHECK_SAY(kept <= SETS * WAYS - 4, "%d", kept);
	CHECK_SAY(kept >= WAYS - 4, "%d", kept);
	for (context = 1; context < 200; context++)
		CHECK(forget_owner(MEMORY, context) == 0);
}

struct worker {
	pthread_t thread;
	uint32_t number;
	uint32_t wrong, found, own_lost, failed;
};

/* Contexts of its own, that nobody else writes, and those of the others. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint32_t seed = w->number + 1, round;

	for (round = 1; round <= ROUNDS; round++) {
		uint64_t owner[TABLE_OWNER_WORDS] = { 0 };
		uint64_t context = 1 + (uint64_t)(rand_r(&seed) % CONTEXTS);
		uint64_t memory = 1 + (uint64_t)(rand_r(&seed) % THREADS);
		int found;

		if (memory == w->number + 1 && rand_r(&seed) % 8 == 0) {
			w->failed += forget_owner(memory, context) != 0;
			continue;
		}
		if (memory == w->number + 1) {
			owner_make(owner, memory, context, round);
			found = call(TABLE_WRITE, memory, context, owner);
			w->failed += found != 0 && found != -1;
			found = call(TABLE_READ, memory, context, owner);
			/* It may be gone, but then it is not the one before. */
			w->wrong += found == 1 && (owner[0] >> 8 & 0xffffffff) != round;
			w->own_lost += found != 1;
		} else {
			found = call(TABLE_READ, memory, context, owner);
		}
		w->failed += found != 0 && found != 1;
		w->found += found == 1;
		w->wrong += found == 1 && !owner_is(owner, memory, context);
	}
	return NULL;
}

static void check_many(void)
{
	struct worker workers[THREADS] = { 0 };
	uint32_t i;

	check_scene = "all at once";
	for (i = 0; i < THREADS; i++) {
		workers[i].number = i;
		CHECK(!pthread_create(&workers[i].thread, NULL, work, &workers[i]));
	}
	for (i = 0; i < THREADS; i++) {
		const struct worker *w = &workers[i];

		pthread_join(w->thread, NULL);
		CHECK_SAY(!w->wrong, "%u of %u owners that were found are not the context's",
			  w->wrong, w->found);
		CHECK_SAY(!w->failed, "%u calls failed", w->failed);
		CHECK_SAY(w->found > ROUNDS / 20, "only %u were found", w->found);
		CHECK_SAY(w->own_lost < ROUNDS / 20, "%u were gone at once", w->own_lost);
	}
}

int main(void)
{
	struct owner_table *table = owner_table__open_and_load();

	if (!table)
		check_skip("loading the programs failed (are you root?)");
	program = bpf_program__fd(table->progs.table_call);
	check_one();
	check_full();
	check_many();
	owner_table__destroy(table);
	return check_result();
}
