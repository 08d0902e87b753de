/*
 * What is told of an interpreter at each transfer: the context, who called, which route answers,
 * which custom spans are on the stack; by every layout that versions of CPython and C libraries
 * have, and nothing that is not so where the memory says something else. No Python is needed.
 */
#include "python_scene.h"
#include "sockets.h"

enum { EVENTS_MAX = 16, RULE = 7, TEMPLATE_OFFSET = 24, DEEP = FAKE_FRAMES };

static const struct classified classes[] = {
	{ &fake_library, { CODE_LIBRARY, 0 } },
	{ &fake_application, { CODE_APPLICATION, 0 } },
	{ &fake_other, { CODE_APPLICATION, 0 } },
	{ &fake_span, { CODE_SPAN, RULE | 5 << 16 /* its first and its third local */ } },
	{ &fake_stop, { CODE_STOP, 0 } },
	{ &fake_pool, { CODE_POOL, 0 } },
	{ &fake_work, { CODE_WORK, 0 } },
	{ &fake_answer_self, { CODE_ANSWER_SELF, 2 } },
	{ &fake_answer_local, { CODE_ANSWER_LOCAL, 3 } },
	{ &fake_answer_match, { CODE_ANSWER_MATCH, 1 | 2 << 8 | TEMPLATE_OFFSET << 16 } },
};

static void classify_all(struct watch *w, uint32_t pid)
{
	const struct python_scene s = { classes, COUNT(classes), NULL, NULL };

	scene_classify(w, pid, &s);
}

/* A child with this interpreter, from its start to its end. */
static uint32_t scene_run(struct watch *w, const char *scene, const struct python_layout *layout,
			  int (*run)(void *arg))
{
	const struct python_scene s = { classes, COUNT(classes), NULL, run };

	return scene_play(w, scene, layout, &s);
}

/* The transfers, in their order; at least `min` of them. False: there are fewer. */
static bool transfers_of(const struct watch *w, uint32_t pid, const struct seen **ret, size_t min)
{
	const struct seen *s;
	size_t at = 0, n = 0;

	while (n < EVENTS_MAX && (s = watch_next(w, SEEN_IO, pid, &at)))
		ret[n++] = s;
	CHECK_SAY(n >= min, "%zu transfers, not %zu", n, min);
	return n >= min;
}

/* --- contexts and callers --------------------------------------------------------------------- */

/* Both ends of a connection in turn, each step with what the interpreter has then. */
static int talk_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2];

	(void)arg;
	fake_enter(0, true);
	if (socket_pair(&a, fds))
		return 1;
	fake_enter(1, true);
	FAKE_STACK(&fake_library, &fake_unknown, &fake_application, &fake_other, &fake_stop,
		   &fake_work);
	if (socket_move(fds[0], fds[1], 10) || socket_move(fds[0], fds[1], 10))
		return 2;
	fake_enter(1, false); /* a thread's own */
	if (socket_move(fds[1], fds[0], 10))
		return 3;
	fake_enter(-1, false);
	FAKE_STACK(&fake_library, &fake_application, &fake_library, &fake_work, &fake_other);
	if (socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10))
		return 4;
	FAKE_STACK(&fake_library, &fake_stop, &fake_application);
	if (socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10))
		return 5;
	fake_state.thread_id++; /* another thread's state */
	fake_enter(0, true);
	return socket_move(fds[0], fds[1], 10) ? 6 : 0;
}

static bool context_is(const struct seen *s, uint64_t context)
{
	return s->io.context == context && (s->io.flags & IO_RUNTIME);
}

