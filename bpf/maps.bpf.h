/*
 * The maps of all programs and the small functions on them: who is traced, what is known of a
 * connection, the ring, the counters. Every *.bpf.c has them, weak, and the linker keeps one of
 * each.
 */
#ifndef SPANLOOM_MAPS_BPF_H
#define SPANLOOM_MAPS_BPF_H

#include "event.h"
#include "drop_reason.h"

#include "core_compat.bpf.h"
#include "request_state.bpf.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>

/* Set before loading. */
extern const volatile struct probe_constants constants;

/* Shared while running. */
extern u32 wake_pending; /* the agent was woken and hasn't looked yet */
extern u32 ring_losses;  /* records that found no room, all CPUs */
extern u64 last_conn_id;
/* Not 0 where a traced process may be, by its number; set, never cleared. */
extern u8 traced_hint[TRACED_HINTS];
extern u8 many_used; /* somebody has used sendmmsg or recvmmsg on a stream */

enum {
	CONN_ANNOUNCED = 1,
	CONN_CONNECTING = 2,
	CONN_ACTIVE = 4,
	CONN_PASSIVE = 8,
	CONN_LATE = 16,     /* bytes were written that are sent later, in late_context */
	CONN_LATE_OLD = 32, /* and something was received since */
	CONN_LOOKED = 64, /* what is known of it at its first transfer: CONN_PASSIVE, CONN_FIRST */
	CONN_FIRST = 128, /* nothing had been transferred before; on a unix socket nobody knows */
};

struct conn_state {
	u64 id;
	u64 inode; /* AF_UNIX: the socket's own number, since nothing tells when its address is used
		      again */
	u32 run_bytes; /* captured since the direction changed */
	u32 budget;    /* still to capture of this transfer */
	u32 missed[2]; /* bytes whose records found no room, by direction */
	u8 dir;        /* of the last transfer */
	u8 flags;
	u16 family;
	u64 many_vector; /* sendmmsg, recvmmsg: the array, its next message, who called */
	u32 many_next, many_tid;
	u32 many_moved; /* messages of this call that moved bytes */
	u32 connect_turn;
	u64 connect_ns; /* when the attempt began, and who made it: */
	u32 connect_pid, connect_tid;
	u64 connect_context; /* the runtime's, then */
	u64 late_context;
	u32 late_given; /* late.bpf.h */
	u32 zero;
	struct request_state request;
	struct call_state call;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRACED_MAX_DEFAULT);
	__type(key, u32);   /* thread group id */
	__type(value, u32); /* TRACED_* */
} traced SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64); /* address of the struct sock */
	__type(value, struct conn_state);
} conns SEC(".maps") __weak;

/* ignore[id % IGNORE_SLOTS] == id: the agent has no use for this connection. Written through mmap.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, IGNORE_SLOTS);
	__type(key, u32);
	__type(value, u64);
} ignore SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROP_KERNEL_COUNT);
	__type(key, u32);
	__type(value, u64);
} drops SEC(".maps") __weak;

static __always_inline void count_drop(u32 reason)
{
	u64 *n = bpf_map_lookup_elem(&drops, &reason);

	if (n)
		(*n)++;
}

/*
 * How often the current thread has slept of its own will, never 0. As long as it has not, what it
 * does follows from what it did.
 */
static __always_inline u32 turn_of(u64 nvcsw)
{
	return (u32)nvcsw | 1u << 31;
}

static __always_inline u32 current_turn(void)
{
	return turn_of(field_of(current_task(), nvcsw));
}

/* 0: it is not traced. The hint spares processes that are not traced the look-up, on every transfer
 * of the machine. */
static __always_inline u32 traced_flags(u32 pid)
{
	const u32 *flags;

	if (!traced_hint[pid % TRACED_HINTS])
		return 0;
	flags = bpf_map_lookup_elem(&traced, &pid);
	return flags ? *flags : 0;
}

/* And something of it is wanted. */
static __always_inline bool is_traced(u32 pid)
{
	return (traced_flags(pid) & (TRACED | TRACED_SILENT)) == TRACED;
}

static __always_inline void ring_lost(void)
{
	__sync_fetch_and_add(&ring_losses, 1);
	count_drop(DROP_RING_FULL);
}

/* How a record of traffic is submitted: the agent polls, and is woken once when much has gathered.
 */
static __always_inline u64 ring_wake_flags(void)
{
	if (wake_pending || bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) < constants.wake_bytes)
		return BPF_RB_NO_WAKEUP;
	wake_pending = 1;
	return BPF_RB_FORCE_WAKEUP;
}

/* `wake`: somebody waits for what this says. */
static __always_inline void emit_task(u8 type, u32 pid, u32 tid, u32 parent, u64 conn_id, bool wake)
{
	struct task_record *r = bpf_ringbuf_reserve(&ring, sizeof(*r), 0);

	if (!r) {
		ring_lost();
		return;
	}
	__builtin_memset(r, 0, sizeof(*r));
	r->type = type;
	r->losses = ring_losses;
	r->ts_ns = bpf_ktime_get_ns();
	r->conn_id = conn_id;
	r->pid = pid;
	r->tid = tid;
	r->parent = parent;
	bpf_ringbuf_submit(r, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

#endif
