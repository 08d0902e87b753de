/*
 * Requests as the kernel side recognises them: the ids that come with a head, however it is cut,
 * and what begins a request and what doesn't.
 */
#include "requests.h"
#include "trace/trace_context.h"

static const uint8_t trace_bytes[16] = { 0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd,
					 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c };
static const uint8_t parent_bytes[8] = { 0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31 };

static bool is_remote(const struct request_event *r)
{
	return r && (r->flags & REQUEST_EVENT_REMOTE) && (r->flags & REQUEST_EVENT_FIXED) &&
	       memcmp(r->trace_id, trace_bytes, sizeof(trace_bytes)) == 0 &&
	       memcmp(r->parent_span_id, parent_bytes, sizeof(parent_bytes)) == 0;
}

/* Request number `i` of the process, or NULL. */
static const struct request_event *nth(const struct watch *w, uint32_t pid, size_t i)
{
	const struct seen *s = NULL;
	size_t at = 0;

	do
		s = watch_next(w, SEEN_REQUEST, pid, &at);
	while (s && i--);
	return request_of(s);
}

/* --- heads ------------------------------------------------------------------------------------ */

static void check_splits(struct watch *w, enum family family)
{
	static const char head[] =
		"POST /items?q=1 HTTP/1.1\r\nHost: a.example\r\nTraceParent:\t" SAMPLED_VALUE
		" \r\ncontent-length: 0\r\nx: y\r\n\r\n";
	size_t len = sizeof(head) - 1, i;
	const struct seen *s;
	uint32_t pid, n = 0;
	size_t at = 0;

	script_begin();
	check_scene = family_names[family];
	for (i = 1; i < len; i++) {
		script_bytes_pass(0, head, i);
		script_bytes_pass(0, head + i, len - i);
		script_answer();
	}
	for (i = 0; i < len; i++)
		script_bytes_pass(0, head + i, 1);
	script_answer();
	pid = script_run_as(w, family, false, 0, 0);
	CHECK_SAY(requests_of(w, pid) == len, "%zu requests of %zu", requests_of(w, pid), len);
	while ((s = watch_next(w, SEEN_REQUEST, pid, &at))) {
		CHECK_SAY(is_remote(request_of(s)) &&
				  (request_of(s)->flags & REQUEST_EVENT_SAMPLED),
			  "split %u", n);
		n++;
	}
	check_places(w, pid);
}

/* The request's first byte, also where its head came in pieces. */
static void check_first_byte(struct watch *w)
{
	const struct seen *io;
	uint32_t pid;
	size_t at = 0;

	script_begin();
	check_scene = "first byte";
	script_pass("GET / HT");
	script_pass("TP/1.1\r\nHost: a\r\n");
	script_pass("\r\n");
	script_answer();
	pid = script_run(w);
	io = watch_next(w, SEEN_IO, pid, &at);
	CHECK(requests_of(w, pid) == 1 && io);
	if (requests_of(w, pid) == 1 && io)
		CHECK(nth(w, pid, 0)->tcp_seq == io->io.tcp_seq &&
		      nth(w, pid, 0)->tcp_peer_seq == io->io.tcp_peer_seq);
}

enum { VALID, INVALID };

