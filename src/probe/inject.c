/*
 * The table of sockets and the two programs on it: one puts sockets in as they connect, one sees
 * what they send. Works or is not there: what fails at the start takes only headers away, with a
 * sentence. Invariant: after inject_close() no socket is in the table.
 */
#include "probe/inject.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "injection.h"
#include "probe/cgroup.h"
#include "probe/inject_adopt.h"
#include "probe/inject_program.h"
#include "probe/inject_test.h"
#include "probe/probe.h"
#include "probe/traced.h"

enum { WHY_BYTES = 320 };

struct inject {
	int sockets, injections, traced; /* the maps' descriptors, the object's own */
	int message;                     /* the sk_msg program, attached to `sockets`; -1: not */
	struct bpf_link *link;           /* of the sockops program */
	uint32_t works;                  /* set of enum probe_propagate */
	bool inq_wrong;
	char why[WHY_BYTES]; /* "": nothing to say */
};

static void why(struct inject *i, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void why(struct inject *i, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(i->why, sizeof(i->why), fmt, ap);
	va_end(ap);
}

/* The program on the table, and the trial. */
static int messages_watch(struct inject *i, const struct bpf_program *program)
{
	struct trial trial = { 0 };
	int err;

	if (bpf_prog_attach(bpf_program__fd(program), i->sockets, BPF_SK_MSG_VERDICT, 0)) {
		err = -errno;
		why(i, "attaching to the table of sockets failed: %s", strerror(-err));
		return err;
	}
	i->message = bpf_program__fd(program);
	err = inject_trial(i->sockets, i->injections, &trial);
	if (err) {
		why(i, "trying it on connections of our own failed: %s", strerror(-err));
		return err;
	}
	if (trial.failed) {
		why(i, "the kernel %s", trial.failed);
		return -EOPNOTSUPP;
	}
	i->inq_wrong = trial.inq_wrong;
	return 0;
}

/* The program that sees who connects. */
static int sockets_watch(struct inject *i, const struct bpf_program *program)
{
	const char *said = NULL;
	int err = cgroup_attach(program, &i->link, &said);

	if (err)
		why(i, "%s", said ? said : strerror(-err));
	return err;
}

static void messages_unwatch(struct inject *i)
{
	if (i->message >= 0)
		bpf_prog_detach2(i->message, i->sockets, BPF_SK_MSG_VERDICT);
	i->message = -1;
}

static bool program_loaded(const struct bpf_program *program)
{
	return program && bpf_program__autoload(program) && bpf_program__fd(program) >= 0;
}

int inject_open(struct bpf_object *obj, uint32_t wanted, struct inject **ret)
{
	struct bpf_program *message = bpf_object__find_program_by_name(obj, "inject_header");
	struct bpf_program *socket = bpf_object__find_program_by_name(obj, "inject_socket");
	struct inject *i = calloc(1, sizeof(*i));

	if (!i)
		return -ENOMEM;
	i->sockets = bpf_object__find_map_fd_by_name(obj, "sockets");
	i->injections = bpf_object__find_map_fd_by_name(obj, "injections");
	i->traced = bpf_object__find_map_fd_by_name(obj, "traced");
	i->message = -1;
	*ret = i;
	if (!(wanted & PROBE_PROPAGATE_HEADERS) || !program_loaded(message) ||
	    !program_loaded(socket))
		return 0;
	if (messages_watch(i, message) || sockets_watch(i, socket)) {
		messages_unwatch(i);
		return 0;
	}
	i->works = PROBE_PROPAGATE_HEADERS;
	if (i->inq_wrong)
		why(i, "on this kernel FIONREAD says 0 of a socket that headers are put into, "
		       "which stalls programs that go by it (nginx, Java, Qt): only Python, "
		       "Node.js, Go and curl get headers");
	return 0;
}

/* The keys go first: what comes while this runs is few, and goes with the map. */
static void sockets_empty(const struct inject *i)
{
	uint64_t key, next;
	bool more = !bpf_map_get_next_key(i->sockets, NULL, &next);
	uint32_t count;

	for (count = 0; more && count < INJECTION_SOCKETS_MAX; count++) {
		key = next;
		more = !bpf_map_get_next_key(i->sockets, &key, &next);
		bpf_map_delete_elem(i->sockets, &key);
	}
}

void inject_close(struct inject *i)
{
	if (!i)
		return;
	bpf_link__destroy(i->link);
	if (i->works)
		sockets_empty(i);
	messages_unwatch(i);
	free(i);
}

uint32_t inject_works(const struct inject *i, const char **ret_why)
{
	*ret_why = i->why[0] ? i->why : NULL;
	return i->works;
}

uint32_t inject_flags(const struct inject *i, uint32_t pid)
{
	if (!i || !(i->works & PROBE_PROPAGATE_HEADERS) ||
	    (i->inq_wrong && !program_never_asks(pid)))
		return 0;
	if (program_rings_apart(pid))
		return TRACED_INJECT | TRACED_RINGS;
	return process_has_ring(pid) ? 0 : TRACED_INJECT;
}

void inject_execs(const struct inject *i, uint32_t pid)
{
	uint32_t flags;

	if (!i || bpf_map_lookup_elem(i->traced, &pid, &flags))
		return;
	traced_change(i->traced, pid, TRACED_INJECT | TRACED_RINGS,
		      flags & (TRACED_SILENT | TRACED_APART) ? 0 : inject_flags(i, pid));
}

void inject_release(struct inject *i, uint64_t socket)
{
	if (i && i->works)
		bpf_map_delete_elem(i->sockets, &socket);
}

int inject_adopt(struct inject *i, uint32_t pid)
{
	if (!inject_flags(i, pid))
		return 0;
	return sockets_adopt(i->sockets, i->injections, pid);
}
