/*
 * Which client a context serves, as frames hold it in an ASGI scope: told once for each context and
 * what is copied from it, by every layout, and only where it is a pair of texts. No Python is
 * needed.
 */
#include "python_scene.h"
#include "sockets.h"

enum { TUPLE_WORDS = 8, SCOPE_LOCAL = 1, KEY_AT = 5 };

__asm__(".text\n"
	".globl served_copy\n"
	"served_copy: push %rbp; mov %rdi, %rax; pop %rbp; ret\n");
void *served_copy(void *context);

static const struct classified classes[] = {
	{ &fake_library, { CODE_LIBRARY, 0 } },
	{ &fake_application, { CODE_APPLICATION, 0 } },
	{ &fake_stop, { CODE_STOP, 0 } },
	{ &fake_answer_local, { CODE_ANSWER_LOCAL, SCOPE_LOCAL } },
};

static struct fake_dict scope;
static struct fake_keys scope_keys;
static struct fake_keys_old old_keys;
static struct fake_str host, port, name;
static uint64_t pair[TUPLE_WORDS]; /* ob_size at 16 */

static void str_set(struct fake_str *s, const struct python_layout *l, const char *text)
{
	memset(s, 0, sizeof(*s));
	s->length = strlen(text);
	s->state = 1 << 6;
	memcpy(s->text + (l->values <= PYTHON_VALUES_BEFORE ? 8 : 0), text, strlen(text));
}

static void scope_fill(struct python_layout *l, const char *host_text, const char *port_text)
{
	size_t items = l->reference_tags ? 4 : 3;

	str_set(&host, l, host_text);
	str_set(&port, l, port_text);
	memset(pair, 0, sizeof(pair));
	pair[2] = 2;
	pair[items] = address_of(&host);
	pair[items + 1] = address_of(&port);
	l->key_client = address_of(&name);
	scope_keys = (struct fake_keys){ .log2_index_bytes = 3, .kind = 1, .count = KEY_AT + 1 };
	scope_keys.entries[KEY_AT].key = address_of(&name);
	scope_keys.entries[KEY_AT].value = address_of(pair);
	old_keys = (struct fake_keys_old){ .size = sizeof(old_keys.indices), .count = KEY_AT + 1 };
	old_keys.entries[KEY_AT].key = address_of(&name);
	old_keys.entries[KEY_AT].value = address_of(pair);
	scope.keys = l->keys == PYTHON_KEYS_OLD ? address_of(&old_keys) : address_of(&scope_keys);
}

static uint32_t scene_run(struct watch *w, const char *scene, const struct python_layout *l,
			  int (*run)(void *arg))
{
	const struct probe_hook h = { .kind = PROBE_HOOK_CONTEXT_COPY,
				      .path = "/proc/self/exe",
				      .offset = file_offset(address_of(served_copy)),
				      .at_return = true };
	const struct python_scene s = { classes, COUNT(classes), &h, run };

	return scene_play(w, scene, l, &s);
}

static void stack_serving(void)
{
	FAKE_STACK(&fake_library, &fake_application, &fake_library, &fake_answer_local);
	fake_frames[3].locals[SCOPE_LOCAL] = address_of(&scope);
}

/* Requests of client sockets, one after the other, by what happens before each. */
enum { FIRST, AGAIN, IN_COPY, ANEW, OUTSIDE, CALLS };

static int calls_run(void *arg)
{
	struct address a = address_make(TCP4, 0);
	int fds[2], i;

	(void)arg;
	if (socket_pair(&a, fds))
		return 1;
	stack_serving();
	for (i = 0; i < CALLS; i++) {
		fake_enter(i == IN_COPY ? 1 : 0, true);
		if (i == IN_COPY) {
			fake_enter(0, true);
			served_copy(&fake_contexts[1]);
			fake_enter(1, true);
		} else if (i == ANEW) {
			fake_enter(-1, false);
			served_copy(&fake_contexts[0]);
			fake_enter(0, true);
		} else if (i == OUTSIDE) {
			FAKE_STACK(&fake_library, &fake_application, &fake_stop,
				   &fake_answer_local);
			fake_frames[3].locals[SCOPE_LOCAL] = address_of(&scope);
			fake_enter(2, true);
		}
		if (socket_move(fds[0], fds[1], 10) || socket_move(fds[1], fds[0], 10))
			return 2;
	}
	return 0;
}