static const struct {
	const char *lines;
	int valid;
	uint8_t flags;
} contexts[] = {
	{ "traceparent: " SAMPLED_VALUE "\r\n", VALID, 1 },
	{ "TRACEPARENT: " UNSAMPLED_VALUE "\r\n", VALID, 0 },
	{ "tRaCePaReNt:" SAMPLED_VALUE "\r\n", VALID, 1 },
	{ "traceparent:  \t " SAMPLED_VALUE " \t \r\n", VALID, 1 },
	{ "traceparent: " SAMPLED_VALUE "\n", VALID, 1 },
	{ "traceparent : " SAMPLED_VALUE "\r\n", VALID, 1 },
	{ "traceparent: 00-" TRACE "-" PARENT "-02\r\n", VALID, 2 },
	{ "traceparent: 00-" TRACE "-" PARENT "-03\r\n", VALID, 3 },
	{ "traceparent: 00-" TRACE "-" PARENT "-ff\r\n", VALID, 0xff },
	{ "traceparent: cc-" TRACE "-" PARENT "-01\r\n", VALID, 1 },
	{ "traceparent: 01-" TRACE "-" PARENT "-01-what-the-future-holds\r\n", VALID, 1 },
	{ "traceparent: fe-" TRACE "-" PARENT "-01-\r\n", VALID, 1 },
	{ "traceparent: 01-" TRACE "-" PARENT "-01.what\r\n", INVALID, 0 },
	{ "traceparent: 01-" TRACE "-" PARENT "-011\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-" PARENT "-01-more\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-" PARENT "-01-\r\n", INVALID, 0 },
	{ "traceparent: ff-" TRACE "-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 0-" TRACE "-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-B7AD6B7169203331-01\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-" PARENT "-0A\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-" PARENT "-0x\r\n", INVALID, 0 },
	{ "traceparent: 0g-" TRACE "-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-0af7651916cd43dd8448eb211c80319`-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-0af7651916cd43dd8448eb211c80319g-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-0af7651916cd43dd8448eb211c80319:-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-0af7651916cd43dd8448eb211c80319/-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-b7ad6b716920333\xb1-01\r\n", INVALID, 0 },
	{ "traceparent: 00-00000000000000000000000000000000-" PARENT "-01\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-0000000000000000-01\r\n", INVALID, 0 },
	{ "traceparent: 00_" TRACE "_" PARENT "_01\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-" PARENT "-1\r\n", INVALID, 0 },
	{ "traceparent: 00-" TRACE "-" PARENT "\r\n", INVALID, 0 },
	{ "traceparent:\r\n", INVALID, 0 },
	{ "traceparent\r\n", INVALID, 0 },
	{ "traceparents: " SAMPLED_VALUE "\r\n", INVALID, 0 },
	{ "xtraceparent: " SAMPLED_VALUE "\r\n", INVALID, 0 },
	{ "trace-parent: " SAMPLED_VALUE "\r\n", INVALID, 0 },
	{ " traceparent: " SAMPLED_VALUE "\r\n", INVALID, 0 },
	{ "traceparent: " SAMPLED_VALUE "\r\ntraceparent: " SAMPLED_VALUE "\r\n", INVALID, 0 },
	{ "traceparent: " SAMPLED_VALUE "\r\nx: y\r\nTraceparent: bad\r\n", INVALID, 0 },
	{ "traceparent: \"" SAMPLED_VALUE "\"\r\n", INVALID, 0 },
	{ "tracestate: a=b\r\ntraceparent: " SAMPLED_VALUE "\r\n", VALID, 1 },
};

