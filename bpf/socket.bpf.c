/*
 * The collector for kernels with the sock_send_length and sock_recv_length tracepoints (6.3): they
 * fire behind each transfer of a socket, in the context of the process, so a system call that isn't
 * on a socket costs nothing. No tracepoint of system calls is used with it: attaching a single one
 * makes every system call of the machine slower (about 35 ns here).
 */
#include "avoided.bpf.h"
#include "syscalls.bpf.h"

static __always_inline bool sock_does_not_block(const struct sock *sk, u32 msg_flags)
{
	return (msg_flags & MSG_DONTWAIT) ||
	       (BPF_CORE_READ(sk, sk_socket, file, f_flags) & O_NONBLOCK);
}

/* Something was received by a process whose sockets may be in the table. One that waits for it
 * there, or is spoken to first, is not to be there the next time. */
static __always_inline void socket_received(struct sock *sk, const struct tcp_sock *tp, u32 pid,
					    bool blocks)
{
	if ((blocks || !tp->bytes_sent) && bpf_sk_storage_get(&injections, sk, 0, 0))
		peer_avoid(sk, pid);
}

static __always_inline int traced_transfer(struct sock *sk, int result, int flags, u8 dir,
					   u64 pid_tid, u32 process)
{
	struct transfer t = { .pid = pid_tid >> 32, .tid = (u32)pid_tid, .traced = process };
	const struct pt_regs *regs;
	struct task_struct *task;
	struct tcp_sock *tp;
	bool many;
	u32 nr;

	if (sk->sk_type != SOCK_STREAM || (!dir && (flags & MSG_NOT_OF_STREAM)))
		return 0;
	task = bpf_get_current_task_btf();
	t.turn = turn_of(task->nvcsw);
	regs = (const struct pt_regs *)bpf_task_pt_regs(task);
	nr = regs->orig_ax;
	many = nr == NR_SENDMMSG || nr == NR_RECVMMSG;
	/* A receive of nothing is the end of the stream, unless nothing was asked for. */
	if (transfer_would_block(result) ||
	    (!result && (dir || !(sk->sk_shutdown & RCV_SHUTDOWN)))) {
		if (many)
			many_unreported((u64)sk, regs->si, regs->dx, t.tid, result);
		return 0;
	}
	t.family = sk->__sk_common.skc_family;
	if (t.family != AF_INET && t.family != AF_INET6 && t.family != AF_UNIX)
		return 0;
	t.sk = (u64)sk;
	t.result = result;
	t.dir = dir;
	t.flags = flags & MSG_DONTWAIT ? IO_RECORD_NONBLOCK : 0;
	transfer_buffers(&t, nr, regs->si, regs->dx);
	if (many) /* MSG_WAITFORONE makes all but the first not block: go by what the process asked
		   */
		t.flags = sock_does_not_block(sk, regs->r10) ? IO_RECORD_NONBLOCK : 0;
	if (nr == NR_RECVMMSG && regs->r8)
		t.buffers = BUFFERS_NONE; /* a time limit ends the call without a word */
	if (t.family == AF_UNIX) {
		struct socket *socket = sk->sk_socket;

		if (socket)
			t.inode = BPF_CORE_READ(socket, file, f_inode, i_ino);
		return transfer_seen(&t, dir);
	}
	if (!dir && (flags & MSG_TRUNC))
		t.buffers = BUFFERS_NONE; /* TCP throws the bytes away */
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		u32 moved = result > 0 ? result : 0;
		u32 sent = tp->write_seq;
		u32 received = stream_read(tp->copied_seq, tp->rcv_nxt, sk->__sk_common.skc_flags);

		t.tcp_seq = (dir ? sent : received) - moved;
		t.tcp_peer_seq = dir ? received : sent;
		if (!dir && constants.inject && (process & TRACED_INJECT))
			socket_received(sk, tp, t.pid, !(flags & MSG_DONTWAIT));
	}
	return transfer_seen(&t, dir);
}

/* Most of the machine's transfers are not of a traced process, and many find nothing to move. */
static __always_inline int sock_transfer(struct sock *sk, int result, int flags, u8 dir)
{
	u64 pid_tid;
	u32 process;

	if (result == -ERRNO_EAGAIN && !many_used)
		return 0;
	pid_tid = bpf_get_current_pid_tgid();
	process = traced_flags(pid_tid >> 32);
	return process && !(process & TRACED_SILENT)
		       ? traced_transfer(sk, result, flags, dir, pid_tid, process)
		       : 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send_length, struct sock *sk, int ret, int flags)
{
	return sock_transfer(sk, ret, flags, IO_RECORD_SEND);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv_length, struct sock *sk, int ret, int flags)
{
	return sock_transfer(sk, ret, flags, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
