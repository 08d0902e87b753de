/*
 * Native custom spans against the truth: functions of this very program are found in its file, a
 * child runs them step by step, and every call has to meet its entry once and one of its exits
 * once, with the stack pointer of the entry, and at no other time. What can't be known is refused.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtimes/native.h"
#include "check.h"

/* As compilers make it for real, whatever this test is built with. */
#ifdef __clang__
#define PLAIN __attribute__((noinline, used, no_sanitize("address", "undefined")))
#else
#define PLAIN                                                                        \
	__attribute__((noinline, noclone, used, no_sanitize("address", "undefined"), \
		       optimize("O2")))
#endif

enum { PLACES_MAX = 64, STEPS_MAX = 200000 };

extern int plain_answer(int n), plain_returns(int n), plain_switch(int n), plain_tail(int n),
	plain_recursive(int n), plain_pointer(int n);
int (*volatile plain_target)(int) = plain_answer;

PLAIN int plain_answer(int n)
{
	return n * 3 + 1;
}

PLAIN int plain_returns(int n)
{
	if (n == 0)
		return 7;
	if (n == 1)
		return plain_answer(plain_answer(n));
	for (int i = 0; i < n; i++) {
		if (plain_answer(i) > 20)
			return i;
	}
	return -1;
}

PLAIN int plain_switch(int n)
{
	switch (n) {
	case 0:
		return plain_answer(4) + 1;
	case 1:
		return plain_answer(n) - 5;
	case 2:
		return n * 99;
	case 3:
		return plain_returns(n) ^ 3;
	case 4:
		return plain_answer(n) / 3;
	case 5:
		return 1 + plain_answer(n) % 10;
	case 6:
		return plain_returns(n) * plain_returns(1);
	default:
		return 0;
	}
}

PLAIN int plain_tail(int n)
{
	return n > 2 ? plain_returns(n + 1) : plain_answer(n);
}

PLAIN int plain_recursive(int n)
{
	return n > 0 ? 1 + plain_recursive(n - 1) + plain_answer(n) : 0;
}

PLAIN int plain_pointer(int n)
{
	return plain_target(n + 1);
}

static const struct {
	const char *name;
	int (*call)(int);
} functions[] = {
	{ "plain_answer", plain_answer },       { "plain_returns", plain_returns },
	{ "plain_switch", plain_switch },       { "plain_tail", plain_tail },
	{ "plain_recursive", plain_recursive }, { "plain_pointer", plain_pointer },
};

enum { FUNCTIONS = sizeof(functions) / sizeof(functions[0]) };

static struct native_place places[PLACES_MAX];
static size_t place_count, problem_count;
static char last_problem[256];

static int on_place(void *ctx, const struct native_place *place)
{
	(void)ctx;
	if (place_count == PLACES_MAX)
		return -ENOMEM;
	places[place_count] = *place;
	places[place_count++].path = NULL;
	return 0;
}

static void on_problem(void *ctx, uint32_t rule, const char *file, const char *why)
{
	(void)ctx;
	snprintf(last_problem, sizeof(last_problem), "%u %s: %s", rule, file, why);
	problem_count++;
}

static const struct native_sink sink = { .place = on_place, .problem = on_problem };

static int look(const struct native_rule *rules, size_t count, unsigned int times)
{
	struct native *n = native_new(rules, count);
	struct native_process *p = native_process_new(n, (uint32_t)getpid());
	int err = 0;

	place_count = problem_count = 0;
	while (times--)
		err = native_process_look(p, &sink);
	native_process_free(p);
	native_free(n);
	return err;
}

/* What is to be taken from an address of our code to get its offset in our file. */
static uint64_t code_base(void)
{
	uint64_t at = (uint64_t)(uintptr_t)plain_answer;
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long long begin, end, offset;
	uint64_t base = 0;
	char line[1024];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx %*s %llx", &begin, &end, &offset) == 3 && at >= begin &&
		    at < end)
			base = begin - offset;
	}
	if (maps)
		fclose(maps);
	return base;
}

