/*
 * Discovery on the real /proc with processes of this test's own: a listening child, its exec, its
 * end. Needs no root: all it looks at belongs to it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "discover/resource_detect.h"
#include "discover/select.h"

static uint16_t bound_port(int fd)
{
	struct sockaddr_in6 addr = { 0 };
	socklen_t len = sizeof(addr);

	return getsockname(fd, (struct sockaddr *)&addr, &len) == 0 ? ntohs(addr.sin6_port) : 0;
}

static int listen_on(int family)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in v4 = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct sockaddr *addr =
		family == AF_INET ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6;
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 &&
	    (bind(fd, addr, family == AF_INET ? sizeof(v4) : sizeof(v6)) || listen(fd, 8))) {
		close(fd);
		return -1;
	}
	return fd;
}

struct child {
	pid_t pid;
	int ready; /* read end: one byte when the child runs */
};

/* A child that holds `fd` (or nothing) and waits; then becomes `sleep` when told by its exec flag.
 */
static struct child start_child(bool exec)
{
	int pipe_fds[2];
	struct child c = { .pid = -1 };
	char byte;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return c;
	c.pid = fork();
	if (c.pid == 0) {
		if (exec) {
			setenv("OTEL_SERVICE_NAME", "sleeper", 1);
			execlp("sleep", "sleep", "60", (char *)NULL);
			_exit(1);
		}
		if (write(pipe_fds[1], "x", 1) == 1)
			pause();
		_exit(0);
	}
	close(pipe_fds[1]);
	/* end of file: exec closed the other end */
	(void)!read(pipe_fds[0], &byte, 1);
	close(pipe_fds[0]);
	return c;
}

static void stop_child(struct child c)
{
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
}

static pid_t wanted;
static unsigned int seen;

static void on_found(void *ctx, uint32_t pid, const struct select_rule *why)
{
	(void)ctx;
	(void)why;
	if (pid == (uint32_t)wanted)
		seen++;
}

static void test_listening(int family)
{
	int fd = listen_on(family);
	uint16_t port = fd < 0 ? 0 : bound_port(fd);
	struct select_rule rule = { .kind = SELECT_PORT, .port_low = port, .port_high = port };
	const struct select_rule *why = NULL;
	struct selector s;
	struct child c;

	if (fd < 0) /* no IPv6 here */
		return;
	c = start_child(false);
	CHECK(selector_init(&s, &rule, 1, NULL) == 0);
	CHECK(select_process(&s, (uint32_t)c.pid, &why) && why == &rule);
	CHECK(!select_process(&s, (uint32_t)getpid(), NULL));
	wanted = c.pid;
	seen = 0;
	CHECK(select_scan(&s, on_found, NULL) == 0 && seen == 1);
	wanted = getpid();
	seen = 0;
	CHECK(select_scan(&s, on_found, NULL) == 0 && seen == 0);
	stop_child(c);
	CHECK(!select_process(&s, (uint32_t)c.pid, NULL));
	selector_free(&s);
	close(fd);
}

static int check_rule(struct select_rule rule, char **ret_error)
{
	struct selector s;
	int err;

	CHECK(selector_init(&s, &rule, 1, NULL) == 0);
	*ret_error = NULL;
	err = select_check(&s, ret_error);
	selector_free(&s);
	return err;
}

static void test_check(void)
{
	struct child c = start_child(false);
	struct select_rule rule = { .kind = SELECT_PID, .pid = (uint32_t)c.pid };
	char *error, expected[64];

	CHECK(check_rule(rule, &error) == 0);
	kill(c.pid, SIGKILL);
	siginfo_t info;
	waitid(P_PID, (id_t)c.pid, &info, WEXITED | WNOWAIT);
	CHECK(check_rule(rule, &error) == -ESRCH); /* a zombie */
	free(error);
	waitpid(c.pid, NULL, 0);
	CHECK(check_rule(rule, &error) == -ESRCH);
	snprintf(expected, sizeof(expected), "no process %d", (int)c.pid);
	CHECK_STR(error, expected);
	free(error);
	rule.pid = (uint32_t)getpid();
	CHECK(check_rule(rule, &error) == -EINVAL && strstr(error, "itself"));
	free(error);
}

static void test_exec_and_resource(void)
{
	char glob[] = "sleep", path_glob[] = "*/bin/*";
	struct select_rule rules[] = { { .kind = SELECT_EXE, .text = glob },
				       { .kind = SELECT_EXE, .text = path_glob } };
	struct child c = start_child(true);
	struct resource_context context;
	const struct select_rule *why = NULL;
	struct selector s;
	struct resource *r;

	CHECK(selector_init(&s, rules, 2, NULL) == 0);
	CHECK(select_process(&s, (uint32_t)c.pid, &why) && why == &rules[0]);
	selector_free(&s);
	CHECK(selector_init(&s, rules + 1, 1, NULL) == 0);
	CHECK(select_process(&s, (uint32_t)c.pid, NULL));
	selector_free(&s);
	CHECK(resource_context_init(&context, NULL, "9") == 0);
	r = resource_detect(&context, (uint32_t)c.pid, NULL);
	CHECK_STR(resource_find(r, "service.name"), "sleeper");
	CHECK_STR(resource_find(r, "process.command"), "sleep");
	CHECK(resource_find(r, "service.instance.id") && resource_find(r, "host.name"));
	CHECK(!resource_find(r, "process.runtime.name"));
	resource_put(r);
	resource_context_free(&context);
	stop_child(c);
}

int main(void)
{
	test_listening(AF_INET);
	test_listening(AF_INET6);
	test_check();
	test_exec_and_resource();
	return check_result();
}
