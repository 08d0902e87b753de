/*
 * What the kernel side is told of processes: trust, silence, services, by the signs that child
 * processes of this test show in their environment. The probe is this test's own; time is an
 * argument.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent_process.c"
#include "check.h"
#include "config/options.h"

#define S SECOND_NS

#define NEVER ((enum agent_follow)99)

/* What was told last. */
static uint32_t flags_of, service_of;
static pid_t flags_pid;
static unsigned int flag_calls;
static enum agent_follow follow_how;
static uint32_t follow_pid;

int probe_set_flags(struct probe *p, uint32_t pid, uint32_t flags)
{
	(void)p;
	flags_pid = (pid_t)pid;
	flags_of = flags;
	flag_calls++;
	return 0;
}

int probe_set_service(struct probe *p, uint32_t pid, uint16_t service)
{
	(void)p;
	(void)pid;
	service_of = service;
	return 0;
}

static void on_follow(void *ctx, uint32_t pid, enum agent_follow how)
{
	(void)ctx;
	follow_pid = pid;
	follow_how = how;
}

/* A child that waits, with this environment and nothing else. */
static uint32_t start_child(const char *name, const char *value)
{
	char entry[128], program[] = "sleep", seconds[] = "60";
	char *argv[] = { program, seconds, NULL }, *envp[] = { entry, NULL };
	int fds[2];
	char byte;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return 0;
	snprintf(entry, sizeof(entry), "%s=%s", name, value);
	pid = fork();
	if (pid == 0) {
		execve("/bin/sleep", argv, envp);
		_exit(1);
	}
	close(fds[1]);
	(void)!read(fds[0], &byte, 1); /* the end: exec has closed the other one */
	close(fds[0]);
	return (uint32_t)pid;
}

static void stop_child(uint32_t pid)
{
	kill((pid_t)pid, SIGKILL);
	waitpid((pid_t)pid, NULL, 0);
}

static struct options options;
static struct resource_context resources;
static const struct agent_process_ops ops = { .follow = on_follow };

static struct agent_processes *start(void)
{
	flags_of = service_of = follow_pid = 0;
	follow_how = NEVER;
	flag_calls = 0;
	return agent_processes_new(&options, NULL, &resources, &ops);
}

static void test_plain(void)
{
	uint32_t pid = start_child("OTEL_SERVICE_NAME", "cart");
	struct agent_processes *ps = start();

	agent_process_begin(ps, pid, 0, false, S);
	CHECK(flags_pid == (pid_t)pid && flags_of == 0);
	CHECK(follow_pid == pid && follow_how == AGENT_FOLLOW_THERE);
	CHECK(!agent_process_silent(ps, pid, 2 * S) && !agent_processes_silent(ps));
	agent_process_trust(ps, pid, PROBE_TRUST_CONTEXTS);
	CHECK(flags_of == PROBE_TRUST_CONTEXTS && flag_calls == 2);
	agent_process_trust(ps, pid, PROBE_TRUST_CONTEXTS);
	CHECK(flag_calls == 2); /* nothing new */
	agent_process_trust(ps, pid, 0);
	CHECK(flags_of == 0);
	/* Another program: what was proven of the old one is nothing now. */
	agent_process_trust(ps, pid, PROBE_TRUST_THREADS);
	agent_process_changed(ps, pid, 3 * S);
	CHECK(flags_of == 0 && flag_calls == 5);
	agent_process_end(ps, pid);
	CHECK(!agent_process_silent(ps, pid, 4 * S));
	agent_process_trust(ps, pid, PROBE_TRUST_THREADS); /* nobody's */
	CHECK(flag_calls == 5);
	agent_processes_free(ps);
	stop_child(pid);
}

static void test_export_is_proof(void)
{
	uint32_t pid = start_child("A", "b");
	struct agent_processes *ps = start();

	agent_process_begin(ps, pid, 0, false, S);
	agent_process_trust(ps, pid, PROBE_TRUST_CONTEXTS);
	agent_process_exports(ps, pid);
	CHECK(flags_of == PROBE_SILENT && follow_how == AGENT_FOLLOW_NOT);
	CHECK(agent_process_silent(ps, pid, 2 * S) && agent_processes_silent(ps) == 1);
	agent_process_trust(ps, pid, 0);
	agent_processes_tick(ps, 500 * S);
	CHECK(flags_of == PROBE_SILENT && agent_process_silent(ps, pid, 500 * S));
	agent_processes_free(ps);
	stop_child(pid);
}

