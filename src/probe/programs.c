#include "probe/programs.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "base/ratio.h"
#include "probe/hooks.h"
#include "probe/mounts.h"

enum { RUN_BYTES = 16384, TAIL_BYTES = 128 };

/* As enum sampler_root of trace/sample.h. */
enum { ROOT_ON, ROOT_OFF, ROOT_RATIO };

/* Is the kernel's tracepoint `name` there? Its BTF names a type btf_trace_<name>. */
static bool has_tracepoint(const struct btf *btf, const char *name)
{
	char type[128];

	snprintf(type, sizeof(type), "btf_trace_%s", name);
	return btf__find_by_name_kind(btf, type, BTF_KIND_TYPEDEF) > 0;
}

bool kernel_has_helper(const struct btf *kernel, const char *name)
{
	int id = btf__find_by_name_kind(kernel, "bpf_func_id", BTF_KIND_ENUM), i;
	const struct btf_type *type = id > 0 ? btf__type_by_id(kernel, (uint32_t)id) : NULL;
	static const char prefix[] = "BPF_FUNC_";

	for (i = 0; type && i < btf_vlen(type); i++) {
		const char *have = btf__name_by_offset(kernel, btf_enum(type)[i].name_off);

		if (have && strncmp(have, prefix, sizeof(prefix) - 1) == 0 &&
		    strcmp(have + sizeof(prefix) - 1, name) == 0)
			return true;
	}
	return false;
}

void programs_missing(struct program_choice *c, const char *sentence)
{
	if (c->missing_count < MISSING_MAX)
		c->missing[c->missing_count++] = sentence;
}

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/*
 * Which collector a program belongs to, by its name; AUTO: to both. With the sock collector no
 * tracepoint of system calls may be attached: that would make every system call of the machine
 * slower.
 */
static enum probe_collector collector_of(const char *program)
{
	if (starts_with(program, "exit_"))
		return PROBE_COLLECTOR_SYSCALL;
	if (starts_with(program, "sock_") || starts_with(program, "route_"))
		return PROBE_COLLECTOR_SOCK;
	return PROBE_COLLECTOR_AUTO;
}

static int choose_collector(struct program_choice *c, enum probe_collector wanted, bool has_sock,
			    char **ret_error)
{
	if (wanted == PROBE_COLLECTOR_SOCK && !has_sock)
		return fail(ret_error, -EOPNOTSUPP,
			    "--collector=sock needs the tracepoints sock_send_length and "
			    "sock_recv_length, which kernels have "
			    "from 6.3 on: use --collector=auto");
	c->collector = wanted != PROBE_COLLECTOR_AUTO ? wanted
		       : has_sock                     ? PROBE_COLLECTOR_SOCK
						      : PROBE_COLLECTOR_SYSCALL;
	/* The other needs no tracefs: nothing is mounted for it. */
	if (c->collector == PROBE_COLLECTOR_SYSCALL && mounts_tracefs())
		return fail(ret_error, -ENOENT,
			    "the syscall collector needs tracefs, which is not mounted and could "
			    "not be: mount it with "
			    "`mount -t tracefs tracefs /sys/kernel/tracing` (in a container: mount "
			    "the host's /sys/kernel/tracing)");
	return 0;
}

/* What requests and headers need: one reason says why they are left to user space. */
static void choose_requests(struct program_choice *c, const struct probe_options *o,
			    const struct program_limits *limits, const struct btf *btf)
{
	bool loop = kernel_has_helper(btf, "loop");

	c->requests = loop && !limits->no_requests;
	c->calls_early = c->requests && has_tracepoint(btf, "tcp_sendmsg_locked");
	c->propagate = c->requests ? o->propagate & limits->propagate : 0;
	if (!loop)
		programs_missing(c, "the kernel has no bpf_loop (it came with 5.17): requests are "
				    "recognised by the agent only, so nothing is put into calls, "
				    "and what is not sampled costs as much as what is");
}

static bool is_message_program(const char *section)
{
	return starts_with(section, "sk_msg");
}

static bool is_option_program(const char *section)
{
	return starts_with(section, "sockops");
}

/* It gives options to connections that were open before. */
static bool is_adopting_program(const char *section)
{
	return strcmp(section, "iter/tcp") == 0;
}

bool programs_propagate(const struct bpf_program *prog)
{
	const char *section = bpf_program__section_name(prog);

	return is_message_program(section) || is_option_program(section) ||
	       is_adopting_program(section);
}