static void check_talk(struct watch *w, const char *scene, const struct python_layout *layout)
{
	uint32_t pid = scene_run(w, scene, layout, talk_run);
	uint64_t one = address_of(&fake_contexts[0]), two = address_of(&fake_contexts[1]);
	const struct seen *t[EVENTS_MAX], *s;
	size_t at = 0, opened = 0;

	while ((s = watch_next(w, SEEN_OPEN, pid, &at))) {
		opened++;
		CHECK(s->conn.connect_context == (s->conn.flags & CONN_ACTIVE ? one : 0));
	}
	CHECK(opened == 2);
	if (!transfers_of(w, pid, t, 14))
		return;
	/* The request, and its second part: a caller is told where it begins. */
	CHECK(context_is(t[0], two) && t[0]->io.dir == IO_SEND && t[0]->has_site);
	CHECK(t[0]->site.caller == address_of(&fake_application) && !t[0]->site.pooled &&
	      !t[0]->site.cut && !t[0]->site.work && !t[0]->site.span_count);
	CHECK(context_is(t[1], two) && !t[1]->has_site && !t[1]->has_route);
	CHECK(context_is(t[2], two) && !t[2]->has_site);
	CHECK(context_is(t[4], 0) && context_is(t[5], 0));
	/* Without a context the frames further out matter. */
	CHECK(context_is(t[6], 0) && t[6]->has_site && t[6]->site.pooled &&
	      t[6]->site.caller == address_of(&fake_application) && t[6]->site.work == 300);
	/* Nobody's. */
	CHECK(context_is(t[10], 0) && t[10]->site.nobody && !t[6]->site.nobody);
	CHECK(context_is(t[12], 0) && !t[14 - 1]->has_site);
	/* Asked for by the request and by the answer. */
	s = watch_first(w, SEEN_UNKNOWN, pid);
	CHECK(s && s->code == address_of(&fake_unknown) && watch_count(w, SEEN_UNKNOWN, pid) == 2);
	CHECK(!w->stats.drops[DROP_PYTHON_READ_FAULT] && !w->stats.drops[DROP_PYTHON_STACK_CUT]);
}

/* What versions and C libraries have otherwise. */
static void check_layouts(struct watch *w)
{
	static uint64_t *musl[64];
	static const uint64_t tags = 3;
	struct python_layout l = fake_layout();
	pthread_key_t far = 0;

	check_talk(w, "3.13", &l);

	l.cframe_frame = 8;
	l.tstate_frame = offsetof(struct fake_state, between);
	fake_state.between[0] = address_of(fake_cframe);
	check_talk(w, "3.11: a frame behind a frame", &l);

	l = fake_layout();
	l.frame_owner = PYTHON_NONE;
	l.reference_tags = tags;
	fake_tag = 1;
	check_talk(w, "tagged references", &l);
	fake_tag = 0;

	/* The slot itself is where musl keeps the array. */
	l = fake_layout();
	l.tsd_offset = (uint16_t)(l.tsd_offset + l.tss_key * 16 + 8);
	l.tsd = PYTHON_TSD_MUSL;
	l.tss_key = 5;
	musl[5] = (uint64_t *)&fake_state;
	pthread_setspecific(fake_key, musl);
	check_talk(w, "musl", &l);

	/* Behind the first keys glibc has blocks of them. */
	l = fake_layout();
	pthread_setspecific(fake_key, NULL);
	while (far < 40 && pthread_key_create(&far, NULL) == 0)
		;
	pthread_setspecific(far, &fake_state);
	l.tss_key = far;
	CHECK(far >= 32);
	check_talk(w, "glibc, a high key", &l);

	/* No state: a thread that isn't Python's. */
	pthread_setspecific(far, NULL);
	check_scene = "no state";
	{
		uint32_t pid = scene_run(w, "no state", &l, talk_run);
		const struct seen *t[EVENTS_MAX];

		if (transfers_of(w, pid, t, 1))
			CHECK(context_is(t[0], 0) && !t[0]->has_site);
	}
}

/* --- what can't be read, and what is too deep ---------------------------------------------------
 */

static int broken_run(void *arg)
{
	const struct fake_class *deep[DEEP + 1] = { NULL };
	struct address a = address_make(TCP4, 0);
	int fds[2], i;

	(void)arg;
	fake_enter(1, true);
	for (i = 0; i < DEEP; i++)
		deep[i] = &fake_library;
	fake_stack(deep);
	if (socket_pair(&a, fds) || socket_move(fds[0], fds[1], 10) ||
	    socket_move(fds[1], fds[0], 10))
		return 1;
	FAKE_STACK(&fake_library, &fake_library);
	fake_frames[1].previous = 8; /* nothing is there */
	if (socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10))
		return 2;
	fake_state.context = 16; /* nor there: the context is unknown then, not none */
	if (socket_move(fds[0], fds[1], 10))
		return 3;
	return 0;
}