static void test_hint_runs_out(void)
{
	uint32_t pid = start_child("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
	struct agent_processes *ps = start();

	agent_process_begin(ps, pid, 0, false, S);
	CHECK(flags_of == PROBE_APART && follow_how == NEVER);
	agent_processes_tick(ps, 200 * S); /* it has done nothing yet */
	CHECK(agent_process_silent(ps, pid, 300 * S));
	agent_processes_tick(ps, 359 * S);
	CHECK(agent_process_silent(ps, pid, 359 * S) && flags_of == PROBE_APART);
	agent_process_trust(ps, pid, PROBE_TRUST_THREADS);
	CHECK(flags_of == PROBE_APART);
	agent_processes_tick(ps, 360 * S);
	CHECK(!agent_process_silent(ps, pid, 360 * S));
	CHECK(flags_of == PROBE_TRUST_THREADS && follow_how == AGENT_FOLLOW_THERE);
	/* The hint is used up; a proof is not. */
	agent_process_listens(ps, pid);
	CHECK(!agent_process_silent(ps, pid, 361 * S));
	agent_process_exports(ps, pid);
	CHECK(flags_of == PROBE_SILENT && agent_process_silent(ps, pid, 362 * S));
	agent_processes_free(ps);
	stop_child(pid);
}

static void test_hint_confirmed(void)
{
	uint32_t pid = start_child("OTEL_TRACES_EXPORTER", "otlp");
	struct agent_processes *ps = start();

	agent_process_begin(ps, pid, 0, false, S);
	CHECK(agent_process_silent(ps, pid, 2 * S));
	agent_process_exports(ps, pid);
	CHECK(flags_of == PROBE_SILENT && follow_how == NEVER);
	agent_processes_tick(ps, 100 * S);
	CHECK(agent_process_silent(ps, pid, 100 * S));
	agent_processes_free(ps);
	stop_child(pid);
}

static void test_children(void)
{
	uint32_t parent = start_child("A", "b"), child = start_child("A", "b");
	struct agent_processes *ps = start();

	agent_process_begin(ps, parent, 0, false, S);
	agent_process_begin(ps, child, parent, true, S);
	CHECK(flags_of == 0 && follow_pid == child && follow_how == AGENT_FOLLOW_BORN);
	agent_process_begin(ps, child, parent, false, S);
	CHECK(follow_how == AGENT_FOLLOW_CHILD);
	/* Made by one that reports its own: it has to show that it does, too. */
	agent_process_exports(ps, parent);
	follow_how = NEVER;
	agent_process_begin(ps, child, parent, true, 2 * S);
	CHECK(flags_pid == (pid_t)child && flags_of == PROBE_APART && follow_how == NEVER);
	CHECK(agent_process_silent(ps, child, 2 * S));
	/* Then it runs a program of its own. */
	agent_process_changed(ps, child, 3 * S);
	CHECK(flags_of == 0 && follow_how == AGENT_FOLLOW_THERE);
	agent_processes_free(ps);
	stop_child(parent);
	stop_child(child);
}

static void test_with_sdk(void)
{
	uint32_t pid = start_child("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
	struct agent_processes *ps;

	options.keep_sdk = true;
	ps = start();
	agent_process_begin(ps, pid, 0, false, S);
	agent_process_exports(ps, pid);
	CHECK(flags_of == 0 && follow_how == AGENT_FOLLOW_THERE);
	CHECK(!agent_process_silent(ps, pid, 2 * S));
	options.keep_sdk = false;
	agent_processes_free(ps);
	stop_child(pid);
}

static void test_services(void)
{
	uint32_t a = start_child("OTEL_SERVICE_NAME", "a"),
		 b = start_child("OTEL_SERVICE_NAME", "b");
	uint32_t again = start_child("OTEL_SERVICE_NAME", "a");
	struct agent_processes *ps = start();

	agent_process_begin(ps, a, 0, false, S);
	CHECK(service_of == 0); /* nobody asks */
	options.root_limit = 10;
	agent_process_begin(ps, a, 0, false, S);
	CHECK(service_of == 1);
	agent_process_begin(ps, b, 0, false, S);
	CHECK(service_of == 2);
	agent_process_begin(ps, again, 0, false, S);
	CHECK(service_of == 1);
	options.root_limit = 0;
	agent_processes_free(ps);
	stop_child(a);
	stop_child(b);
	stop_child(again);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	resource_context_init(&resources, &options, "0");
	test_plain();
	test_export_is_proof();
	test_hint_runs_out();
	test_hint_confirmed();
	test_children();
	test_with_sdk();
	test_services();
	resource_context_free(&resources);
	return check_result();
}
