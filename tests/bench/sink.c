/*
 * The cheapest OTLP/HTTP collector there is, so that a benchmark measures the agent and not its
 * collector: takes each POST by its Content-Length, forgets it, answers 200 with an empty (and so
 * valid) ExportTraceServiceResponse. Refuses chunked bodies and heads past 8 KB (closes). Prints
 * `port N` when it listens on loopback.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNS = 32, HEAD_BYTES = 8192, CHUNK_BYTES = 1 << 16 };

struct conn {
	char head[HEAD_BYTES + 1];
	size_t head_len;
	size_t body_left;
};

static struct pollfd fds[MAX_CONNS + 1];
static struct conn conns[MAX_CONNS + 1];

static const char answer[] =
	"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

static void drop(int i)
{
	close(fds[i].fd);
	fds[i].fd = -1;
}

/* The value of Content-Length; -1 when the head has none. */
static long content_length(const char *head)
{
	const char *line;

	for (line = strchr(head, '\n'); line; line = strchr(line, '\n')) {
		line++;
		if (strncasecmp(line, "content-length:", 15) == 0)
			return strtol(line + 15, NULL, 10);
	}
	return -1;
}

static void reply(int i)
{
	if (send(fds[i].fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) < 0)
		drop(i);
}

/* Takes bytes of head or body; false when the peer is not one of ours. */
static bool take(int i, const char *data, size_t len)
{
	struct conn *c = &conns[i];

	while (len) {
		size_t n;
		char *end;

		if (c->body_left) {
			n = len < c->body_left ? len : c->body_left;
			c->body_left -= n;
			data += n;
			len -= n;
			if (!c->body_left)
				reply(i);
			continue;
		}
		if (c->head_len == HEAD_BYTES)
			return false;
		c->head[c->head_len++] = *data++;
		len--;
		c->head[c->head_len] = '\0';
		end = c->head_len >= 4 ? c->head + c->head_len - 4 : c->head;
		if (memcmp(end, "\r\n\r\n", 4) == 0) {
			long body = content_length(c->head);

			if (body < 0)
				return false;
			c->head_len = 0;
			c->body_left = (size_t)body;
			if (!body)
				reply(i);
		}
	}
	return true;
}

static void receive(int i)
{
	static char data[CHUNK_BYTES];
	ssize_t n = recv(fds[i].fd, data, sizeof(data), 0);

	if (n <= 0 || !take(i, data, (size_t)n))
		drop(i);
}

static void accept_one(void)
{
	int fd = accept(fds[0].fd, NULL, NULL), i;

	for (i = 1; fd >= 0 && i <= MAX_CONNS; i++) {
		if (fds[i].fd < 0) {
			memset(&conns[i], 0, sizeof(conns[i]));
			fds[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int i;

	fds[0] = (struct pollfd){ .fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLIN };
	if (fds[0].fd < 0 || bind(fds[0].fd, (struct sockaddr *)&addr, len) ||
	    listen(fds[0].fd, 16) || getsockname(fds[0].fd, (struct sockaddr *)&addr, &len)) {
		perror("sink");
		return 1;
	}
	for (i = 1; i <= MAX_CONNS; i++)
		fds[i].fd = -1;
	printf("port %d\n", ntohs(addr.sin_port));
	fflush(stdout);
	while (poll(fds, MAX_CONNS + 1, -1) > 0) {
		for (i = 1; i <= MAX_CONNS; i++) {
			if (fds[i].fd >= 0 && fds[i].revents)
				receive(i);
		}
		if (fds[0].revents)
			accept_one();
	}
	return 1;
}
