/*
 * The way of the programs into the kernel. Keeps what libbpf said, so that a failure leaves with
 * one message that says why and what to do. Invariant: tracing itself never fails with what is
 * built on top of it.
 */
#include "probe/load.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fail.h"
#include "base/log.h"
#include "event.h"
#include "probe/hooks.h"
#include "spanloom.skel.h"

enum {
	LIBBPF_LOG_BYTES = 1536,
	FILES_TO_LOAD = 128, /* descriptors; about 60 are used */
};

/* The end of what libbpf said, for the message when loading fails. */
static char libbpf_log[LIBBPF_LOG_BYTES];

static int __attribute__((format(printf, 2, 0)))
keep_log(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	size_t have = strlen(libbpf_log), len, room = sizeof(libbpf_log) - 1;
	const char *tail;
	char *text;

	if (level == LIBBPF_DEBUG || vasprintf(&text, fmt, ap) < 0)
		return 0;
	len = strlen(text);
	/* A verifier's log is long and ends with the reason. */
	tail = len > room ? text + len - room : text;
	len = strlen(tail);
	if (have + len > room) {
		memmove(libbpf_log, libbpf_log + have + len - room, room - len);
		have = room - len;
	}
	memcpy(libbpf_log + have, tail, len + 1);
	free(text);
	return 0;
}

/* What libbpf said, without the line's end behind it. */
static const char *libbpf_said(void)
{
	size_t len = strlen(libbpf_log);

	while (len && libbpf_log[len - 1] == '\n')
		libbpf_log[--len] = '\0';
	return libbpf_log;
}

static int check_prerequisites(char **ret_error)
{
	if (geteuid() != 0)
		return fail(ret_error, -EPERM,
			    "loading BPF programs needs root: run it with sudo, or give it "
			    "CAP_BPF, CAP_PERFMON, "
			    "CAP_SYS_PTRACE and CAP_SYS_RESOURCE as root of a container");
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		return fail(ret_error, -ENOENT,
			    "this kernel has no type information (/sys/kernel/btf/vmlinux: %s): it "
			    "must be built with CONFIG_DEBUG_INFO_BTF=y, as the kernels of Debian "
			    "12, Ubuntu 22.04, RHEL 9 and later are; in a container, mount /sys "
			    "read-only",
			    strerror(errno));
	return 0;
}

/* Out of descriptors libbpf may take what it tries for something that the kernel lacks. */
static bool too_few_files(int err)
{
	struct rlimit limit;

	return err == -EMFILE || (err == -EINVAL && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
				  limit.rlim_cur < FILES_TO_LOAD);
}

static int load_failure(int err, char **ret_error)
{
	/* The verifier says no with EACCES, too. */
	if (err == -EPERM || (err == -EACCES && !strstr(libbpf_log, "PROG LOAD LOG")))
		return fail(ret_error, err,
			    "the kernel refuses to load BPF programs (%s): run as root with "
			    "CAP_BPF and CAP_PERFMON (or "
			    "CAP_SYS_ADMIN), outside of a seccomp filter that forbids bpf(2), and "
			    "without lockdown=confidentiality; the "
			    "kernel said: %s",
			    strerror(-err), libbpf_said());
	if (too_few_files(err))
		return fail(ret_error, err,
			    "loading the BPF programs needs more open files than the limit "
			    "allows: raise it, as with `ulimit -n 1024` (systemd: LimitNOFILE)");
	return fail(ret_error, err,
		    "loading the BPF programs failed (%s); please report it with `uname -r` and "
		    "this output: %s",
		    strerror(-err), libbpf_said());
}

/* What is being tried. */
struct attempt {
	struct spanloom *skel;
	struct program_choice choice;
	struct program_limits limits;
};

static int load_within(struct attempt *a, const struct probe_options *o, char **ret_error)
{
	struct spanloom *skel = spanloom__open();
	int err;

	libbpf_log[0] = '\0';
	a->skel = skel;
	if (!skel)
		return fail(ret_error, -errno, "opening the BPF object failed: %s",
			    strerror(errno));
	err = programs_choose(skel->obj, o, &a->limits, &a->choice, ret_error);
	if (err)
		return err;
	programs_constants(o, &a->choice, (struct probe_constants *)&skel->rodata->constants);
	bpf_map__set_max_entries(skel->maps.ring, o->ring_bytes);
	bpf_map__set_max_entries(skel->maps.traced, o->max_processes);
	bpf_map__set_max_entries(skel->maps.conns, o->max_connections);
	if (!(a->choice.propagate & PROBE_PROPAGATE_TCP))
		bpf_map__set_max_entries(skel->maps.options_received, 1);
	err = spanloom__load(skel);
	return err ? load_failure(err, ret_error) : 0;
}

/* Could a kernel that refused the whole take a part of it? Not when it refuses us. */
static bool worth_another_try(const struct attempt *a, int err)
{
	return a->skel && a->choice.requests && err != -EPERM && !too_few_files(err);
}

/*
 * A kernel may refuse what goes beyond watching, for a reason that we don't know of: tracing itself
 * must not fail with it. First the programs of propagation are left out, then the recognition of
 * requests.
 */
int programs_load(const struct probe_options *o, struct spanloom **ret_skel,
		  struct program_choice *ret_choice, const char **ret_why, char **ret_error)
{
	struct attempt a = { .limits = { .propagate = o->propagate } };
	const char *lost = NULL, *why = NULL;
	int err = check_prerequisites(ret_error);

	if (err)
		return err;
	libbpf_set_print(keep_log);
	err = load_within(&a, o, ret_error);
	while (err && worth_another_try(&a, err)) {
		if (a.choice.propagate) {
			a.limits.propagate = 0;
			lost = "the kernel refuses the programs that put headers into calls";
			why = lost;
		} else {
			a.limits.no_requests = true;
			lost = "the kernel refuses the programs that recognise requests: what is "
			       "not sampled costs as much as what is, and nothing is put into "
			       "calls";
		}
		log_debug("loading without a part of the BPF programs, since: %s", libbpf_said());
		spanloom__destroy(a.skel);
		free(*ret_error);
		*ret_error = NULL;
		err = load_within(&a, o, ret_error);
	}
	if (err) {
		spanloom__destroy(a.skel);
		return err;
	}
	if (lost)
		programs_missing(&a.choice, lost);
	*ret_skel = a.skel;
	*ret_choice = a.choice;
	if (why)
		*ret_why = why;
	return 0;
}

int programs_attach(struct spanloom *skel, char **ret_error)
{
	struct bpf_program *prog;
	int i;

	for (i = 0; i < skel->skeleton->prog_cnt; i++) {
		const struct bpf_prog_skeleton *s = &skel->skeleton->progs[i];

		prog = *s->prog;
		if (!bpf_program__autoload(prog) || hooks_own(prog) || programs_propagate(prog))
			continue;
		*s->link = bpf_program__attach(prog);
		if (!*s->link) {
			int err = -errno;

			return fail(ret_error, err,
				    "attaching the BPF program %s (%s) failed: %s; does a seccomp "
				    "filter or perf_event_paranoid forbid perf_event_open(2), or "
				    "is /sys/kernel/tracing not there? libbpf says: %s",
				    bpf_program__name(prog), bpf_program__section_name(prog),
				    strerror(-err), libbpf_log[0] ? libbpf_said() : "nothing");
		}
	}
	return 0;
}
