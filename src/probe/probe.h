/*
 * The kernel side as the agent sees it: programs loaded and attached, records typed and handed on,
 * who is traced. The only folder that knows libbpf. When the process ends, however it ends, the
 * kernel takes everything away: nothing is pinned, every program hangs on a descriptor of ours.
 */
#ifndef PROBE_PROBE_H
#define PROBE_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/io.h"
#include "base/stats.h"

struct probe;

enum probe_collector { PROBE_COLLECTOR_AUTO, PROBE_COLLECTOR_SOCK, PROBE_COLLECTOR_SYSCALL };

struct probe_options {
	enum probe_collector collector;
	uint32_t ring_bytes;    /* a power of two, at least a page */
	uint32_t capture_bytes; /* at most this much of one transfer */
	uint32_t max_processes;
	uint32_t max_connections;
	uint32_t agent_pid; /* never traced */
	/* the sampler: as struct sampler of trace/sample.h */
	int sampler_root;
	bool sampler_parent_based;
	double sampler_ratio;
	uint32_t root_limit;   /* new traces of a service per second; 0: no limit */
	bool report_unsampled; /* what isn't sampled is reported as well, its frames are not */
	uint32_t propagate;    /* set of enum probe_propagate */
};

enum probe_propagate { PROBE_PROPAGATE_HEADERS = 1, PROBE_PROPAGATE_TCP = 2 };

/* What comes off the ring, in the order it went on. `ctx` is the sink's own; nothing may be kept.
 */
struct probe_sink {
	void (*io)(void *ctx, const struct io_event *ev);
	void (*request)(void *ctx, const struct request_event *ev); /* may be NULL */
	void (*conn_open)(void *ctx, const struct conn_info *info);
	void (*conn_close)(void *ctx, uint64_t conn_id, uint64_t ts_ns);
	void (*connect_failed)(void *ctx, const struct connect_failure *f);
	void (*thread_start)(void *ctx, uint32_t pid, uint32_t tid, uint32_t parent_tid,
			     uint64_t ts_ns);
	void (*thread_exit)(void *ctx, uint32_t pid, uint32_t tid, uint64_t ts_ns);
	/* A child of a traced process, traced already. */
	void (*process_fork)(void *ctx, uint32_t pid, uint32_t parent_pid);
	void (*process_exec)(void *ctx, uint32_t pid);
	/* A traced process is gone, and is traced no more. */
	void (*process_exit)(void *ctx, uint32_t pid, uint64_t ts_ns);
	void (*process_cgroup)(void *ctx, uint32_t pid);
	void (*listen)(void *ctx, uint32_t pid, uint16_t port);
	/* A runtime's contexts are handed on (see base/io.h). This and the next two may be NULL. */
	void (*context)(void *ctx, const struct context_event *ev);
	void (*native_span)(void *ctx, const struct native_span_event *ev);
	/* A code object was met that probe_set_code() has not classified: asked at most once per
	 * record. */
	void (*code_unknown)(void *ctx, uint32_t pid, uint64_t code);
	/* The ring was full: records before the next one are missing. */
	void (*lost)(void *ctx, uint64_t ts_ns);
	/* True: no more for now; what is there waits in the ring. May be NULL. */
	bool (*full)(void *ctx);
	void *ctx;
};

/*
 * Loads and attaches everything. 0, or -errno with *ret_error (malloc'd): what, why and what to do.
 * Parts that this kernel lacks and that can be done without are named in probe_missing().
 */
int probe_open(const struct probe_options *options, const struct probe_sink *sink,
	       struct stats *stats, struct probe **ret, char **ret_error);
/* Takes NULL. */
void probe_close(struct probe *p);

/* Becomes readable (watch it edge-triggered) when much waits or something urgent came; the agent
 * polls besides. */
int probe_fd(const struct probe *p);
/* Hands on the records that are there, until the sink is full. Returns how many, or -errno.
 * `now_ns`: CLOCK_MONOTONIC. */
int probe_consume(struct probe *p, uint64_t now_ns);
/* Whether the last probe_consume() left records because the sink was full. */
bool probe_has_more(const struct probe *p);

