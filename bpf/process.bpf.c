/*
 * Processes and threads that come and go, sockets that begin to listen, connection attempts that
 * fail, connections that are gone. It decides only what can't wait for the agent: a child of a
 * traced process is traced from birth.
 */
#include "context.bpf.h"
#include "owner.bpf.h"
#include "route.bpf.h"
#include "sample.bpf.h"

const volatile struct probe_constants constants = {};
u32 wake_pending = 0;
u32 ring_losses = 0;
u64 last_conn_id = 0;
u8 traced_hint[TRACED_HINTS] = {};
u8 many_used = 0;
u32 doubts = 0;
u8 late_used = 0;

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 pid = child->tgid, tid = child->pid, parent_pid = parent->tgid, fresh;
	u32 flags = traced_flags(parent_pid);

	if (!flags)
		return 0;
	if (pid == parent_pid) {
		if (flags & TRACED_SILENT)
			return 0;
		emit_task(RECORD_THREAD_START, pid, tid, parent->pid, 0, false);
		if (flags & TRACED_PYTHON)
			context_handed_on(CONTEXT_BORN, tid, true);
		return 0;
	}
	traced_hint[pid % TRACED_HINTS] = 1;
	/* Its interpreter is looked at anew: its probes aren't there. What its own bindings are
	 * worth has to be found out again as well. */
	fresh = flags & (TRACED | TRACED_INJECT | TRACED_SILENT | ~0u << TRACED_SERVICE_SHIFT);
	if (bpf_map_update_elem(&traced, &pid, &fresh, BPF_ANY))
		count_drop(DROP_PROCESS_TABLE_FULL);
	else
		emit_task(RECORD_PROCESS_FORK, pid, tid, parent_pid, 0, true);
	return 0;
}

/* Another program has no such interpreter, and nothing is known of how it works. */
static __always_inline void program_ends(u32 pid)
{
	u32 *flags = bpf_map_lookup_elem(&traced, &pid);

	if (!flags)
		return;
	if (*flags & TRACED_PYTHON) {
		bpf_map_delete_elem(&pythons, &pid);
		bpf_map_delete_elem(&handlers, &pid);
	}
	bpf_map_delete_elem(&workers, &pid); /* its first thread lives on */
	*flags &= ~(u32)(TRACED_PYTHON | TRACED_CONTEXTS | TRACED_THREADS | TRACED_SERVES);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task)
{
	program_ends(task->tgid);
	emit_task(RECORD_PROCESS_EXEC, task->tgid, task->pid, 0, 0, true);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	u32 pid = task->tgid, tid = task->pid, flags = traced_flags(pid);

	if (!flags)
		return 0;
	bpf_map_delete_elem(&workers, &tid);
	if (task->signal->live.counter) {
		if (!(flags & TRACED_SILENT))
			emit_task(RECORD_THREAD_EXIT, pid, task->pid, 0, 0, false);
		return 0;
	}
	program_ends(pid);
	bpf_map_delete_elem(&traced, &pid);
	emit_task(RECORD_PROCESS_EXIT, pid, task->pid, 0, 0, true);
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(process_cgroup, struct cgroup *dst, const char *path, struct task_struct *task)
{
	emit_task(RECORD_PROCESS_CGROUP, task->tgid, task->pid, 0, 0, true);
	return 0;
}

static __always_inline void emit_connect_failed(const struct conn_state *c, const struct sock *sk,
						int error)
{
	struct conn_record *r =
		conn_record_reserve(RECORD_CONNECT_FAILED, c->id, c->connect_pid, c->connect_tid);

	if (!r)
		return;
	conn_addresses(r, sk, c->family);
	r->flags = CONN_RECORD_ACTIVE;
	r->error = error;
	r->end_ns = r->ts_ns;
	r->ts_ns = c->connect_ns;
	r->connect_context = c->connect_context;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

/* In process context: connect() was called. */
static __always_inline void connect_begins(struct sock *sk)
{
	u64 pid_tid = bpf_get_current_pid_tgid(), key = (u64)sk;
	u32 flags = traced_flags(pid_tid >> 32);
	struct conn_state *c;

	if (!flags || (flags & TRACED_SILENT))
		return;
	c = conn_create(key, sk->__sk_common.skc_family, 0);
	if (!c)
		return;
	c->flags = CONN_CONNECTING | CONN_ACTIVE;
	c->connect_ns = bpf_ktime_get_ns();
	c->connect_pid = pid_tid >> 32;
	c->connect_tid = (u32)pid_tid;
	c->connect_turn = current_turn();
	if (flags & TRACED_PYTHON)
		c->connect_context = python_context(c->connect_pid);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(socket_state, struct sock *sk, int old_state, int new_state)
{
	u64 key = (u64)sk;
	struct conn_state *c;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new_state == TCP_SYN_SENT) {
		connect_begins(sk);
	} else if (new_state == TCP_LISTEN) {
		u64 pid_tid = bpf_get_current_pid_tgid();

		emit_task(RECORD_LISTEN, pid_tid >> 32, (u32)pid_tid, sk->__sk_common.skc_num, 0,
			  true);
	} else if (old_state == TCP_SYN_SENT) {
		c = bpf_map_lookup_elem(&conns, &key);
		if (!c || !(c->flags & CONN_CONNECTING))
			return 0;
		c->flags &= ~CONN_CONNECTING;
		if (new_state == TCP_CLOSE && !sk->sk_err && in_connect()) {
			/* No packet left, for want of a free port most likely: exit_connect knows.
			 */
			if (constants.syscall_exits)
				bpf_map_delete_elem(&conns, &key);
			else
				emit_connect_failed(c, sk, ERRNO_UNKNOWN);
		} else if (new_state == TCP_CLOSE) {
			emit_connect_failed(c, sk, sk->sk_err);
		}
	}
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(socket_destroyed, struct sock *sk)
{
	u64 key = (u64)sk;
	struct conn_state *c = bpf_map_lookup_elem(&conns, &key);

	if (!c)
		return 0;
	worker_ends(c->request.tid);
	if ((c->flags & CONN_ANNOUNCED) && !conn_ignored(c))
		emit_task(RECORD_CONN_CLOSE, 0, 0, 0, c->id, false);
	bpf_map_delete_elem(&conns, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