static void choose(struct bpf_program *prog, const struct program_choice *c, const struct btf *btf)
{
	const char *name = bpf_program__name(prog), *section = bpf_program__section_name(prog);
	enum probe_collector owner = collector_of(name);
	bool load = true;

	if (is_message_program(section))
		load = c->propagate & PROBE_PROPAGATE_HEADERS;
	else if (is_option_program(section))
		load = c->propagate & (strcmp(name, "tcp_option") == 0 ? PROBE_PROPAGATE_TCP
								       : PROBE_PROPAGATE_HEADERS);
	else if (is_adopting_program(section))
		/* The kernels that tell of calls can set what it sets (6.12). */
		load = c->calls_early && (c->propagate & PROBE_PROPAGATE_TCP) &&
		       btf__find_by_name_kind(btf, "bpf_iter_tcp", BTF_KIND_FUNC) > 0;
	else if (starts_with(section, "tp_btf/"))
		load = has_tracepoint(btf, section + strlen("tp_btf/"));
	else if (hooks_own(prog))
		load = hooks_prepare(prog, btf);
	/* It has no use but to see where calls begin. */
	if (strcmp(section, "tp_btf/tcp_sendmsg_locked") == 0)
		load = c->calls_early;
	load = load && (owner == PROBE_COLLECTOR_AUTO || owner == c->collector);
	bpf_program__set_autoload(prog, load);
}

int programs_choose(struct bpf_object *obj, const struct probe_options *o,
		    const struct program_limits *limits, struct program_choice *ret,
		    char **ret_error)
{
	struct btf *btf = btf__load_vmlinux_btf();
	struct program_choice c = { 0 };
	struct bpf_program *prog;
	bool has_sock;
	int err;

	if (!btf)
		return fail(ret_error, -errno,
			    "reading the kernel's type information (/sys/kernel/btf/vmlinux) "
			    "failed: %s",
			    strerror(errno));
	/* A helper that came with them. */
	if (!kernel_has_helper(btf, "check_mtu")) {
		btf__free(btf);
		return fail(ret_error, -EOPNOTSUPP,
			    "this kernel is too old: its BPF programs have no atomic operations, "
			    "which came with 5.12");
	}
	has_sock =
		has_tracepoint(btf, "sock_send_length") && has_tracepoint(btf, "sock_recv_length");
	err = choose_collector(&c, o->collector, has_sock, ret_error);
	if (!err && !has_tracepoint(btf, "inet_sock_set_state"))
		programs_missing(&c, "the kernel has no tracepoint inet_sock_set_state: failed "
				     "connection attempts and new listeners are not seen");
	choose_requests(&c, o, limits, btf);
	bpf_object__for_each_program(prog, obj) choose(prog, &c, btf);
	btf__free(btf);
	if (!err)
		*ret = c;
	return err;
}

bool programs_may_refuse(const struct probe_options *o)
{
	return o->sampler_parent_based || o->root_limit || o->sampler_root == ROOT_OFF ||
	       (o->sampler_root == ROOT_RATIO && o->sampler_ratio < 1);
}

static void sampler_constants(const struct probe_options *o, struct probe_constants *ret)
{
	static const uint8_t kinds[] = {
		[RATIO_NONE] = SAMPLE_NONE,
		[RATIO_ALL] = SAMPLE_ALL,
		[RATIO_BOUND] = SAMPLE_RATIO,
	};
	uint64_t bound = 0;

	ret->sample = o->sampler_root == ROOT_ON ? SAMPLE_ALL : SAMPLE_NONE;
	if (o->sampler_root == ROOT_RATIO)
		ret->sample = kinds[ratio_bound(o->sampler_ratio, &bound)];
	ret->sample_below = bound;
	ret->parent_based = o->sampler_parent_based;
	ret->root_limit = o->root_limit;
}

void programs_constants(const struct probe_options *o, const struct program_choice *choice,
			struct probe_constants *ret)
{
	*ret = (struct probe_constants){
		.capture_bytes = o->capture_bytes,
		.run_bytes = RUN_BYTES > o->capture_bytes ? RUN_BYTES : o->capture_bytes,
		.tail_bytes = TAIL_BYTES,
		.syscall_exits = choice->collector == PROBE_COLLECTOR_SYSCALL,
		.wake_bytes = o->ring_bytes / 4,
		.requests = choice->requests,
		.mute = choice->requests && !o->report_unsampled && programs_may_refuse(o),
		.inject = (choice->propagate & PROBE_PROPAGATE_HEADERS) != 0,
		.tcp_option = (choice->propagate & PROBE_PROPAGATE_TCP) != 0,
		.calls_early = choice->calls_early,
	};
	sampler_constants(o, ret);
}