static void check_broken(struct watch *w)
{
	struct python_layout l = fake_layout();
	uint32_t pid = scene_run(w, "broken and deep", &l, broken_run);
	const struct seen *t[EVENTS_MAX];

	if (!transfers_of(w, pid, t, 10))
		return;
	CHECK(t[0]->has_site && t[0]->site.cut && !t[0]->site.caller);
	CHECK(t[4]->has_site && t[4]->site.cut);
	CHECK(!(t[8]->io.flags & IO_RUNTIME) && !t[8]->has_site && !t[8]->io.context);
	CHECK(w->stats.drops[DROP_PYTHON_STACK_CUT] == 1);
	/* The frames (the server's answer looks at them, too), and the context of each transfer and
	 * of the call that begins with one of them. */
	CHECK_SAY(w->stats.drops[DROP_PYTHON_READ_FAULT] == 5, "%llu faults",
		  (unsigned long long)w->stats.drops[DROP_PYTHON_READ_FAULT]);
}

/* --- custom spans -------------------------------------------------------------------------------
 */

static int spans_run(void *arg)
{
	struct address a = address_make(UNIX_STREAM, 0);
	int fds[2];

	(void)arg;
	fake_enter(1, true);
	FAKE_STACK(&fake_library, &fake_span, &fake_application, &fake_span, &fake_stop);
	fake_frames[3].locals[0] = 77;
	if (socket_pair(&a, fds) || socket_move(fds[0], fds[1], 10))
		return 1;
	FAKE_STACK(&fake_library, &fake_application);
	fake_frames[0].owner = 3; /* not Python's: its code is none */
	fake_frames[0].code = address_of(&fake_unknown);
	return socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10) ? 2 : 0;
}

static void check_spans(struct watch *w)
{
	struct python_layout l = fake_layout();
	const struct seen *t[EVENTS_MAX];
	const struct runtime_site *site;
	uint32_t pid;

	l.walks = PYTHON_WALK_EVENTS;
	pid = scene_run(w, "custom spans", &l, spans_run);
	if (!transfers_of(w, pid, t, 6))
		return;
	site = &t[0]->site;
	CHECK(t[0]->has_site && site->span_count == 2);
	CHECK(site->caller == address_of(&fake_span));
	CHECK(site->spans[0].rule == RULE && site->spans[1].rule == RULE);
	CHECK(site->spans[0].code == address_of(&fake_span));
	CHECK(site->spans[0].frame == address_of(&fake_frames[1]) &&
	      site->spans[1].frame == address_of(&fake_frames[3]));
	CHECK(site->spans[0].args && site->spans[0].args != site->spans[1].args);
	/* Nobody asks what is received, and what goes on with a request. */
	CHECK(!t[1]->has_site && !t[2]->has_site && !t[3]->has_site && !t[5]->has_site);
	CHECK(t[4]->has_site && !t[4]->site.span_count && !t[4]->site.cut);
	CHECK(!watch_count(w, SEEN_UNKNOWN, pid));
}

/* --- routes -------------------------------------------------------------------------------------
 */

static struct fake_object answerer, match;
static struct fake_dict scope, inner, attributes;
static struct fake_keys scope_keys, inner_keys;
static struct fake_keys_old old_keys;
static struct fake_str root_path, route_name[6];
static uint64_t apart[FAKE_VALUES]; /* values that aren't within their object */
static const struct fake_class *answer_with;

enum { ROUTE = 1001, ENDPOINT, ROUTER, ROUTE_CONTEXT };

static int answer_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2];

	(void)arg;
	fake_enter(0, true);
	if (socket_pair(&a, fds) || socket_move(fds[0], fds[1], 10))
		return 1;
	FAKE_STACK(&fake_library, &fake_unknown, answer_with, &fake_answer_self);
	fake_frames[2].locals[0] = address_of(&answerer.refcount);
	fake_frames[2].locals[1] = address_of(&answerer.refcount);
	fake_frames[2].locals[3] = address_of(&scope);
	return socket_move(fds[1], fds[0], 10) || socket_move(fds[1], fds[0], 10);
}

