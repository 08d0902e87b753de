/*
 * Whose work is it, as the kernel side sees it: which context becomes the root of a request, what
 * copies inherit, whom a thread works for, and what calls are bound to because of that. The
 * interpreter is made by hand; scripts of a few steps say what happens and what has to follow.
 */
#include "owner_plays.h"
#include "python_scene.h"
#include "requests.h"

__asm__(".text\n"
	".globl owner_copy\n"
	"owner_copy: push %rbp; mov %rdi, %rax\n"
	".globl owner_copied\n"
	"owner_copied: pop %rbp; ret\n");
void *owner_copy(void *context);
extern const char owner_copied[];

static struct fake_context contexts[CONTEXTS];
static int servers[CONNS], clients[CONNS];
static const struct play *playing;

/* --- the child -------------------------------------------------------------------------------- */

static void enter(int i)
{
	fake_state.context = i < 0 ? 0 : address_of(&contexts[i]);
	if (i >= 0)
		contexts[i].entered = 1;
}

static int play_run(void *arg)
{
	static const char call[] = "GET /call HTTP/1.1\r\nHost: b\r\n\r\n";
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
	int calls[CALLS][2], next = 0;
	const struct step *s;
	char buf[1024];

	(void)arg;
	enter(NONE);
	for (next = 0; next < CALLS; next++) {
		struct address a = address_make(TCP4, 0);

		if (socket_pair(&a, calls[next]))
			return 1;
	}
	next = 0;
	for (s = playing->steps; s->op != END; s++) {
		enter(s->in);
		switch (s->op) {
		case READ:
			if (recv(servers[s->a], buf, s->b ? (size_t)s->b : sizeof(HEAD) - 1, 0) <=
			    0)
				return 2;
			break;
		case COPY:
			contexts[s->a].type = s->b == HIDDEN ? 0 : address_of(&fake_context_type);
			owner_copy(&contexts[s->a]);
			break;
		case CALL:
			if (send(calls[next][0], call, sizeof(call) - 1, MSG_DONTWAIT) <= 0)
				return 3;
			next++;
			break;
		case ANSWER:
			if (write(servers[s->a], answer, sizeof(answer) - 1) <= 0)
				return 4;
			break;
		case OTHER:
			if (write(calls[CALLS - 1][1], "x", 1) != 1 ||
			    recv(calls[CALLS - 1][0], buf, 1, 0) != 1)
				return 5;
			break;
		case SLEEP:
			usleep((useconds_t)s->a * 1000);
			break;
		case HANDLES:
		case END:
			break;
		}
	}
	return 0;
}

/* --- the checks ------------------------------------------------------------------------------- */

static uint32_t play(struct watch *w, const struct play *p, const struct python_layout *l,
		     const char *head)
{
	const struct probe_hook h = { .kind = PROBE_HOOK_CONTEXT_RAX,
				      .path = "/proc/self/exe",
				      .offset = file_offset(address_of(owner_copied)) };
	struct context_handlers handlers = { .since = 0 };
	const struct step *s;
	struct child c;
	int i, k, code;

	check_scene = p->name;
	watch_reset(w);
	request_count = 0;
	playing = p;
	for (i = 0; i < CONNS; i++) {
		struct address a = address_make(TCP4, 0);
		int fds[2];

		CHECK(socket_pair(&a, fds) == 0);
		clients[i] = fds[0];
		servers[i] = fds[1];
		if (!p->blocking)
			fcntl(fds[1], F_SETFL, O_NONBLOCK);
		for (k = 0; k < 3; k++)
			CHECK(write(fds[0], head, strlen(head)) == (ssize_t)strlen(head));
	}
	c = child_make(play_run, NULL);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_set_python(w->probe, (uint32_t)c.pid, l) == 0);
	CHECK(probe_set_flags(w->probe, (uint32_t)c.pid, p->trust) == 0);
	CHECK(probe_set_code(w->probe, (uint32_t)c.pid, address_of(&fake_application),
			     &(struct code_class){ CODE_APPLICATION, 0 }) == 0);
	CHECK(probe_attach_hook(w->probe, (uint32_t)c.pid, &h) == 0);
	for (s = p->steps, i = 0; s->op != END; s++) {
		if (s->op == HANDLES)
			handlers.context[i++] = address_of(&contexts[s->in]);
	}
	if (i)
		CHECK(probe_set_handlers(w->probe, (uint32_t)c.pid, &handlers) == 0);
	child_go(&c);
	code = child_end(w, &c);
	CHECK_SAY(code == 0, "the child ended with %d", code);
	for (i = 0; i < CONNS; i++) {
		close(clients[i]);
		close(servers[i]);
	}
	return (uint32_t)c.pid;
}

