/*
 * Requests and answers between this process, which is not traced, and a traced server that plays a
 * script: step by step, so that each read of the server gets just the bytes of one write. What the
 * kernel side said of requests stands among the other events, in the order it came.
 */
#ifndef TESTS_BPF_REQUESTS_H
#define TESTS_BPF_REQUESTS_H

#include <fcntl.h>
#include <stdatomic.h>

#include "sockets.h"
#include "trace/sample.h"
#include "watch.h"

enum { REQUESTS_MAX = 4096, SCRIPT_MAX = 4096, SCRIPT_CONNS = 4, SCRIPT_BYTES = 12000 };
enum { SCRIPT_STEP_MS = 4000 };

#define SEEN_REQUEST ((enum seen_type)100) /* .other: index into requests_seen */

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"
#define SAMPLED_VALUE "00-" TRACE "-" PARENT "-01"
#define UNSAMPLED_VALUE "00-" TRACE "-" PARENT "-00"
#define SAMPLED_HEAD "GET / HTTP/1.1\r\ntraceparent: " SAMPLED_VALUE "\r\n\r\n"
#define UNSAMPLED_HEAD "GET / HTTP/1.1\r\ntraceparent: " UNSAMPLED_VALUE "\r\n\r\n"
#define PLAIN_HEAD "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

static struct request_event requests_seen[REQUESTS_MAX];
static uint32_t request_count;

static inline void on_request(void *ctx, const struct request_event *ev)
{
	struct seen *s = watch_add(ctx, SEEN_REQUEST);

	s->pid = ev->pid;
	s->tid = ev->tid;
	s->ts_ns = ev->ts_ns;
	s->conn_id = ev->conn_id;
	s->other = request_count % REQUESTS_MAX;
	requests_seen[request_count++ % REQUESTS_MAX] = *ev;
}

static inline const struct request_event *request_of(const struct seen *s)
{
	return s ? &requests_seen[s->other] : NULL;
}

/* As watch_open(), with a sampler. */
static inline void requests_open(struct watch *w, enum probe_collector collector,
				 struct probe_options o)
{
	struct probe_sink sink = watch_sink(w);
	char *error = NULL;
	int err;

	o.collector = collector;
	o.ring_bytes = WATCH_RING_BYTES;
	o.capture_bytes = WATCH_CAPTURE_BYTES;
	o.max_processes = WATCH_PROCESSES;
	o.max_connections = WATCH_CONNECTIONS;
	o.agent_pid = 0; /* a test's server may be anyone's child */
	sink.request = on_request;
	memset(w, 0, sizeof(*w));
	err = probe_open(&o, &sink, &w->stats, &w->probe, &error);
	if (err)
		check_skip(error ? error : strerror(-err));
}

/* --- scripts ---------------------------------------------------------------------------------- */

enum script_what {
	CLIENT_SENDS, /* and waits for nothing */
	SERVER_READS, /* one call */
	SERVER_SENDS,
	CLIENT_READS, /* all there is */
	CLIENT_CLOSES,
};

struct script_step {
	enum script_what what;
	int conn;
	uint32_t at, len; /* of the text */
};

struct script {
	int client[SCRIPT_CONNS], server[SCRIPT_CONNS];
	struct script_step steps[SCRIPT_MAX];
	uint32_t count;
	_Atomic uint32_t turn; /* the step that is played */
	char text[SCRIPT_MAX * 64];
	uint32_t text_len;
	bool broken;
};

static struct script *script; /* shared with the server */

static inline void script_begin(void)
{
	if (!script)
		script = shared_memory(sizeof(*script));
	memset(script, 0, sizeof(*script));
	check_scene = "";
}

static inline void script_bytes(enum script_what what, int conn, const char *text, size_t len)
{
	struct script_step *s = &script->steps[script->count++];

	if (script->count > SCRIPT_MAX || script->text_len + len > sizeof(script->text))
		abort();
	*s = (struct script_step){ what, conn, script->text_len, (uint32_t)len };
	memcpy(script->text + script->text_len, text, len);
	script->text_len += (uint32_t)len;
}

static inline void script_add(enum script_what what, const char *text)
{
	script_bytes(what, 0, text, strlen(text));
}

/* The client sends, the server reads it at once. */
static inline void script_bytes_pass(int conn, const char *text, size_t len)
{
	script_bytes(CLIENT_SENDS, conn, text, len);
	script_bytes(SERVER_READS, conn, NULL, 0);
}

static inline void script_pass(const char *text)
{
	script_bytes_pass(0, text, strlen(text));
}

static inline void script_answer_on(int conn, const char *text)
{
	script_bytes(SERVER_SENDS, conn, text, strlen(text));
	script_bytes(CLIENT_READS, conn, NULL, 0);
}