static void keys_fill(struct python_layout *l)
{
	const uint64_t values[] = { ROUTE, ENDPOINT, ROUTER, address_of(&root_path),
				    address_of(&inner) };
	uint64_t *keys[] = { &l->key_route, &l->key_endpoint, &l->key_router, &l->key_root_path,
			     &l->key_fastapi };
	size_t i;

	memset(&scope_keys, 0, sizeof(scope_keys));
	scope_keys.log2_index_bytes = 3;
	scope_keys.kind = 1;
	old_keys.size = sizeof(old_keys.indices);
	for (i = 0; i < COUNT(keys); i++) {
		*keys[i] = address_of(&route_name[i]);
		/* The first entry was deleted. */
		scope_keys.entries[i + 1].key = old_keys.entries[i + 1].key = *keys[i];
		scope_keys.entries[i + 1].value = old_keys.entries[i + 1].value = values[i];
	}
	scope_keys.count = old_keys.count = i + 1;
	l->key_route_context = address_of(&route_name[5]);
	/* Inside, only one key means anything. */
	inner_keys = (struct fake_keys){ .log2_index_bytes = 3, .kind = 1, .count = 2 };
	inner_keys.entries[0].key = l->key_route;
	inner_keys.entries[0].value = 1;
	inner_keys.entries[1].key = l->key_route_context;
	inner_keys.entries[1].value = ROUTE_CONTEXT;
	scope.keys = address_of(&scope_keys);
	inner.keys = address_of(&inner_keys);
	memcpy(root_path.text, "/mounted", 8);
	root_path.length = 8;
	root_path.state = 1 << 6;
}

/* The first transfer of the answer: the third in all. */
static const struct seen *answer_seen(struct watch *w, const char *scene,
				      const struct python_layout *l, const struct fake_class *with)
{
	const struct seen *t[EVENTS_MAX];
	uint32_t pid;

	answer_with = with;
	pid = scene_run(w, scene, l, answer_run);
	if (!transfers_of(w, pid, t, 6))
		return NULL;
	CHECK(!t[2]->has_site && !t[3]->has_route && !t[4]->has_route);
	CHECK(watch_count(w, SEEN_UNKNOWN, pid) == 1);
	return t[2];
}

static void check_answer(struct watch *w, const char *scene, const struct python_layout *l,
			 const struct fake_class *with)
{
	const struct seen *s = answer_seen(w, scene, l, with);
	const struct runtime_route *r = s ? &s->route : NULL;

	if (!s)
		return;
	CHECK(s->has_route && r->scope == address_of(&scope) && r->route == ROUTE);
	CHECK(r->endpoint == ENDPOINT && r->router == ROUTER);
	CHECK_SAY(l->keys == PYTHON_KEYS_OLD || r->route_context == ROUTE_CONTEXT,
		  "route_context %llu", (unsigned long long)r->route_context);
	CHECK(r->root_path_len == 8 && memcmp(s->root_path, "/mounted", 8) == 0);
}

static void check_routes(struct watch *w)
{
	struct python_layout l = fake_layout();
	const struct seen *s;

	keys_fill(&l);
	apart[2] = answerer.values[2] = address_of(&scope);
	check_answer(w, "route, inline values", &l, &fake_answer_self);
	check_answer(w, "route, a local", &l, &fake_answer_local);
	l.values = PYTHON_VALUES_TAGGED;
	answerer.values[2] = 0;
	answerer.before[1] = address_of(apart) - 1;
	check_answer(w, "route, 3.12's values", &l, &fake_answer_self);
	l.values = PYTHON_VALUES_BEFORE;
	memmove(root_path.text + 8, root_path.text, 8);
	answerer.before[0] = address_of(apart);
	check_answer(w, "route, 3.11's values", &l, &fake_answer_self);
	l.values = PYTHON_VALUES_DICT;
	answerer.dict = address_of(&attributes);
	attributes.values = address_of(apart);
	check_answer(w, "route, a dict with split keys", &l, &fake_answer_self);
	l.keys = PYTHON_KEYS_OLD;
	scope.keys = address_of(&old_keys);
	old_keys.entries[5].value = 0; /* no scope["fastapi"] */
	check_answer(w, "route, 3.9's keys", &l, &fake_answer_self);

	l.keys = PYTHON_KEYS_NEW;
	scope.keys = address_of(&scope_keys);
	root_path.state = 0; /* not ASCII: what is in front is not known */
	s = answer_seen(w, "root_path unknown", &l, &fake_answer_self);
	CHECK(s && s->has_route && s->route.scope && !s->route.route && !s->route.endpoint &&
	      !s->route.route_context && !s->route.router);
	l.key_route = 0;
	s = answer_seen(w, "keys unknown", &l, &fake_answer_self);
	CHECK(s && s->has_route && s->route.scope == address_of(&scope) && !s->route.route);
	s = answer_seen(w, "nobody answers", &l, &fake_stop);
	CHECK(s && (!s->has_route || !s->route.scope));

	l.values = PYTHON_VALUES_INLINE;
	answerer.values[2] = address_of(&match);
	*(uint64_t *)((char *)&match + TEMPLATE_OFFSET) = ROUTE;
	s = answer_seen(w, "route, an object's", &l, &fake_answer_match);
	CHECK(s && s->has_route && !s->route.scope && s->route.route == ROUTE);
}