static void run_child(int (*call)(int))
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	raise(SIGSTOP);
	for (int n = 0; n < 8; n++)
		call(n);
	_exit(0);
}

/* Calls and returns of all functions, as the probes would see them. */
struct seen {
	uint64_t stack[64];
	uint32_t rule[64];
	size_t depth, calls;
	bool wrong;
};

static void on_step(struct seen *s, uint64_t offset, uint64_t stack)
{
	for (size_t i = 0; i < place_count; i++) {
		const struct native_place *p = &places[i];

		if (p->offset != offset)
			continue;
		if (!p->exit) {
			s->wrong |= s->depth == 64;
			s->stack[s->depth & 63] = stack;
			s->rule[s->depth++ & 63] = p->rule;
			s->calls++;
		} else if (s->depth && s->stack[(s->depth - 1) & 63] == stack &&
			   s->rule[(s->depth - 1) & 63] == p->rule) {
			s->depth--;
		} else {
			/* It stays, with more on the stack than at its entry. */
			s->wrong |= !s->depth || stack >= s->stack[(s->depth - 1) & 63];
		}
	}
}

static void check_calls(size_t which, uint64_t base, size_t at_least)
{
	struct user_regs_struct regs;
	struct seen seen = { .depth = 0 };
	int status = 0, steps;
	pid_t pid = fork();

	if (!pid)
		run_child(functions[which].call);
	waitpid(pid, &status, 0);
	for (steps = 0; steps < STEPS_MAX && !WIFEXITED(status); steps++) {
		if (ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			break;
		on_step(&seen, regs.rip - base, regs.rsp);
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || waitpid(pid, &status, 0) < 0)
			break;
	}
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	if (seen.wrong || seen.depth || seen.calls < at_least)
		printf("%s: %zu calls, %zu not ended\n", functions[which].name, seen.calls,
		       seen.depth);
	CHECK(!seen.wrong && !seen.depth && seen.calls >= at_least);
}

static void test_calls(const char *exe)
{
	struct native_rule rules[FUNCTIONS];
	uint64_t base = code_base();

	for (size_t i = 0; i < FUNCTIONS; i++)
		rules[i] = (struct native_rule){ exe, functions[i].name };
	CHECK(look(rules, FUNCTIONS, 2) == 0);
	if (problem_count)
		printf("problem: %s\n", last_problem);
	CHECK(problem_count == 0 && place_count >= 2 * (size_t)FUNCTIONS);
	for (size_t i = 0; i < FUNCTIONS; i++)
		check_calls(i, base, 8);
}

static void test_names(const char *exe)
{
	const struct native_rule end = { strrchr(exe, '/') - 1, "plain_answer" };
	const struct native_rule libc = { "libc.so", "free" }, other = { "ibc.so", "free" };
	const struct native_rule chosen = { "libc.so.6", "memcpy" }, none = { NULL, NULL };
	const struct native_rule missing[] = { { NULL, NULL }, { exe, "plain_nothing" } };
	struct native_rule part = end;

	while (part.where > exe + 1 && part.where[-1] != '/')
		part.where--;
	CHECK(look(&part, 1, 1) == 0 && place_count == 2);
	CHECK(place_count == 2 && places[0].exit && !places[1].exit);
	CHECK(look(&libc, 1, 2) == 0 && place_count >= 2 && problem_count == 0);
	CHECK(look(&other, 1, 1) == 0 && place_count == 0 && problem_count == 0);
	CHECK(look(&none, 1, 1) == 0 && place_count == 0);
	CHECK(look(&chosen, 1, 1) == 0 && place_count == 0 && problem_count == 1);
	CHECK(look(missing, 2, 3) == 0 && place_count == 0 && problem_count == 1);
	CHECK(strncmp(last_problem, "1 ", 2) == 0 && strstr(last_problem, "no such function"));
}

int main(void)
{
	char exe[512] = "";

	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return 1;
	test_calls(exe);
	test_names(exe);
	return check_result();
}
