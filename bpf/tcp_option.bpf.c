/*
 * The TCP option with a call's ids, put into segments and taken from them (see option.bpf.h). Runs
 * inside of TCP, with the socket locked. Invariant: no segment grows beyond the segment size, and
 * none is lost for its option more than once: what is sent again is sent without it.
 */
#define PROGRAM_OF_NETWORK
#include "inject.bpf.h"
#include "option.bpf.h"

/* linux/bpf.h, ABI; the first two are in inject.bpf.h. */
enum {
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
	BPF_SOCK_OPS_PARSE_HDR_OPT_CB = 13,
	BPF_SOCK_OPS_HDR_OPT_LEN_CB = 14,
	BPF_SOCK_OPS_WRITE_HDR_OPT_CB = 15,
};
enum {
	BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG = 32,
	BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG = 64,
};
enum { BPF_WRITE_HDR_TCP_CURRENT_MSS = 1 };

struct tcphdr {
	__be16 source, dest;
	__be32 seq;
	u8 rest[12];
};
enum { TCPHDR_SYN = 2 };

/* The kernel's own view, for what it doesn't show. */
struct sk_buff {
	char cb[48];
} KERNEL_TYPE;

struct tcp_skb_cb {
	u32 seq;
} KERNEL_TYPE;

struct bpf_sock_ops_kern {
	struct sk_buff *skb;
} KERNEL_TYPE;

/* Who is at the other end, as the socket has it. */
struct option_host {
	u32 address[4];
};

struct option_way {
	u64 ts_ns; /* of the last loss */
	u32 lost;  /* in succession, of all connections */
	u32 zero;
};

/* Hosts to which segments with options got lost. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OPTION_HOSTS_MAX);
	__type(key, struct option_host);
	__type(value, struct option_way);
} options_lost SEC(".maps");

static __always_inline struct option_host option_host_of(struct bpf_sock_ops *ctx)
{
	struct option_host host = {};

	if (ctx->family == AF_INET6) {
		host.address[0] = ctx->remote_ip6[0];
		host.address[1] = ctx->remote_ip6[1];
		host.address[2] = ctx->remote_ip6[2];
		host.address[3] = ctx->remote_ip6[3];
	} else {
		host.address[0] = ctx->remote_ip4;
	}
	return host;
}

/* Do segments with options get through to the other end, as far as is known? */
static __always_inline bool option_passes(struct bpf_sock_ops *ctx)
{
	struct option_host host = option_host_of(ctx);
	const struct option_way *way = bpf_map_lookup_elem(&options_lost, &host);

	return !way || way->lost < OPTION_HOST_LOST_MAX ||
	       bpf_ktime_get_ns() - way->ts_ns > OPTION_HOST_REST_NS;
}

/* A segment with an option has to be sent again. */
static __always_inline void option_lost(struct bpf_sock_ops *ctx, struct option_state *o)
{
	struct option_host host = option_host_of(ctx);
	struct option_way fresh = { .ts_ns = bpf_ktime_get_ns(), .lost = 1 };
	const struct option_way *way = bpf_map_lookup_elem(&options_lost, &host);

	if (way)
		fresh.lost += way->lost;
	bpf_map_update_elem(&options_lost, &host, &fresh, BPF_ANY);
	count_drop(DROP_OPTION_LOST);
	o->good = 0;
	o->stage = ++o->lost >= OPTION_LOST_MAX ? OPTION_NEVER : OPTION_IDLE;
}

static __always_inline void option_arrived(struct bpf_sock_ops *ctx, struct option_state *o)
{
	struct option_host host = option_host_of(ctx);

	o->good = 2;
	bpf_map_delete_elem(&options_lost, &host);
}

static __always_inline struct option_state *option_of(struct bpf_sock_ops *ctx, u64 flags)
{
	struct bpf_sock *sk = ctx->sk;

	return sk ? bpf_sk_storage_get(&options_sent, sk, 0, flags) : 0;
}

/* A process connects, and is the current one. */
static __always_inline void option_connects(struct bpf_sock_ops *ctx)
{
	const struct task_struct *task = (const void *)bpf_get_current_task();
	u32 process = traced_flags(BPF_CORE_READ(task, tgid));

	if (process && !(process & TRACED_SILENT))
		option_of(ctx, BPF_SK_STORAGE_GET_F_CREATE);
}

static __always_inline void option_wanted(struct bpf_sock_ops *ctx, u32 flag)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | flag);
}

/* Of the segment that is about to be made: its header isn't there yet. */
static __always_inline u32 segment_seq(struct bpf_sock_ops *ctx)
{
	const struct sk_buff *skb = BPF_CORE_READ((struct bpf_sock_ops_kern *)ctx, skb);
	const struct tcp_skb_cb *cb = (const void *)&skb->cb;

	return BPF_CORE_READ(cb, seq);
}

