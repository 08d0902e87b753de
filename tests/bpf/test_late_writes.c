/*
 * Writes that an event loop puts off to the end of its turn: they are sent in no context, and the
 * one that they were made in waits with the connection.
 */
#include <fcntl.h>
#include <stddef.h>

#include "hook_scene.h"

enum { ROUNDS = 3 };

/* A uvloop stream: its handle at 24, what it has buffered at 304; what libuv has queued at 96 in
 * the handle, the descriptor at 184. */
struct fake_handle {
	char bytes[96];
	size_t queued;
	char more[80];
	int fd;
};

struct fake_stream {
	char bytes[24];
	struct fake_handle *handle;
	char more[272];
	size_t buffered;
};

_Static_assert(offsetof(struct fake_handle, fd) == 184, "as in libuv");
_Static_assert(offsetof(struct fake_stream, buffered) == 304, "as in uvloop");

static struct fake_handle handle;
static struct fake_stream stream = { .handle = &handle };

static void write_late(size_t bytes)
{
	hook_write(&stream, NULL);
	stream.buffered += bytes;
}

static int send_all(int from, int to)
{
	stream.buffered = handle.queued = 0;
	return socket_move(from, to, 100);
}

/* What was written in a context, and once more in `second` in the same turn, is sent in none. */
static int late_move(int from, int to, int context, int second)
{
	handle.fd = from;
	fake_enter(context, true);
	write_late(100);
	fake_enter(second, true);
	write_late(100);
	fake_enter(-1, false);
	fake_state.frame = 0;
	return send_all(from, to);
}

static int late_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2], i, file = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	for (i = 0; i < ROUNDS; i++) {
		FAKE_STACK(&fake_library, &fake_application);
		if (late_move(fds[0], fds[1], 0, 0))
			return 2;
		FAKE_STACK(&fake_library, &fake_answer_local);
		if (late_move(fds[1], fds[0], 1, 1) || late_move(fds[1], fds[0], 1, 2))
			return 3;
		FAKE_STACK(&fake_library, &fake_application);
		if (late_move(fds[0], fds[1], 0, 2) || socket_move(fds[1], fds[0], 100))
			return 5;
	}
	handle.fd = file; /* no socket, no descriptor, no handle */
	hook_write(&stream, NULL);
	handle.fd = -1;
	hook_write(&stream, NULL);
	stream.handle = NULL;
	hook_write(&stream, NULL);
	/* Written, and never sent: the next connection is another. */
	stream.handle = &handle;
	handle.fd = fds[0];
	fake_enter(0, true);
	hook_write(&stream, NULL);
	close(fds[0]);
	close(fds[1]);
	fake_enter(-1, false);
	if (socket_pair(&a, fds))
		return 4;
	return socket_move(fds[0], fds[1], 100);
}

static void check_late_round(const struct watch *w, uint32_t pid, size_t *at)
{
	const struct seen *s[10];
	size_t i;

	for (i = 0; i < COUNT(s); i++) {
		s[i] = watch_next(w, SEEN_IO, pid, at);
		if (!s[i]) {
			CHECK_SAY(false, "%zu transfers", i);
			return;
		}
	}
	CHECK(s[0]->io.dir == IO_SEND && s[0]->io.context == address_of(&fake_contexts[0]));
	CHECK(s[0]->has_site && s[0]->site.caller == address_of(&fake_application));
	CHECK(!s[0]->has_route && !s[1]->has_site && !s[1]->io.context);
	CHECK(s[2]->io.dir == IO_SEND && s[2]->io.context == address_of(&fake_contexts[1]));
	CHECK(s[2]->has_route && s[2]->route.scope == 101 && !s[2]->has_site);
	CHECK(s[4]->io.dir == IO_SEND && !s[4]->io.context && s[4]->io.flags & IO_RUNTIME);
	CHECK(!s[4]->has_route && !s[3]->has_route && !s[5]->has_route);
	/* Two contexts have written: it is neither's. */
	CHECK(s[6]->io.dir == IO_SEND && !s[6]->io.context && s[6]->io.flags & IO_RUNTIME);
}

static void check_late(struct watch *w)
{
	struct child c = scene_begin(w, "written late", late_run);
	uint32_t pid = (uint32_t)c.pid;
	const struct seen *s;
	size_t at = 0, i;

	CHECK(hook(w, pid, PROBE_HOOK_LATE_WRITE, hook_write, false, 0) == 0);
	scene_end(w, &c);
	for (i = 0; i < ROUNDS; i++)
		check_late_round(w, pid, &at);
	s = watch_next(w, SEEN_IO, pid, &at);
	CHECK(s && s->io.dir == IO_SEND && !s->io.context && !s->site.caller);
	CHECK_SAY(w->stats.drops[DROP_LATE_WRITE_LOST] == 2, "%llu late writes lost",
		  (unsigned long long)w->stats.drops[DROP_LATE_WRITE_LOST]);
}

/* The context of a write ends before the bytes are sent, and the next one is at its address. */
static int late_again_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2], i;

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	handle.fd = fds[0];
	for (i = 0; i < 4; i++) {
		fake_enter(0, true);
		hook_write(&stream, NULL);
		fake_enter(1, true);
		if (i % 2)
			hook_copy(&fake_contexts[0]);
		fake_enter(-1, false);
		if (socket_move(fds[0], fds[1], 100) || socket_move(fds[1], fds[0], 100))
			return 2;
	}
	return 0;
}

/* What `run` sends, every other transfer of its process, comes from these contexts (-1: none). */
static void check_sends(struct watch *w, const char *name, int (*run)(void *), const int *contexts,
			size_t count)
{
	struct child c = scene_begin(w, name, run);
	uint32_t pid = (uint32_t)c.pid;
	const struct seen *s;
	size_t at = 0, sent = 0;

	CHECK(hook(w, pid, PROBE_HOOK_LATE_WRITE, hook_write, false, 0) == 0);
	CHECK(hook(w, pid, PROBE_HOOK_CONTEXT_COPY, hook_copy, true, 0) == 0);
	scene_end(w, &c);
	while ((s = watch_next(w, SEEN_IO, pid, &at))) {
		int context = sent / 2 < count ? contexts[sent / 2] : -1;

		if (s->io.dir != IO_SEND || sent++ % 2) /* the other end's answer */
			continue;
		CHECK_SAY(s->io.context == (context < 0 ? 0 : address_of(&fake_contexts[context])),
			  "send %zu: context %llx", sent, (unsigned long long)s->io.context);
	}
	CHECK_SAY(sent == 2 * count, "%zu sends", sent);
}

/* What is written behind an empty write is the second's alone, unless bytes of an earlier one wait.
 */
static int late_empty_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2], i;

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	handle.fd = fds[0];
	for (i = 0; i < 3; i++) {
		fake_enter(0, true);
		write_late(i == 1 ? 100 : 0);
		if (i == 2)
			handle.queued = 100;
		fake_enter(1, true);
		write_late(100);
		fake_enter(-1, false);
		if (send_all(fds[0], fds[1]) || socket_move(fds[1], fds[0], 100))
			return 2;
	}
	return 0;
}

static void check_collector(enum probe_collector collector)
{
	static const int again[] = { 0, -1, 0, -1 }, empty[] = { 1, -1, -1 };
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_late(&w);
	check_sends(&w, "written late, ended", late_again_run, again, COUNT(again));
	check_sends(&w, "written late, nothing", late_empty_run, empty, COUNT(empty));
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