/* --- processes ----------------------------------------------------------------------------------
 */

/* A child has no such interpreter until it was looked at. */
static int fork_run(void *arg)
{
	pid_t pid;
	int status;

	pid = fork();
	if (!pid)
		_exit(talk_run(arg));
	return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

static void check_processes(struct watch *w)
{
	struct python_layout l = fake_layout();
	const struct seen *s;
	struct child c;
	size_t at = 0;

	scene_run(w, "a child of a child", &l, fork_run);
	CHECK(watch_first(w, SEEN_IO, 0));
	while ((s = watch_next(w, SEEN_IO, 0, &at)))
		CHECK(!(s->io.flags & IO_RUNTIME) && !s->io.context && !s->has_site);

	check_scene = "forgotten";
	watch_reset(w);
	c = child_make(talk_run, NULL);
	CHECK(probe_set_python(w->probe, (uint32_t)c.pid, &l) == -ESRCH);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	CHECK(probe_set_python(w->probe, (uint32_t)c.pid, &l) == 0);
	classify_all(w, (uint32_t)c.pid);
	probe_unhook(w->probe, (uint32_t)c.pid);
	probe_unhook(w->probe, (uint32_t)c.pid);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	CHECK(watch_first(w, SEEN_IO, (uint32_t)c.pid));
	at = 0;
	while ((s = watch_next(w, SEEN_IO, (uint32_t)c.pid, &at)))
		CHECK(!(s->io.flags & IO_RUNTIME) && !s->has_site && !s->has_route);
	CHECK(probe_set_python(w->probe, (uint32_t)c.pid, &l) == -ESRCH);
	probe_unhook(w->probe, (uint32_t)c.pid);
}

/* --- threads ---------------------------------------------------------------------------------- */

static int thread_fds[2];

/* In a context entered from none, then from another. */
static void *thread_main(void *arg)
{
	pthread_setspecific(fake_key, &fake_state);
	fake_state.thread_id = (uint64_t)pthread_self();
	*(int *)arg = socket_move(thread_fds[0], thread_fds[1], 10);
	fake_contexts[0].words[2] = address_of(&fake_contexts[1]);
	*(int *)arg |= socket_move(thread_fds[0], thread_fds[1], 10);
	return NULL;
}

static int thread_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	pthread_t thread;
	int failed = 1;

	(void)arg;
	if (socket_pair(&a, thread_fds))
		return 1;
	fake_enter(0, true);
	if (socket_move(thread_fds[0], thread_fds[1], 10))
		return 2;
	if (pthread_create(&thread, NULL, thread_main, &failed) || pthread_join(thread, NULL))
		return 3;
	return failed ? 4 : 0;
}

/* What a thread of 3.14 begins with says nothing; the process's first thread begins with none. */
static void check_thread(struct watch *w)
{
	struct python_layout layout = fake_layout();
	uint64_t one = address_of(&fake_contexts[0]);
	const struct seen *t[EVENTS_MAX];
	uint32_t pid;

	layout.context_previous = offsetof(struct fake_context, words[2]);
	pid = scene_run(w, "thread", &layout, thread_run);
	if (!transfers_of(w, pid, t, 6))
		return;
	CHECK(context_is(t[0], one) && context_is(t[1], one));
	CHECK(t[2]->tid != pid && context_is(t[2], 0) && context_is(t[3], 0));
	CHECK(t[4]->tid == t[2]->tid && context_is(t[4], one) && context_is(t[5], one));
}

static void check_collector(enum probe_collector collector)
{
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_layouts(&w);
	check_broken(&w);
	check_spans(&w);
	check_routes(&w);
	check_processes(&w);
	check_thread(&w);
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
