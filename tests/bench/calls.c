/*
 * What one system call costs a process that nobody traces: getpid, a write to a file, and one-byte
 * transfers over a unix and a TCP socket. Prints `name nanoseconds` a line, each the least of
 * several rounds, because all that disturbs a round only makes it longer.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 15, CALLS = 20000 };

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void check(long result)
{
	if (result < 0) {
		perror("calls");
		exit(1);
	}
}

static void call_getpid(const int fds[2])
{
	(void)fds;
	check(syscall(SYS_getpid));
}

static void call_write(const int fds[2])
{
	check(pwrite(fds[0], "x", 1, 0));
}

static void call_plain_write(const int fds[2])
{
	check(write(fds[0], "x", 1));
}

/* Two calls: there and back. */
static void call_transfer(const int fds[2])
{
	char c = 'x';

	check(send(fds[0], &c, 1, 0));
	check(recv(fds[1], &c, 1, 0));
}

static void measure(const char *name, void (*call)(const int fds[2]), const int fds[2],
		    int calls_each)
{
	double best = 1e18;
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		double begin = now_ns(), each;

		for (i = 0; i < CALLS; i++)
			call(fds);
		each = (now_ns() - begin) / CALLS / calls_each;
		if (each < best)
			best = each;
	}
	printf("%s %.1f\n", name, best);
}

static void tcp_pair(int fds[2])
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	check(listener);
	check(bind(listener, (struct sockaddr *)&addr, len));
	check(listen(listener, 1));
	check(getsockname(listener, (struct sockaddr *)&addr, &len));
	check(fds[0] = socket(AF_INET, SOCK_STREAM, 0));
	check(connect(fds[0], (struct sockaddr *)&addr, len));
	check(fds[1] = accept(listener, NULL, NULL));
	check(setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	close(listener);
}

int main(void)
{
	FILE *file = tmpfile();
	int fds[2];

	if (!file)
		check(-1);
	fds[0] = fds[1] = fileno(file);
	measure("getpid", call_getpid, fds, 1);
	measure("file-pwrite", call_write, fds, 1);
	fds[0] = fds[1] = STDERR_FILENO; /* /dev/null, the runner sees to it */
	measure("file-write", call_plain_write, fds, 1);
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	measure("unix-socket", call_transfer, fds, 2);
	tcp_pair(fds);
	measure("tcp-socket", call_transfer, fds, 2);
	fclose(file);
	return 0;
}