/* From now on (until it exits) `pid` is traced. -E2BIG: too many processes. -EINVAL: the agent
 * itself. */
int probe_trace(struct probe *p, uint32_t pid);

/* Flags of a traced process; `service` is a small number that processes of one service share. */
enum probe_process_flag {
	PROBE_TRUST_CONTEXTS = 1,
	PROBE_TRUST_THREADS = 2,
	PROBE_SILENT = 4, /* nothing of it is wanted: it reports its own spans */
	PROBE_APART = 8,  /* it may be reporting its own spans: seen, but neither injected into nor
			     joined, and none of it left out */
};
/* Sets exactly these. 0, -ESRCH when it isn't traced. */
int probe_set_flags(struct probe *p, uint32_t pid, uint32_t flags);
int probe_set_service(struct probe *p, uint32_t pid, uint16_t service);

/*
 * Header injection. What was decided at probe_open(), for the start line: PROBE_PROPAGATE_* that
 * work here; *ret_why (borrowed, NULL: nothing to say) tells why something that was asked for does
 * not, in one sentence.
 */
uint32_t probe_propagates(const struct probe *p, const char **ret_why);
/* Takes over the connections of a process that were open before it was traced (adoption). Returns
 * how many, or -errno. */
int probe_adopt(struct probe *p, uint32_t pid);

/* A place in the code of a process that is probed. */
enum probe_hook_kind {
	PROBE_HOOK_CONTEXT_COPY, /* returns the new context */
	PROBE_HOOK_CONTEXT_RAX,  /* has the new context, or 0, in this register */
	PROBE_HOOK_CONTEXT_RBX,
	PROBE_HOOK_LATE_WRITE, /* uvloop's buffer_write: writes later, in no context */
	PROBE_HOOK_SUBMIT,     /* an item (2nd argument's first entry) goes to an executor */
	PROBE_HOOK_SPAN_ENTRY, /* a native function, rule in arg */
	PROBE_HOOK_SPAN_EXIT,  /* one of its ends */
};

struct probe_hook {
	enum probe_hook_kind kind;
	const char *path; /* of the mapped file as we can open it (/proc/PID/root/…) */
	uint64_t offset;  /* into the file */
	bool at_return;   /* else at this very instruction */
	uint32_t arg;
};

struct python_layout;
struct context_handlers;
struct code_class;

/*
 * Attaches it for this process alone. Gone with the process, the program it runs, or
 * probe_unhook(). 0 or -errno: -EOPNOTSUPP when the kernel lacks what this kind needs (native
 * spans: 5.15).
 */
int probe_attach_hook(struct probe *p, uint32_t pid, const struct probe_hook *hook);
/* Takes every hook of the process away, and what is known of its runtime. Returns at once: what
 * native spans report may come for a moment more, nothing else does. */
void probe_unhook(struct probe *p, uint32_t pid);
/* From now on (or with new values) its contexts and frames are read. It is traced already. 0 or
 * -errno: -ESRCH when it isn't or is gone. */
int probe_set_python(struct probe *p, uint32_t pid, const struct python_layout *layout);
/* Out of which of its contexts requests that were read in none come, instead of what was told
 * before, until probe_unhook(). 0 or -errno: -ESRCH when probe_set_python() has not been called. */
int probe_set_handlers(struct probe *p, uint32_t pid, const struct context_handlers *handlers);
/* What a code object of the process means, until probe_unhook(). 0 or -errno (-E2BIG: CODES_MAX,
 * CODES_OF_PROCESS_MAX).
 */
int probe_set_code(struct probe *p, uint32_t pid, uint64_t code, const struct code_class *class_);
/* The kernel need not report this connection any more. */
void probe_ignore(struct probe *p, uint64_t conn_id);
/* Adds what the kernel counted since the last call. */
void probe_collect_drops(struct probe *p);

/* "sock" or "syscall". */
const char *probe_collector_name(const struct probe *p);
/* What is missing and what that means, one sentence each, NULL-terminated; borrowed. */
const char *const *probe_missing(const struct probe *p);
/* Kernel memory of our maps in bytes. */
size_t probe_map_bytes(const struct probe *p);

#endif