static bool is_client(const struct runtime_client *c, uint16_t number)
{
	static const uint8_t loopback[16] = { 127, 0, 0, 1 };

	return c->known && !c->v6 && c->port == number && !memcmp(c->address, loopback, 16);
}

static void check_calls(struct watch *w, const char *scene, struct python_layout *l)
{
	const struct seen *s;
	size_t at = 0, call = 0;
	uint32_t pid;

	scope_fill(l, "127.0.0.1", "50001");
	pid = scene_run(w, scene, l, calls_run);
	while ((s = watch_next(w, SEEN_IO, pid, &at)) && call < CALLS) {
		bool told = call == FIRST || call == ANEW;

		if (s->io.dir != IO_SEND || !s->has_site)
			continue;
		CHECK(s->site.caller == address_of(&fake_application));
		CHECK_SAY(told ? is_client(&s->site.client, 50001) : !s->site.client.known,
			  "call %zu", call);
		call++;
	}
	CHECK_SAY(call == CALLS, "%zu calls", call);
	CHECK(watch_count(w, SEEN_CONTEXT, pid) == 2);
	CHECK(!w->stats.drops[DROP_PYTHON_READ_FAULT]);
}

/* What is copied first tells it, too. */
static int copy_run(void *arg)
{
	(void)arg;
	fake_enter(0, true);
	stack_serving();
	served_copy(&fake_contexts[1]);
	served_copy(&fake_contexts[2]);
	return 0;
}

static const struct seen *copy_seen(struct watch *w, const char *scene,
				    const struct python_layout *l)
{
	uint32_t pid = scene_run(w, scene, l, copy_run);

	CHECK(watch_count(w, SEEN_CONTEXT, pid) == 2);
	return watch_first(w, SEEN_CONTEXT, pid);
}

static void check_refused(struct watch *w, const char *scene, const struct python_layout *l)
{
	const struct seen *s = copy_seen(w, scene, l);

	CHECK(s && !s->site.client.known);
}

static void check_values(struct watch *w)
{
	struct python_layout l = fake_layout();
	static const uint8_t loopback6[16] = { [15] = 1 };
	const struct seen *s;

	scope_fill(&l, "127.0.0.1", "65535");
	s = copy_seen(w, "a copy", &l);
	CHECK(s && s->has_site && is_client(&s->site.client, 65535));
	scope_fill(&l, "::ffff:127.0.0.1", "1");
	s = copy_seen(w, "v4-mapped", &l);
	CHECK(s && is_client(&s->site.client, 1));
	scope_fill(&l, "::1", "50001");
	s = copy_seen(w, "IPv6", &l);
	CHECK(s && s->site.client.known && s->site.client.v6 && s->site.client.port == 50001 &&
	      !memcmp(s->site.client.address, loopback6, 16));

	scope_fill(&l, "testclient", "50000");
	check_refused(w, "no address", &l);
	scope_fill(&l, "127.0.0.1", "65536");
	check_refused(w, "no port", &l);
	scope_fill(&l, "127.0.0.1", "0");
	check_refused(w, "port 0", &l);
	scope_fill(&l, "127.0.0.1", "123456789");
	check_refused(w, "a long port", &l);
	scope_fill(&l, "127.0.0.1", "50001");
	port.state = 0;
	check_refused(w, "an int", &l);
	scope_fill(&l, "127.0.0.1", "50001");
	pair[2] = 3;
	check_refused(w, "no pair", &l);
	scope_fill(&l, "127.0.0.1", "50001");
	scope_keys.entries[KEY_AT].value = 0;
	check_refused(w, "None", &l);
	scope_fill(&l, "127.0.0.1", "50001");
	scope_keys.count = KEY_AT;
	check_refused(w, "no client", &l);
	scope_fill(&l, "127.0.0.1", "50001");
	l.key_client = 0;
	s = copy_seen(w, "not asked", &l);
	CHECK(s && !s->has_site);
}

static void check_collector(enum probe_collector collector)
{
	struct python_layout l = fake_layout();
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_calls(&w, "3.13", &l);
	l.values = PYTHON_VALUES_BEFORE;
	check_calls(&w, "3.11", &l);
	l.keys = PYTHON_KEYS_OLD;
	check_calls(&w, "3.9", &l);
	l = fake_layout();
	l.reference_tags = 3;
	check_calls(&w, "3.14", &l);
	check_values(&w);
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
