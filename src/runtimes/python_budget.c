/*
 * What reading a process may cost. The process itself decides how much there is to read, and may
 * hold lists that lead back to themselves; who reads is one loop for all processes. So each has
 * processor time that comes back slowly: some for a look at all of it, a trickle for what follows.
 * Invariant: once a question has used up its time every read of it fails, and the process is marked
 * as one of which not all is known.
 */
#include "runtimes/python_internal.h"

#include <stdlib.h>
#include <time.h>

/* Processor time. A FastAPI application is read in 15 to 30 ms, a thousand routes in 12, a route
 * that is known in microseconds. */
#define OPEN_NS 500000000
#define LOOK_NS 100000000     /* one that comes by time; has it even when nothing is left */
#define QUESTION_NS 200000000 /* one that a span or the kernel side asks */
#define REGAIN 20             /* a 20th of the time that passes */

enum { LOOK_AT_CLOCK = 64 /* reads between two looks at the clock */ };

struct python_budget {
	int64_t left_ns;   /* may be below 0: looks are not put off */
	int64_t limit_ns;  /* of this question */
	uint64_t since_ns; /* CLOCK_MONOTONIC, when left_ns was brought up to date */
	uint64_t begun_ns; /* of our own time */
	uint32_t reads;    /* since the last look at the clock */
	bool spent;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool python_budget_make(struct python *p)
{
	p->budget = (struct python_budget *)calloc(1, sizeof(*p->budget));
	if (!p->budget)
		return false;
	p->budget->left_ns = p->budget->limit_ns = OPEN_NS;
	p->budget->since_ns = clock_ns(CLOCK_MONOTONIC);
	p->budget->begun_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	return true;
}

void python_budget_begin(struct python *p, bool look)
{
	struct python_budget *b = p->budget;
	uint64_t now_ns;

	if (!b)
		return;
	now_ns = clock_ns(CLOCK_MONOTONIC);
	b->left_ns += (int64_t)((now_ns - b->since_ns) / REGAIN);
	if (b->left_ns > OPEN_NS)
		b->left_ns = OPEN_NS;
	b->since_ns = now_ns;
	b->limit_ns = look ? LOOK_NS : b->left_ns < QUESTION_NS ? b->left_ns : QUESTION_NS;
	b->begun_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	b->reads = 0;
	b->spent = b->limit_ns <= 0;
}

static int64_t used_ns(const struct python_budget *b)
{
	return (int64_t)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - b->begun_ns);
}

bool python_budget_take(const struct python *p, size_t reads)
{
	struct python_budget *b = p->budget;

	if (!b)
		return true;
	b->reads += (uint32_t)reads;
	if (b->reads >= LOOK_AT_CLOCK && !b->spent) {
		b->reads = 0;
		b->spent = used_ns(b) > b->limit_ns;
	}
	return !b->spent;
}

bool python_budget_spent(const struct python *p)
{
	return p->budget && p->budget->spent;
}

bool python_budget_end(struct python *p)
{
	if (!p->budget)
		return true;
	p->budget->left_ns -= used_ns(p->budget);
	p->base.cut = p->base.cut || p->budget->spent;
	return !p->budget->spent;
}