/* How many bytes of options a segment gets. */
static __always_inline void option_reserve(struct bpf_sock_ops *ctx)
{
	struct option_state *o;
	u32 len = ctx->skb_len;
	s32 ahead;

	/* Asked for without a segment the answer would make all segments smaller. */
	if (ctx->args[0] == BPF_WRITE_HDR_TCP_CURRENT_MSS || (ctx->skb_tcp_flags & TCPHDR_SYN))
		return;
	o = option_of(ctx, 0);
	if (!o)
		return; /* it is another program that has asked to be called */
	if (o->stage == OPTION_NEVER)
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags &
						       ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	if (o->stage == OPTION_NEVER || o->stage == OPTION_IDLE || !len)
		return;
	if (o->good == 1)
		option_arrived(ctx, o);
	if (o->stage == OPTION_TRIAL) {
		o->seq = segment_seq(ctx);
		o->stage = OPTION_DUE;
	}
	ahead = o->seq - segment_seq(ctx);
	if (ahead < 0 || ahead >= (s32)len)
		return;
	if (o->stage == OPTION_SENT) {
		option_lost(ctx, o);
		return;
	}
	/* In the middle of a segment nobody would know whose it is. */
	if (ahead || len + OPTION_BYTES > ctx->mss_cache ||
	    bpf_reserve_hdr_opt(ctx, OPTION_BYTES, 0)) {
		o->stage = OPTION_IDLE;
		count_drop(DROP_OPTION_SIZE);
	} else {
		o->stage = OPTION_SENT;
	}
}

static __always_inline void option_write(struct bpf_sock_ops *ctx)
{
	struct option_state *o = option_of(ctx, 0);
	const struct tcphdr *th = ctx->skb_data;

	if (!o || o->stage != OPTION_SENT || (void *)(th + 1) > ctx->skb_data_end ||
	    bpf_ntohl(th->seq) != o->seq)
		return;
	bpf_store_hdr_opt(ctx, o->option, OPTION_BYTES, 0);
}

static __always_inline bool option_load(struct bpf_sock_ops *ctx, u8 experiment, u8 *to)
{
	to[0] = OPTION_KIND;
	to[1] = OPTION_HEAD_BYTES; /* what is compared */
	to[2] = OPTION_EXPERIMENT;
	to[3] = experiment;
	return bpf_load_hdr_opt(ctx, to, OPTION_BYTES, 0) == OPTION_BYTES && to[1] == OPTION_BYTES;
}

/* A segment has come with options that the kernel doesn't know. */
static __always_inline void option_parse(struct bpf_sock_ops *ctx)
{
	const struct tcphdr *th = ctx->skb_data;
	u64 option[(OPTION_BYTES + 7) / 8] = {};
	struct option_ids ids = {};
	struct option_key key = {};
	u8 *bytes = (u8 *)option;

	if (option_load(ctx, OPTION_SAMPLED, bytes))
		ids.trace_flags = 1;
	else if (!option_load(ctx, OPTION_NOT_SAMPLED, bytes))
		return;
	if ((void *)(th + 1) > ctx->skb_data_end)
		return;
	key.sk = (u64)ctx->sk;
	key.seq = bpf_ntohl(th->seq);
	__builtin_memcpy(ids.trace_id, bytes + OPTION_HEAD_BYTES, sizeof(ids.trace_id));
	__builtin_memcpy(ids.span_id, bytes + OPTION_HEAD_BYTES + sizeof(ids.trace_id),
			 sizeof(ids.span_id));
	if (bpf_map_update_elem(&options_received, &key, &ids, BPF_ANY))
		count_drop(DROP_REQUEST_TABLE_FULL);
}

/* --- connections that were open before -------------------------------------------------------- */

enum { SOL_TCP = 6, TCP_BPF_SOCK_OPS_CB_FLAGS = 1008, TCP_CLOSE_WAIT = 8 };

struct bpf_iter_meta;

/* ABI of BTF: what an iterator over TCP sockets is called with. */
struct bpf_iter__tcp {
	CONTEXT_POINTER(struct bpf_iter_meta, meta);
	CONTEXT_POINTER(struct sock_common, sk_common);
};

/* The sockets of a network namespace, one after the other, locked. The agent has made a state for
 * those that traced processes have. */
SEC("iter/tcp")
int option_adopts(struct bpf_iter__tcp *ctx)
{
	struct tcp_sock *tp = ctx->sk_common ? bpf_skc_to_tcp_sock(ctx->sk_common) : 0;
	const struct sock *sk = (const void *)tp;
	int flags = 0, wanted;

	if (!tp || (sk->__sk_common.skc_state != TCP_ESTABLISHED &&
		    sk->__sk_common.skc_state != TCP_CLOSE_WAIT))
		return 0;
	wanted = sk->sk_max_ack_backlog ? BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG
		 : bpf_sk_storage_get(&options_sent, tp, 0, 0) ? BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG
							       : 0;
	if (!wanted ||
	    bpf_getsockopt(tp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return 0;
	flags |= wanted;
	bpf_setsockopt(tp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
	return 0;
}

/* ---------------------------------------------------------------------------------------------- */

SEC("sockops")
int tcp_option(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		option_connects(ctx);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (option_of(ctx, 0) && option_passes(ctx))
			option_wanted(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		/* Nobody has accepted it yet, so whose it will be isn't known. It costs nothing
		 * where no such option comes. */
		option_wanted(ctx, BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG);
		option_parse(ctx); /* the segment that makes it established may have data */
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		option_reserve(ctx);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		option_write(ctx);
		break;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		option_parse(ctx);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
