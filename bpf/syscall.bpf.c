/*
 * The collector for kernels without the sock_* tracepoints, and what those can't tell: the exits of
 * the system calls that can move bytes through a socket. Their arguments survive in the saved
 * registers on x86-64. Also the connection attempts that fail before they reach the network.
 */
#include "descriptor.bpf.h"
#include "syscalls.bpf.h"

enum { MESSAGES_MAX = 16 };

/* The layout of every syscalls/sys_exit_* tracepoint (its format file in tracefs). */
struct exit_context {
	u64 common;
	u64 nr;
	s64 ret;
};

/* Fills what the socket says; -1 when this is no connection that is followed. */
static __always_inline int transfer_on(struct transfer *t, u32 fd, u32 msg_flags, s32 result,
				       u8 dir)
{
	u64 pid_tid = bpf_get_current_pid_tgid();
	struct open_socket s = {};
	const struct sock *sk;

	t->pid = pid_tid >> 32;
	t->tid = (u32)pid_tid;
	if (socket_of_fd(fd, &s))
		return -1;
	sk = s.sk;
	if (BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return -1;
	t->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	if (t->family != AF_INET && t->family != AF_INET6 && t->family != AF_UNIX)
		return -1;
	t->sk = (u64)sk;
	t->inode = s.inode;
	t->result = result;
	t->dir = dir;
	t->flags =
		(msg_flags & MSG_DONTWAIT) || (s.file_flags & O_NONBLOCK) ? IO_RECORD_NONBLOCK : 0;
	if (t->family != AF_UNIX && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP) {
		const struct tcp_sock *tp = (const void *)sk;
		u32 moved = result > 0 ? result : 0;
		u32 sent = BPF_CORE_READ(tp, write_seq);
		u32 received =
			stream_read(BPF_CORE_READ(tp, copied_seq), BPF_CORE_READ(tp, rcv_nxt),
				    BPF_CORE_READ(sk, __sk_common.skc_flags));

		t->tcp_seq = (dir ? sent : received) - moved;
		t->tcp_peer_seq = dir ? received : sent;
	}
	return 0;
}

/* A receive of 0 bytes is the end of the stream, unless nothing was asked for. */
static __always_inline bool transfer_at_end(const struct transfer *t)
{
	const struct sock *sk = (const void *)t->sk;

	return !t->dir && BPF_CORE_READ(sk, sk_shutdown) & RCV_SHUTDOWN;
}

static __always_inline int syscall_transfer(const struct exit_context *ctx, u32 nr, u8 dir)
{
	const struct pt_regs *regs;
	struct transfer t = {};
	s64 ret = ctx->ret;
	u32 msg_flags = 0;

	t.traced = traced_flags(bpf_get_current_pid_tgid() >> 32);
	if (!t.traced || (t.traced & TRACED_SILENT) || transfer_would_block(ret) || (dir && !ret))
		return 0;
	regs = syscall_regs();
	if (nr == NR_RECVFROM || nr == NR_SENDTO)
		msg_flags = BPF_CORE_READ(regs, r10);
	else if (nr == NR_RECVMSG || nr == NR_SENDMSG)
		msg_flags = BPF_CORE_READ(regs, dx);
	if (!dir && (msg_flags & MSG_NOT_OF_STREAM))
		return 0;
	if (transfer_on(&t, BPF_CORE_READ(regs, di), msg_flags, ret, dir))
		return 0;
	if (!ret && !transfer_at_end(&t))
		return 0;
	transfer_buffers(&t, nr, BPF_CORE_READ(regs, si), BPF_CORE_READ(regs, dx));
	if (t.family != AF_UNIX && !dir && (msg_flags & MSG_TRUNC))
		t.buffers = BUFFERS_NONE; /* TCP throws the bytes away */
	return transfer_seen(&t, dir);
}

/* One message of many: the first of its buffers is captured, the rest is known by length. Not 0: it
 * found no room. */
static __noinline int emit_message(struct conn_state *c, struct transfer *t, u64 message)
{
	struct mmsghdr m;
	struct iovec iov = {};
	u32 len, want;

	if (bpf_probe_read_user(&m, sizeof(m), (const void *)message) || !m.msg_len)
		return 0;
	if (bpf_probe_read_user(&iov, sizeof(iov), (const void *)m.msg_hdr.msg_iov))
		count_drop(DROP_READ_FAULT);
	len = iov.iov_len < m.msg_len ? iov.iov_len : m.msg_len;
	want = len < c->budget ? len : c->budget;
	if (want > IO_CLASS_3)
		want = IO_CLASS_3;
	c->budget -= want;
	c->run_bytes += want;
	t->left -= m.msg_len;
	if (len) {
		if (emit_io(c, t, iov.iov_base, len, want)) {
			t->left += m.msg_len - len;
			return -1;
		}
		t->flags |= IO_RECORD_SAME_CALL;
	}
	if (m.msg_len > len) {
		if (emit_io(c, t, 0, m.msg_len - len, 0))
			return -1;
		t->flags |= IO_RECORD_SAME_CALL;
	}
	return 0;
}

/* The bytes of all messages together. Reads the count anew, so that the verifier doesn't follow
 * what the loop says of it into everything behind. */
static __noinline u32 messages_bytes(const volatile struct exit_context *ctx, u64 messages)
{
	u64 addr = messages + __builtin_offsetof(struct mmsghdr, msg_len);
	s64 count = ctx->ret;
	u32 sum = 0, len, i;

	for (i = 0; i < UIO_MAXIOV && i < count; i++) {
		if (bpf_probe_read_user(&len, sizeof(len), (const void *)addr))
			break;
		sum += len;
		addr += sizeof(struct mmsghdr);
	}
	return sum;
}

/* Several messages in one call: each has its own length. */
static __always_inline int syscall_messages(const struct exit_context *ctx, u32 nr, u8 dir)
{
	const struct pt_regs *regs;
	struct transfer t = {};
	struct conn_state *c;
	u64 messages;
	u32 msg_flags;
	s64 ret = ctx->ret;
	int i;

	t.traced = traced_flags(bpf_get_current_pid_tgid() >> 32);
	if (!t.traced || (t.traced & TRACED_SILENT) || !ret || transfer_would_block(ret))
		return 0;
	regs = syscall_regs();
	msg_flags = BPF_CORE_READ(regs, r10);
	messages = BPF_CORE_READ(regs, si);
	if ((!dir && (msg_flags & MSG_NOT_OF_STREAM)) ||
	    transfer_on(&t, BPF_CORE_READ(regs, di), msg_flags, ret < 0 ? ret : 0, dir))
		return 0;
	t.tcp_seq = t.tcp_peer_seq = 0; /* they stand behind the last message */
	t.syscall = nr;
	if (ret > 0)
		t.result = messages_bytes(ctx, messages);
	if (t.result <= 0) /* an error, or the end of the stream once for each message */
		return t.result || transfer_at_end(&t) ? transfer_seen(&t, dir) : 0;
	c = transfer_conn(&t, dir);
	if (!c)
		return 0;
	t.left = t.result;
	for (i = 0; i < MESSAGES_MAX && i < ret; i++) {
		if (emit_message(c, &t, messages + i * sizeof(struct mmsghdr))) {
			conn_missed_rest(c, &t);
			return 0;
		}
	}
	if (ret > MESSAGES_MAX)
		count_drop(DROP_VECTOR_LONG);
	if ((s32)t.left > 0)
		emit_io(c, &t, 0, t.left, 0);
	return 0;
}

#define SYSCALL_EXIT(name, nr, dir)                    \
	SEC("tracepoint/syscalls/sys_exit_" #name)     \
	int exit_##name(struct exit_context *ctx)      \
	{                                              \
		return syscall_transfer(ctx, nr, dir); \
	}

SYSCALL_EXIT(read, NR_READ, 0)
SYSCALL_EXIT(readv, NR_READV, 0)
SYSCALL_EXIT(preadv2, NR_PREADV2, 0)
SYSCALL_EXIT(recvfrom, NR_RECVFROM, 0)
SYSCALL_EXIT(recvmsg, NR_RECVMSG, 0)
SYSCALL_EXIT(write, NR_WRITE, IO_RECORD_SEND)
SYSCALL_EXIT(writev, NR_WRITEV, IO_RECORD_SEND)
SYSCALL_EXIT(pwritev2, NR_PWRITEV2, IO_RECORD_SEND)
SYSCALL_EXIT(sendto, NR_SENDTO, IO_RECORD_SEND)
SYSCALL_EXIT(sendmsg, NR_SENDMSG, IO_RECORD_SEND)
SYSCALL_EXIT(sendfile64, NR_SENDFILE, IO_RECORD_SEND)

SEC("tracepoint/syscalls/sys_exit_recvmmsg")
int exit_recvmmsg(struct exit_context *ctx)
{
	return syscall_messages(ctx, NR_RECVMMSG, 0);
}

SEC("tracepoint/syscalls/sys_exit_sendmmsg")
int exit_sendmmsg(struct exit_context *ctx)
{
	return syscall_messages(ctx, NR_SENDMMSG, IO_RECORD_SEND);
}

/* struct sockaddr_in, sockaddr_in6 and sockaddr_un share what is needed of them. */
struct any_address {
	u16 family;
	__be16 port;
	u32 ipv4; /* sockaddr_in6: flow label */
	u8 ipv6[16];
	u8 rest[88]; /* sun_path begins at port */
};

/* Refused without a packet: no route, no such path, no permission, no free port. */
static __always_inline bool connect_failed(s64 ret)
{
	enum {
		EPERM = 1,
		ENOENT = 2,
		EACCES = 13,
		EADDRNOTAVAIL = 99,
		ENETUNREACH = 101,
		ECONNREFUSED = 111,
		EHOSTUNREACH = 113
	};

	return ret == -EPERM || ret == -ENOENT || ret == -EACCES || ret == -EADDRNOTAVAIL ||
	       ret == -ENETUNREACH || ret == -ECONNREFUSED || ret == -EHOSTUNREACH;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int exit_connect(struct exit_context *ctx)
{
	u64 pid_tid = bpf_get_current_pid_tgid(), key;
	struct any_address a = {};
	struct open_socket s = {};
	const struct pt_regs *regs;
	const struct sock *sk;
	struct conn_state *c;
	struct conn_record *r;
	u32 flags;

	if (!connect_failed(ctx->ret))
		return 0;
	flags = traced_flags(pid_tid >> 32);
	if (!flags || (flags & TRACED_SILENT))
		return 0;
	regs = syscall_regs();
	if (socket_of_fd(BPF_CORE_READ(regs, di), &s))
		return 0;
	sk = s.sk;
	if (BPF_CORE_READ(sk, sk_type) != SOCK_STREAM)
		return 0;
	key = (u64)sk;
	c = bpf_map_lookup_elem(&conns, &key);
	if (c && c->family != AF_UNIX)
		return 0; /* it got as far as SYN_SENT: process.bpf.c reported it */
	bpf_probe_read_user(&a, sizeof(a), (const void *)BPF_CORE_READ(regs, si));
	r = conn_record_reserve(RECORD_CONNECT_FAILED, 0, pid_tid >> 32, (u32)pid_tid);
	if (!r)
		return 0;
	r->flags = CONN_RECORD_ACTIVE;
	r->family = a.family;
	r->error = ctx->ret;
	r->end_ns = r->ts_ns;
	if (flags & TRACED_PYTHON)
		r->connect_context = python_context(r->pid);
	if (a.family == AF_UNIX) {
		__builtin_memcpy(r->path, &a.port, sizeof(r->path));
		r->path_len = sizeof(r->path);
	} else {
		r->peer_port = bpf_ntohs(a.port);
		if (a.family == AF_INET)
			*(u32 *)r->peer = a.ipv4;
		else
			__builtin_memcpy(r->peer, a.ipv6, sizeof(r->peer));
	}
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