/* What is known of a connection while the events are gone through. */
struct known {
	uint64_t conn_id;
	uint8_t span_id[8], trace_id[16]; /* of its last request */
};

static const struct seen *next_of(const struct watch *w, enum seen_type type, uint32_t pid,
				  bool server, size_t *at)
{
	const struct seen *s;

	while ((s = watch_next(w, type, pid, at))) {
		if (type != SEEN_REQUEST ||
		    !(request_of(s)->flags & REQUEST_EVENT_SERVER) == !server)
			return s;
	}
	return NULL;
}

static void check_call(const struct request_event *r, const struct known *k, const struct step *s,
		       int number)
{
	bool bound = r && (r->flags & REQUEST_EVENT_BOUND);

	CHECK_SAY(r, "step %d: no call", number);
	if (!r)
		return;
	CHECK_SAY(bound == (s->b != NONE), "step %d: bound %d", number, bound);
	CHECK_SAY(!(r->flags & REQUEST_EVENT_FIXED) == !s->fixed, "step %d: fixed %d", number,
		  !s->fixed);
	if (bound && s->b != NONE)
		CHECK_SAY(memcmp(r->parent_span_id, k[s->b].span_id, sizeof(r->parent_span_id)) ==
				  0,
			  "step %d: another parent", number);
	/* The trace of a request whose call it only seems to be is not the call's. */
	if (bound && s->b != NONE)
		CHECK_SAY(!memcmp(r->trace_id, k[s->b].trace_id, sizeof(r->trace_id)) == s->fixed,
			  "step %d: the trace of %s", number, s->fixed ? "another" : "its request");
}

static void check_play(struct watch *w, const struct play *p, const struct python_layout *l)
{
	uint32_t pid = play(w, p, l, HEAD);
	size_t requests = 0, calls = 0, copies = 0, ios = 0;
	struct known known[CONNS] = { { 0 } };
	const struct seen *s, *io;
	int i;

	for (i = 0; p->steps[i].op != END; i++) {
		const struct step *t = &p->steps[i];

		if (t->op == READ) {
			while ((io = watch_next(w, SEEN_IO, pid, &ios)) && io->io.dir != IO_RECV)
				;
			CHECK(io);
			s = NULL;
			if (io && (io == w->seen || io[-1].type == SEEN_REQUEST))
				s = next_of(w, SEEN_REQUEST, pid, true, &requests);
			known[t->a].conn_id = io ? io->conn_id : 0;
			if (s) {
				memcpy(known[t->a].span_id, request_of(s)->span_id,
				       sizeof(known[t->a].span_id));
				memcpy(known[t->a].trace_id, request_of(s)->trace_id,
				       sizeof(known[t->a].trace_id));
			}
		} else if (t->op == OTHER) {
			while ((io = watch_next(w, SEEN_IO, pid, &ios)) && io->io.dir != IO_RECV)
				;
		} else if (t->op == COPY) {
			uint64_t root;

			s = watch_next(w, SEEN_CONTEXT, pid, &copies);
			root = t->b < 0 ? 0 : known[t->b].conn_id;
			CHECK_SAY(s && s->context.root_of == root &&
					  s->context.object == address_of(&contexts[t->a]),
				  "step %d: root of %llu, not %llu", i,
				  s ? (unsigned long long)s->context.root_of : 0,
				  (unsigned long long)root);
		} else if (t->op == CALL) {
			check_call(request_of(next_of(w, SEEN_REQUEST, pid, false, &calls)), known,
				   t, i);
		}
	}
}