/* The first traceparent as user space reads it. */
static bool user_space_says(const char *lines)
{
	const char *value = strchr(lines, ':');
	struct trace_context tc;
	size_t len;

	if (!value)
		return false;
	value += 1 + strspn(value + 1, " \t");
	len = strcspn(value, "\r\n");
	while (len && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		len--;
	return trace_context_parse(slice_of((const uint8_t *)value, len), &tc);
}

static void check_contexts(struct watch *w)
{
	char head[512];
	uint32_t pid;
	size_t i;

	script_begin();
	check_scene = "W3C";
	for (i = 0; i < COUNT(contexts); i++) {
		snprintf(head, sizeof(head), "GET /x HTTP/1.1\r\nHost: a\r\n%sAccept: */*\r\n\r\n",
			 contexts[i].lines);
		script_pass(head);
		script_answer();
	}
	pid = script_run(w);
	CHECK(requests_of(w, pid) == COUNT(contexts));
	for (i = 0; i < COUNT(contexts) && i < requests_of(w, pid); i++) {
		const struct request_event *r = nth(w, pid, i);
		bool valid = contexts[i].valid == VALID;

		CHECK_SAY(valid ? is_remote(r) : is_root(r), "%s", contexts[i].lines);
		CHECK_SAY(!valid || r->trace_flags == contexts[i].flags, "%s: flags %02x",
			  contexts[i].lines, r->trace_flags);
		if (valid && strncmp(contexts[i].lines, "tracestate", 10) != 0)
			CHECK_SAY(user_space_says(contexts[i].lines), "user space: %s",
				  contexts[i].lines);
	}
}

/* Wherever it stands in the head, and whatever is in front of it. */
static void check_long_heads(struct watch *w)
{
	static const size_t fillers[] = { 100,  180,  190,  200,  960, 1000,
					  1024, 1030, 2047, 4000, 7900 };
	static char head[SCRIPT_BYTES];
	uint32_t pid;
	size_t i, n;

	script_begin();
	check_scene = "long heads";
	for (i = 0; i < COUNT(fillers); i++) {
		n = (size_t)snprintf(head, sizeof(head), "GET /%0*d HTTP/1.1\r\ncookie: ",
				     (int)(i % 2 ? fillers[i] / 2 : 1), 7);
		memset(head + n, 'c', fillers[i] - fillers[i] / 2 * (i % 2));
		n += fillers[i] - fillers[i] / 2 * (i % 2);
		n += (size_t)snprintf(head + n, sizeof(head) - n, "\r\ntraceparent: %s\r\n\r\n",
				      SAMPLED_VALUE);
		script_bytes_pass(0, head, n);
		script_answer();
		/* in two reads, cut in what is long, and near the end of the request line */
		script_bytes_pass(0, head, n / 2);
		script_bytes_pass(0, head + n / 2, n - n / 2);
		script_answer();
		n = (size_t)(strstr(head, "HTTP/") + 3 - head);
		script_bytes_pass(0, head, n);
		script_bytes_pass(0, head + n, strlen(head) - n);
		script_answer();
	}
	/* many short lines */
	n = (size_t)snprintf(head, sizeof(head), "GET / HTTP/1.1\r\n");
	while (n < 6000)
		n += (size_t)snprintf(head + n, sizeof(head) - n, "a: b\n");
	snprintf(head + n, sizeof(head) - n, "traceparent: %s\r\n\r\n", SAMPLED_VALUE);
	script_pass(head);
	script_answer();
	pid = script_run(w);
	n = 3 * COUNT(fillers) + 1;
	CHECK_SAY(requests_of(w, pid) == n, "%zu requests", requests_of(w, pid));
	for (i = 0; i < n; i++)
		CHECK_SAY(is_remote(nth(w, pid, i)), "head %zu", i);
}

/* --- what begins a request ----------------------------------------------------------------------
 */

static const struct {
	const char *name;
	const char *steps[12]; /* "<": the server reads what follows; ">": it sends that */
	size_t requests;       /* that are claimed */
} flows[] = {
	{ "keep-alive",
	  { "<" PLAIN_HEAD, ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD, ">HTTP/1.0 404 No\r\n\r\n",
	    "<" PLAIN_HEAD },
	  3 },
	{ "an answer in pieces",
	  { "<" PLAIN_HEAD, ">HTTP/1.1 200 OK\r\n", ">\r\n", ">body", "<" PLAIN_HEAD },
	  2 },
	{ "a body that looks like a request",
	  { "<POST / HTTP/1.1\r\nContent-Length: 54\r\n\r\n", "<" PLAIN_HEAD, "<" PLAIN_HEAD,
	    ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "a body behind the answer",
	  { "<POST / HTTP/1.1\r\nContent-Length: 27\r\n\r\n", ">HTTP/1.1 400 No\r\n\r\n",
	    "<" PLAIN_HEAD, "<" PLAIN_HEAD },
	  2 },
	{ "chunks that look like requests",
	  { "<POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "<" PLAIN_HEAD, "<0\r\n\r\n",
	    ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "two in one read",
	  { "<" PLAIN_HEAD PLAIN_HEAD, ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  0 },
	{ "the second before the answer",
	  { "<" PLAIN_HEAD, "<" PLAIN_HEAD, ">HTTP/1.1 200 OK\r\n\r\n", ">HTTP/1.1 200 OK\r\n\r\n",
	    "<" PLAIN_HEAD },
	  1 },
	{ "the second before the answer's end",
	  { "<" PLAIN_HEAD, ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD, ">rest of it",
	    ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "100 Continue",
	  { "<PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
	    ">HTTP/1.1 100 Continue\r\n\r\n", "<GET ", ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "early hints",
	  { "<" PLAIN_HEAD, ">HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
	    ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "upgrade",
	  { "<GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
	    ">HTTP/1.1 101 Switching Protocols\r\n\r\n", "<" PLAIN_HEAD, ">x", "<" PLAIN_HEAD },
	  1 },
	{ "CONNECT",
	  { "<CONNECT a:1 HTTP/1.1\r\n\r\n", ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  0 },
	{ "another protocol", { "<PING\r\n", ">+PONG\r\n", "<" PLAIN_HEAD }, 0 },
	{ "nearly HTTP", { "<GET /\r\n\r\n", ">x", "<" PLAIN_HEAD }, 1 },
	{ "nearly a method", { "<GETS / HTTP/1.1\r\n\r\n", ">x", "<" PLAIN_HEAD }, 0 },
	{ "an unknown method later",
	  { "<" PLAIN_HEAD, ">HTTP/1.1 200 OK\r\n\r\n", "<MOVE / HTTP/1.1\r\n\r\n",
	    ">HTTP/1.1 200 OK\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "answered before the head was complete",
	  { "<GET / HTTP/1.1\r\nHo", ">HTTP/1.1 408 Late\r\n\r\n", "<" PLAIN_HEAD },
	  0 },
	{ "lengths that disagree",
	  { "<POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "<" PLAIN_HEAD,
	    ">HTTP/1.1 400 No\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
	{ "no length",
	  { "<POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "<" PLAIN_HEAD,
	    ">HTTP/1.1 400 No\r\n\r\n", "<" PLAIN_HEAD },
	  2 },
};

static void check_flows(struct watch *w, enum family family)
{
	size_t i, k;

	for (i = 0; i < COUNT(flows); i++) {
		uint32_t pid;

		script_begin();
		check_scene = flows[i].name;
		for (k = 0; k < COUNT(flows[i].steps) && flows[i].steps[k]; k++) {
			if (flows[i].steps[k][0] == '<')
				script_pass(flows[i].steps[k] + 1);
			else
				script_answer_on(0, flows[i].steps[k] + 1);
		}
		pid = script_run_as(w, family, i % 2, 0, 0);
		CHECK_SAY(requests_of(w, pid) == flows[i].requests, "%s: %zu requests, not %zu",
			  family_names[family], requests_of(w, pid), flows[i].requests);
	}
}

/* Ids are not used twice. */
static void check_ids(struct watch *w)
{
	enum { N = 300 };
	uint32_t pid, i, k;
	bool same = false;

	script_begin();
	check_scene = "ids";
	for (i = 0; i < N; i++) {
		script_pass(PLAIN_HEAD);
		script_answer();
	}
	pid = script_run(w);
	CHECK(requests_of(w, pid) == N);
	for (i = 0; i < N; i++) {
		for (k = 0; k < i; k++)
			same |= !memcmp(requests_seen[i].trace_id, requests_seen[k].trace_id, 8) ||
				!memcmp(requests_seen[i].trace_id + 8,
					requests_seen[k].trace_id + 8, 8) ||
				!memcmp(requests_seen[i].span_id, requests_seen[k].span_id, 8);
	}
	CHECK(!same);
}

/*
 * A trace that begins here is settled where no traced process of this host can have made the call;
 * where one may have, and tells of it later, it isn't. (The last scene: this process is traced.)
 */
static void check_callers(struct watch *w)
{
	uint32_t pid;

	script_begin();
	check_scene = "callers";
	script_pass(PLAIN_HEAD);
	script_answer();
	pid = script_run_as(w, UNIX_STREAM, false, 0, 0);
	CHECK(requests_of(w, pid) == 1 && (requests_seen[0].flags & REQUEST_EVENT_FIXED));
	CHECK(probe_trace(w->probe, (uint32_t)getpid()) == 0);
	pid = script_run_as(w, UNIX_STREAM, false, 0, 0);
	CHECK(requests_of(w, pid) == 1 && !(nth(w, pid, 0)->flags & REQUEST_EVENT_FIXED));
}

int main(void)
{
	static const enum probe_collector collectors[] = { PROBE_COLLECTOR_SOCK,
							   PROBE_COLLECTOR_SYSCALL };
	struct watch w;
	size_t i;

	for (i = 0; i < COUNT(collectors); i++) {
		printf("%s:\n", collector_text(collectors[i]));
		requests_open(&w, collectors[i],
			      (struct probe_options){ .sampler_parent_based = true });
		check_splits(&w, TCP4);
		check_splits(&w, UNIX_STREAM);
		check_first_byte(&w);
		check_contexts(&w);
		check_long_heads(&w);
		check_flows(&w, TCP4);
		check_flows(&w, TCP6);
		check_ids(&w);
		check_callers(&w);
		watch_close(&w);
	}
	return check_result();
}