static inline void script_answer(void)
{
	script_answer_on(0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

/* Waits for its turn. False: the other side is gone. */
static inline bool script_wait(uint32_t step)
{
	uint64_t deadline = now_ns() + SCRIPT_STEP_MS * 1000000ull;
	uint32_t spins = 0;

	while (atomic_load(&script->turn) != step) {
		if (++spins % 64 == 0) {
			if (now_ns() > deadline || script->broken)
				return false;
			usleep(50);
		}
	}
	return true;
}

static inline bool script_play(const struct script_step *s)
{
	static char buf[SCRIPT_BYTES];
	const char *text = script->text + s->at;
	struct pollfd readable = { .fd = script->server[s->conn], .events = POLLIN };

	switch (s->what) {
	case CLIENT_SENDS:
		return write(script->client[s->conn], text, s->len) == (ssize_t)s->len;
	case SERVER_READS:
		return poll(&readable, 1, SCRIPT_STEP_MS) == 1 &&
		       recv(script->server[s->conn], buf, sizeof(buf), 0) >= 0;
	case SERVER_SENDS:
		return write(script->server[s->conn], text, s->len) == (ssize_t)s->len;
	case CLIENT_READS:
		return recv(script->client[s->conn], buf, sizeof(buf), 0) >= 0;
	case CLIENT_CLOSES:
		return close(script->client[s->conn]) == 0;
	}
	return false;
}

/* Either side plays its steps. */
static inline int script_side(bool server)
{
	uint32_t i;

	for (i = 0; i < script->count; i++) {
		const struct script_step *s = &script->steps[i];

		if ((s->what == SERVER_READS || s->what == SERVER_SENDS) != server)
			continue;
		if (!script_wait(i) || !script_play(s)) {
			script->broken = true;
			return 1;
		}
		atomic_store(&script->turn, i + 1);
	}
	return 0;
}

static inline int script_server(void *arg)
{
	(void)arg;
	return script_side(true);
}

/* Makes the connections, plays the script with a traced server (`flags`: of enum
 * probe_process_flag; `service`), takes what was seen. The server's number. */
static inline uint32_t script_run_as(struct watch *w, enum family family, bool nonblock,
				     uint32_t flags, uint16_t service)
{
	struct child c;
	uint32_t i;
	int code;

	watch_reset(w);
	request_count = 0;
	atomic_store(&script->turn, 0);
	for (i = 0; i < SCRIPT_CONNS; i++) {
		struct address a = address_make(family, 0);
		int fds[2];

		CHECK(socket_pair(&a, fds) == 0);
		script->client[i] = fds[0];
		script->server[i] = fds[1];
		if (nonblock)
			fcntl(fds[1], F_SETFL, O_NONBLOCK);
	}
	c = child_make(script_server, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_set_flags(w->probe, (uint32_t)c.pid, flags) == 0);
	CHECK(probe_set_service(w->probe, (uint32_t)c.pid, service) == 0);
	child_go(&c);
	CHECK(script_side(false) == 0);
	code = child_end(w, &c);
	CHECK_SAY(code == 0, "the server ended with %d", code);
	for (i = 0; i < SCRIPT_CONNS; i++) {
		close(script->client[i]);
		close(script->server[i]);
	}
	return (uint32_t)c.pid;
}

static inline uint32_t script_run(struct watch *w)
{
	return script_run_as(w, TCP4, false, 0, 0);
}

/* --- what they say ------------------------------------------------------------------------------
 */

static inline bool is_root(const struct request_event *r)
{
	static const uint8_t none[8] = { 0 };

	return r && !(r->flags & (REQUEST_EVENT_REMOTE | REQUEST_EVENT_JOINED)) &&
	       memcmp(r->parent_span_id, none, sizeof(none)) == 0;
}

static inline size_t requests_of(const struct watch *w, uint32_t pid)
{
	return watch_count(w, SEEN_REQUEST, pid);
}

static inline uint64_t bytes_of(const struct watch *w, uint32_t pid, enum io_dir dir)
{
	const struct seen *s;
	uint64_t sum = 0;
	size_t at = 0;

	while ((s = watch_next(w, SEEN_IO, pid, &at)))
		sum += s->io.dir == dir && !(s->io.flags & IO_LOST) ? s->io.length : 0;
	return sum;
}

/* Each request stands in front of the transfer that completes its head. */
static inline void check_places(const struct watch *w, uint32_t pid)
{
	const struct request_event *due = NULL;
	size_t i;

	for (i = 0; i < w->count; i++) {
		const struct seen *s = &w->seen[i];

		if (s->pid != pid)
			continue;
		if (s->type == SEEN_REQUEST) {
			CHECK(!due);
			due = request_of(s);
		} else if (s->type == SEEN_IO && due) {
			CHECK(s->io.dir == IO_RECV && s->conn_id == due->conn_id);
			CHECK(s->io.data && memcmp(s->io.data + s->io.captured - 1, "\n", 1) == 0);
			CHECK((int32_t)(s->io.tcp_seq - due->tcp_seq) >= 0);
			due = NULL;
		}
	}
	CHECK(!due);
}

#endif