/* The frames of work for what is not sampled are not looked at, and all copies are told of. */
static void check_walks(struct watch *w)
{
	static const struct play p = { "frames of what is not sampled",
				       PROBE_TRUST_CONTEXTS,
				       false,
				       { { READ, 0, 0, 0, false },
					 { COPY, 0, 1, 0, false },
					 { COPY, 1, 2, NONE, false },
					 { CALL, 2, 0, 0, true },
					 { COPY, 4, 5, NONE, false },
					 { CALL, 5, 0, NONE, false } } };
	struct python_layout l = fake_layout();
	const struct seen *s;
	size_t at = 0, n = 0;
	uint32_t pid;
	int sampled;

	l.walks = PYTHON_WALK_MAKERS;
	FAKE_STACK(&fake_application);
	for (sampled = 0; sampled < 2; sampled++) {
		pid = play(w, &p, &l, sampled ? HEAD : UNSAMPLED);
		CHECK(watch_count(w, SEEN_CONTEXT, pid) == 3);
		for (n = 0, at = 0; (s = watch_next(w, SEEN_CONTEXT, pid, &at)); n++)
			CHECK_SAY(s->has_site == (sampled || n == 2), "copy %zu of %d", n, sampled);
		for (n = 0, at = 0; (s = watch_next(w, SEEN_IO, pid, &at));) {
			if (s->io.dir == IO_SEND)
				CHECK_SAY(s->has_site == (sampled || n++ == 1), "call of %d",
					  sampled);
		}
	}
	FAKE_STACK(&fake_library);
}

/* Where what is not sampled is not reported: an address that comes again is told of, but for
 * (without `fixed`) when it was of the very same request. */
static void check_again(struct watch *w, const struct python_layout *l)
{
	static const struct play p = { "addresses that come again",
				       PROBE_TRUST_CONTEXTS,
				       false,
				       { { READ, 0, 0, 0, false },
					 { COPY, 0, 1, 0, true },
					 { COPY, 1, 2, NONE, true },
					 { COPY, 1, 2, NONE, false },
					 { COPY, 2, 3, NONE, true },
					 { COPY, 1, 3, NONE, false },
					 { READ, 0, 1, 0, false },
					 { COPY, 0, 4, 1, true },
					 { COPY, 4, 2, NONE, true }, /* another request's */
					 { COPY, 4, 2, NONE, false },
					 { COPY, 0, 2, NONE, true }, /* nobody's */
					 { COPY, 0, 2, NONE, true },
					 { COPY, 1, 2, NONE, true },
					 { COPY, 1, 2, NONE, false } } };
	const struct seen *s;
	uint32_t pid;
	int sampled, i;
	size_t at;

	for (sampled = 0; sampled < 2; sampled++) {
		pid = play(w, &p, l, sampled ? HEAD : UNSAMPLED);
		for (i = 0, at = 0; p.steps[i].op != END; i++) {
			const struct step *t = &p.steps[i];

			if (t->op != COPY || !(sampled || t->fixed))
				continue;
			s = watch_next(w, SEEN_CONTEXT, pid, &at);
			CHECK_SAY(s && s->context.object == address_of(&contexts[t->a]) &&
					  s->context.context == address_of(&contexts[t->in]) &&
					  !s->context.root_of == (t->b == NONE),
				  "step %d, sampled %d", i, sampled);
		}
		CHECK_SAY(!watch_next(w, SEEN_CONTEXT, pid, &at), "more, sampled %d", sampled);
	}
}

int main(void)
{
	static const enum probe_collector collectors[] = { PROBE_COLLECTOR_SOCK,
							   PROBE_COLLECTOR_SYSCALL };
	struct python_layout l = fake_layout();
	struct watch w;
	size_t i, k;

	for (i = 0; i < COUNT(collectors); i++) {
		printf("%s:\n", collector_text(collectors[i]));
		requests_open(&w, collectors[i],
			      (struct probe_options){ .sampler_parent_based = true,
						      .report_unsampled = true });
		for (k = 0; k < COUNT(plays); k++)
			check_play(&w, &plays[k], &l);
		check_walks(&w);
		watch_close(&w);
		requests_open(&w, collectors[i],
			      (struct probe_options){ .sampler_parent_based = true });
		check_again(&w, &l);
		watch_close(&w);
	}
	return check_result();
}
