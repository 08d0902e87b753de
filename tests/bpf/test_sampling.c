/*
 * The sampler's decision in the kernel, as user space would take it; and that of requests that are
 * not sampled, and of processes that report their own spans, nothing is reported while the streams
 * that are stay whole.
 */
#include "requests.h"

/* --- sampling ------------------------------------------------------------------------------------
 */

static void check_ratio(enum probe_collector collector)
{
	enum { N = 200 };
	static const double ratios[] = { 0, 0.01, 0.5, 1 };
	size_t r;

	for (r = 0; r < COUNT(ratios); r++) {
		const struct sampler sampler = { SAMPLER_TRACE_ID_RATIO, true, ratios[r] };
		uint32_t pid, i, kept = 0;
		struct watch w;

		requests_open(&w, collector,
			      (struct probe_options){ .sampler_root = SAMPLER_TRACE_ID_RATIO,
						      .sampler_parent_based = true,
						      .sampler_ratio = ratios[r],
						      .report_unsampled = true });
		script_begin();
		check_scene = "ratio";
		for (i = 0; i < N; i++) {
			script_pass(i % 4 == 1   ? SAMPLED_HEAD
				    : i % 4 == 2 ? UNSAMPLED_HEAD
						 : PLAIN_HEAD);
			script_answer();
		}
		pid = script_run(&w);
		CHECK(requests_of(&w, pid) == N);
		for (i = 0; i < N; i++) {
			const struct request_event *e = &requests_seen[i];
			uint8_t parent = e->trace_flags;
			bool keeps =
				sampler_decide(&sampler, e->trace_id,
					       e->flags & REQUEST_EVENT_REMOTE ? &parent : NULL);

			CHECK(!(e->flags & REQUEST_EVENT_SAMPLED) == !keeps);
			CHECK((e->trace_flags & 1) == keeps);
			CHECK(e->flags & (REQUEST_EVENT_FIXED | REQUEST_EVENT_JOINED) ||
			      is_root(e));
			kept += is_root(e) && keeps;
		}
		/* Half of them are roots. */
		CHECK_SAY(kept + 20 >= N / 2 * ratios[r] && kept <= N / 2 * ratios[r] + 20,
			  "%u of %u at %g", kept, N / 2, ratios[r]);
		watch_close(&w);
	}
}

static void check_root_limit(enum probe_collector collector)
{
	enum { N = 40, LIMIT = 5 };
	uint32_t pid, i, kept = 0, seconds;
	uint64_t begin;
	struct watch w;

	requests_open(&w, collector,
		      (struct probe_options){ .sampler_root = SAMPLER_ALWAYS_ON,
					      .root_limit = LIMIT,
					      .report_unsampled = true });
	script_begin();
	check_scene = "limit of roots";
	for (i = 0; i < N; i++) {
		script_pass(i == 7 ? SAMPLED_HEAD : PLAIN_HEAD);
		script_answer();
	}
	begin = now_ns();
	pid = script_run_as(&w, TCP4, false, 0, 7);
	seconds = (uint32_t)(now_ns() / 1000000000u - begin / 1000000000u) + 1;
	for (i = 0; i < N; i++)
		kept += is_root(&requests_seen[i]) &&
			(requests_seen[i].flags & REQUEST_EVENT_SAMPLED);
	CHECK(requests_of(&w, pid) == N && (requests_seen[7].flags & REQUEST_EVENT_SAMPLED));
	CHECK_SAY(kept >= LIMIT && kept <= LIMIT * seconds, "%u kept in %u seconds", kept, seconds);
	CHECK(w.stats.drops[DROP_ROOT_LIMIT] == N - 1 - kept);
	watch_close(&w);
}

/* --- what is not sampled
 * --------------------------------------------------------------------------- */

static size_t lost_of(const struct watch *w, uint32_t pid)
{
	const struct seen *s;
	size_t at = 0, n = 0;

	while ((s = watch_next(w, SEEN_IO, pid, &at)))
		n += (s->io.flags & IO_LOST) != 0;
	return n;
}

