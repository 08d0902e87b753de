#include "agent_process.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "discover/process.h"
#include "discover/sdk.h"

#define SECOND_NS 1000000000ull
/* How long a process that is set up for an SDK may work without sending a span. */
#define SDK_PATIENCE_NS (60 * SECOND_NS)

enum { SERVICES_MAX = 1024, PROGRAM_BYTES = 64 };

/* An SDK's signs may come after the process has begun: looked for again so long after. */
static const uint64_t looks_ns[] = { 3 * SECOND_NS, 30 * SECOND_NS };
#define FLAGS_UNKNOWN UINT32_MAX
enum { LOOKS = sizeof(looks_ns) / sizeof(looks_ns[0]) };

enum sdk_state {
	SDK_ABSENT,
	SDK_MAYBE,  /* set up for one: nobody knows yet */
	SDK_ACTIVE, /* known to report its own spans */
	SDK_IDLE,   /* set up for one, but it sends nothing */
};

struct agent_process {
	uint32_t pid;
	uint32_t trust; /* PROBE_TRUST_* */
	uint32_t told;  /* flags that the kernel side has; FLAGS_UNKNOWN */
	enum sdk_state state;
	bool followed;
	bool inherited;      /* what speaks for an SDK spoke for its parent: said once */
	unsigned int looked; /* of looks_ns */
	uint64_t begun_ns, first_span_ns; /* 0: none yet */
	char why[SDK_WHY_BYTES];
};

struct agent_processes {
	const struct options *options;
	struct probe *probe;
	const struct resource_context *resources;
	struct agent_process_ops ops;
	struct hash table;            /* pid → struct agent_process */
	char *services[SERVICES_MAX]; /* their number is the index + 1 */
	size_t service_count;
};

struct agent_processes *agent_processes_new(const struct options *options, struct probe *probe,
					    const struct resource_context *resources,
					    const struct agent_process_ops *ops)
{
	struct agent_processes *ps = calloc(1, sizeof(*ps));

	if (!ps)
		return NULL;
	ps->options = options;
	ps->probe = probe;
	ps->resources = resources;
	ps->ops = *ops;
	return ps;
}

void agent_processes_free(struct agent_processes *ps)
{
	size_t pos = 0;
	uint64_t pid;
	void *value;

	if (!ps)
		return;
	while (hash_next(&ps->table, &pos, &pid, &value))
		free(value);
	hash_free(&ps->table);
	while (ps->service_count)
		free(ps->services[--ps->service_count]);
	free(ps);
}

/* --- services --- */

/* 0, which all the rest share, when there are too many. */
static uint16_t service_number(struct agent_processes *ps, const char *name)
{
	size_t i;

	for (i = 0; i < ps->service_count; i++) {
		if (strcmp(ps->services[i], name) == 0)
			return (uint16_t)(i + 1);
	}
	if (i == SERVICES_MAX)
		return 0;
	ps->services[i] = strdup(name);
	if (!ps->services[i])
		return 0;
	ps->service_count++;
	return (uint16_t)(i + 1);
}

/* Only the limit of new traces asks for it. */
static void tell_service(struct agent_processes *ps, uint32_t pid)
{
	struct resource *r =
		ps->options->root_limit ? resource_detect(ps->resources, pid, NULL) : NULL;
	const char *name = r ? resource_find(r, "service.name") : NULL;

	if (name)
		probe_set_service(ps->probe, pid, service_number(ps, name));
	resource_put(r);
}

/* --- states --- */

static bool left_out(const struct agent_process *p)
{
	return p->state == SDK_MAYBE || p->state == SDK_ACTIVE;
}

/* Flags and followers as the state wants them; `how` it is followed, if it is. */
static void apply(struct agent_processes *ps, struct agent_process *p, enum agent_follow how)
{
	bool follow = !left_out(p);
	uint32_t flags = p->trust;

	if (p->state == SDK_ACTIVE)
		flags = PROBE_SILENT;
	else if (p->state == SDK_MAYBE)
		flags = PROBE_APART;
	if (flags != p->told && probe_set_flags(ps->probe, p->pid, flags) == 0)
		p->told = flags;
	if (follow == p->followed)
		return;
	p->followed = follow;
	ps->ops.follow(ps->ops.ctx, p->pid, follow ? how : AGENT_FOLLOW_NOT);
}

static void say(const struct agent_processes *ps, const struct agent_process *p, const char *what)
{
	enum log_level level = p->inherited ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO;
	char program[PROGRAM_BYTES] = "?";
	struct process info;

	if (log_get_level() < level)
		return;
	if (process_read(ps->resources->proc_fd, p->pid, 0, &info) == 0) {
		snprintf(program, sizeof(program), "%s", info.comm);
		process_free(&info);
	}
	log_printf(level, "process %u (%s) %s", p->pid, program, what);
}

static void say_why(const struct agent_processes *ps, const struct agent_process *p,
		    const char *what, const char *then)
{
	char text[512];

	snprintf(text, sizeof(text), "%s (%s): %s", what, p->why, then);
	say(ps, p, text);
}

static void enter(struct agent_processes *ps, struct agent_process *p, enum sdk_state state)
{
	static const char keep[] = "--with-sdk keeps ours as well";
	char then[160];

	if (p->state == state)
		return;
	p->state = state;
	p->first_span_ns = 0;
	if (state == SDK_ACTIVE) {
		snprintf(then, sizeof(then), "ours are left out; %s", keep);
		say_why(ps, p, "reports its own spans", then);
	} else if (state == SDK_MAYBE) {
		snprintf(then, sizeof(then),
			 "ours are left out, for a minute if it turns out to send none; %s", keep);
		say_why(ps, p, "seems to report its own spans", then);
	} else if (state == SDK_IDLE) {
		say_why(ps, p, "has worked for a minute without reporting spans of its own",
			"ours are kept from now on");
	}
}

/* Evidence only ever adds: what sends nothing is not waited for again. */
static void look(struct agent_processes *ps, struct agent_process *p)
{
	char why[SDK_WHY_BYTES];
	enum sdk_evidence found;

	if (ps->options->keep_sdk || p->state == SDK_ACTIVE)
		return;
	found = sdk_look(ps->resources->proc_fd, p->pid, why);
	if (found == SDK_NONE || (found == SDK_HINT && p->state != SDK_ABSENT))
		return;
	memcpy(p->why, why, sizeof(p->why));
	enter(ps, p, found == SDK_PROOF ? SDK_ACTIVE : SDK_MAYBE);
}

/*
 * A child that was just made is as its parent, and mostly runs another program soon, so reading it
 * would be in vain. An SDK is in its memory as well, but may not work there (no thread that
 * exports, a provider that isn't set up): it has to show.
 */
static void inherit(struct agent_processes *ps, struct agent_process *p,
		    const struct agent_process *parent)
{
	if (!left_out(parent))
		return;
	p->inherited = true;
	snprintf(p->why, sizeof(p->why), "as process %u, which made it", parent->pid);
	enter(ps, p, SDK_MAYBE);
}

void agent_process_begin(struct agent_processes *ps, uint32_t pid, uint32_t parent, bool born,
			 uint64_t now_ns)
{
	struct agent_process *p = hash_get(&ps->table, pid), *from;

	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p || !hash_put(&ps->table, pid, p)) {
			free(p);
			log_warning("process %u can't be remembered: out of memory", pid);
			return;
		}
	}
	*p = (struct agent_process){ .pid = pid, .begun_ns = now_ns, .told = FLAGS_UNKNOWN };
	from = parent ? hash_get(&ps->table, parent) : NULL;
	p->inherited = from && left_out(from);
	if (born && from)
		inherit(ps, p, from);
	else
		look(ps, p);
	if (!born)
		tell_service(ps, pid);
	apply(ps, p, born ? AGENT_FOLLOW_BORN : parent ? AGENT_FOLLOW_CHILD : AGENT_FOLLOW_THERE);
}

void agent_process_end(struct agent_processes *ps, uint32_t pid)
{
	free(hash_remove(&ps->table, pid));
}

void agent_process_changed(struct agent_processes *ps, uint32_t pid, uint64_t now_ns)
{
	struct agent_process *p = hash_get(&ps->table, pid);
	bool followed;

	if (!p)
		return;
	followed = p->followed;
	*p = (struct agent_process){
		.pid = pid, .begun_ns = now_ns, .followed = followed, .told = FLAGS_UNKNOWN
	};
	look(ps, p);
	tell_service(ps, pid);
	apply(ps, p, AGENT_FOLLOW_THERE);
}

void agent_process_listens(struct agent_processes *ps, uint32_t pid)
{
	struct agent_process *p = hash_get(&ps->table, pid);

	if (!p)
		return;
	look(ps, p);
	apply(ps, p, AGENT_FOLLOW_THERE);
}

static void tick(struct agent_processes *ps, struct agent_process *p, uint64_t now_ns)
{
	if (p->looked < LOOKS && now_ns >= p->begun_ns + looks_ns[p->looked]) {
		p->looked++;
		look(ps, p);
	}
	if (p->state == SDK_MAYBE && p->first_span_ns &&
	    now_ns >= p->first_span_ns + SDK_PATIENCE_NS)
		enter(ps, p, SDK_IDLE);
	apply(ps, p, AGENT_FOLLOW_THERE);
}

void agent_processes_tick(struct agent_processes *ps, uint64_t now_ns)
{
	size_t pos = 0;
	uint64_t pid;
	void *value;

	while (hash_next(&ps->table, &pos, &pid, &value)) {
		struct agent_process *p = value;

		if (p->looked < LOOKS || p->state == SDK_MAYBE)
			tick(ps, p, now_ns);
	}
}

void agent_process_trust(struct agent_processes *ps, uint32_t pid, uint32_t trust)
{
	struct agent_process *p = hash_get(&ps->table, pid);

	if (!p)
		return;
	p->trust = trust;
	apply(ps, p, AGENT_FOLLOW_THERE);
}

bool agent_process_silent(struct agent_processes *ps, uint32_t pid, uint64_t now_ns)
{
	struct agent_process *p = hash_get(&ps->table, pid);

	if (!p || !left_out(p))
		return false;
	if (!p->first_span_ns)
		p->first_span_ns = now_ns;
	return true;
}

void agent_process_exports(struct agent_processes *ps, uint32_t pid)
{
	struct agent_process *p = hash_get(&ps->table, pid);

	if (!p || p->state == SDK_ACTIVE || ps->options->keep_sdk)
		return;
	snprintf(p->why, sizeof(p->why), "it sends them to a collector");
	enter(ps, p, SDK_ACTIVE);
	apply(ps, p, AGENT_FOLLOW_THERE);
}

size_t agent_processes_silent(const struct agent_processes *ps)
{
	size_t pos = 0, n = 0;
	uint64_t pid;
	void *value;

	while (hash_next(&ps->table, &pos, &pid, &value))
		n += left_out(value);
	return n;
}

void agent_processes_report(const struct agent_processes *ps, const char *title)
{
	size_t n = agent_processes_silent(ps);

	if (n)
		log_info("%s: the spans of %zu process%s are left out: %s", title, n,
			 n == 1 ? "" : "es",
			 n == 1 ? "it reports its own" : "they report their own");
}