static const char answer_text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static void check_muted(struct watch *w)
{
	static const char body[] =
		"POST / HTTP/1.1\r\nContent-Length: 5\r\ntraceparent: " UNSAMPLED_VALUE "\r\n\r\n";
	const struct seen *open;
	uint32_t pid;

	script_begin();
	check_scene = "muted";
	script_pass(UNSAMPLED_HEAD);
	script_answer();
	script_pass(body);
	script_pass("12345");
	script_answer_on(0, "HTTP/1.1 100 Continue\r\n\r\n");
	script_answer();
	script_pass(SAMPLED_HEAD);
	script_answer();
	script_pass(UNSAMPLED_HEAD);
	script_answer();
	script_pass(SAMPLED_HEAD);
	script_answer();
	/* never reported, so never announced */
	script_bytes_pass(1, UNSAMPLED_HEAD, sizeof(UNSAMPLED_HEAD) - 1);
	script_answer_on(1, answer_text);
	pid = script_run_as(w, TCP4, false, PROBE_TRUST_THREADS, 0);
	open = watch_first(w, SEEN_OPEN, pid);
	CHECK(requests_of(w, pid) == 2 && watch_count(w, SEEN_OPEN, pid) == 1);
	CHECK(open && (open->conn.flags & CONN_FRESH) && (open->conn.flags & CONN_PASSIVE));
	CHECK(lost_of(w, pid) == 0);
	CHECK(bytes_of(w, pid, IO_RECV) == 2 * (sizeof(SAMPLED_HEAD) - 1));
	CHECK(bytes_of(w, pid, IO_SEND) == 2 * (sizeof(answer_text) - 1));
	CHECK_SAY(w->stats.drops[DROP_UNSAMPLED] == 4, "%llu unsampled",
		  (unsigned long long)w->stats.drops[DROP_UNSAMPLED]);
	check_places(w, pid);

	/* Whose bindings nobody vouches for is reported whole. */
	pid = script_run_as(w, TCP4, false, 0, 0);
	CHECK(requests_of(w, pid) == 6 && bytes_of(w, pid, IO_SEND) > 5 * sizeof(answer_text));
	CHECK(!w->stats.drops[DROP_UNSAMPLED]);
}

/* A head of which pieces are with the agent already is reported whole. */
static void check_muted_pieces(struct watch *w)
{
	uint32_t pid;

	script_begin();
	script_pass("GET / HTTP/1.1\r\ntraceparent: ");
	script_pass(UNSAMPLED_VALUE "\r\n\r\n");
	script_answer();
	script_pass(UNSAMPLED_HEAD);
	script_answer();
	script_pass("G");
	script_pass(&SAMPLED_HEAD[1]);
	script_answer();
	pid = script_run_as(w, TCP4, false, PROBE_TRUST_THREADS, 0);
	check_scene = "muted, in pieces";
	CHECK(requests_of(w, pid) == 2 && w->stats.drops[DROP_UNSAMPLED] == 1);
	CHECK(!(requests_seen[0].flags & REQUEST_EVENT_SAMPLED) && lost_of(w, pid) == 0);
	CHECK(bytes_of(w, pid, IO_SEND) == 2 * (sizeof(answer_text) - 1));
}

/* What can't be followed is told of again, and that something is missing. */
static void check_muted_lost(struct watch *w)
{
	uint32_t pid;

	script_begin();
	script_pass(SAMPLED_HEAD);
	script_answer();
	script_pass(UNSAMPLED_HEAD);
	script_pass(SAMPLED_HEAD);
	script_answer();
	script_answer();
	pid = script_run_as(w, TCP4, false, PROBE_TRUST_THREADS, 0);
	check_scene = "muted, then pipelined";
	CHECK(requests_of(w, pid) == 1 && lost_of(w, pid) == 1);
	CHECK(bytes_of(w, pid, IO_RECV) == 2 * (sizeof(SAMPLED_HEAD) - 1));
	CHECK(bytes_of(w, pid, IO_SEND) == 3 * (sizeof(answer_text) - 1));
}

/* --- whom nothing is asked of
 * ---------------------------------------------------------------------- */

static int silent_fork(void *arg)
{
	pid_t pid = fork();
	int status;

	(void)arg;
	if (!pid)
		_exit(script_side(true));
	return waitpid(pid, &status, 0) == pid ? status : 1;
}

/* Nothing of a process that reports its own spans, nor of its children. */
static void check_silent(struct watch *w)
{
	struct address a = address_make(TCP4, 0);
	struct child c;
	uint32_t pid;

	script_begin();
	check_scene = "silent";
	script_pass(SAMPLED_HEAD);
	script_answer();
	pid = script_run_as(w, TCP4, false, PROBE_SILENT, 0);
	CHECK(!requests_of(w, pid) && !watch_count(w, SEEN_IO, pid) &&
	      !watch_count(w, SEEN_OPEN, pid));
	CHECK(watch_count(w, SEEN_EXIT, pid) == 1);
	watch_reset(w);
	atomic_store(&script->turn, 0);
	CHECK(socket_pair(&a, script->client) == 0);
	script->server[0] = script->client[1];
	c = child_make(silent_fork, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_set_flags(w->probe, (uint32_t)c.pid, PROBE_SILENT) == 0);
	child_go(&c);
	CHECK(script_side(false) == 0 && child_end(w, &c) == 0);
	CHECK(watch_count(w, SEEN_FORK, 0) == 1 && !watch_count(w, SEEN_IO, 0));
	close(script->client[0]);
	close(script->server[0]);
}

int main(void)
{
	static const enum probe_collector collectors[] = { PROBE_COLLECTOR_SOCK,
							   PROBE_COLLECTOR_SYSCALL };
	struct watch w;
	size_t i;

	for (i = 0; i < COUNT(collectors); i++) {
		printf("%s:\n", collector_text(collectors[i]));
		check_ratio(collectors[i]);
		check_root_limit(collectors[i]);
		requests_open(&w, collectors[i],
			      (struct probe_options){ .sampler_parent_based = true });
		check_muted(&w);
		check_muted_pieces(&w);
		check_muted_lost(&w);
		check_silent(&w);
		watch_close(&w);
	}
	return check_result();
}
