/*
 * The kernel types that the programs touch, written by hand with just the members they read: CO-RE
 * finds the real offsets at load time, so neither a generated header nor BTF on the building
 * machine is needed. Members keep the kernel's names; order and size here mean nothing for structs
 * marked with preserve_access_index.
 */
#ifndef SPANLOOM_KERNEL_TYPES_BPF_H
#define SPANLOOM_KERNEL_TYPES_BPF_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u16 __sum16;
typedef _Bool bool;
#define true 1
#define false 0

/* linux/bpf.h, ABI. */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };

/* ABI of system calls (linux/uio.h, linux/socket.h). */
enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10, SOCK_STREAM = 1, IPPROTO_TCP = 6 };
enum {
	MSG_OOB = 1,
	MSG_PEEK = 2,
	MSG_TRUNC = 0x20,
	MSG_DONTWAIT = 0x40,
	MSG_ERRQUEUE = 0x2000,
	O_NONBLOCK = 04000,
	UIO_MAXIOV = 1024,
};
struct iovec {
	u64 iov_base;
	u64 iov_len;
};
struct user_msghdr {
	u64 msg_name;
	u32 msg_namelen, pad0;
	u64 msg_iov;
	u64 msg_iovlen;
	u64 msg_control;
	u64 msg_controllen;
	u32 msg_flags, pad1;
};
struct mmsghdr {
	struct user_msghdr msg_hdr;
	u32 msg_len, pad;
};

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct in6_addr {
	union {
		u8 u6_addr8[16];
	} in6_u;
} KERNEL_TYPE;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	u16 skc_num;
	u16 skc_family;
	volatile u8 skc_state;
	unsigned long skc_flags;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} KERNEL_TYPE;

struct upid {
	int nr;
} KERNEL_TYPE;

struct pid {
	struct upid numbers[1];
} KERNEL_TYPE;

struct socket;
struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	u32 sk_max_ack_backlog;
	int sk_err;
	u8 sk_shutdown;
	u16 sk_type;
	u16 sk_protocol;
	struct pid *sk_peer_pid; /* AF_UNIX: of who connected */
} KERNEL_TYPE;

struct tcp_sock {
	u32 copied_seq;
	u32 rcv_nxt;
	u32 write_seq;
	u32 snd_nxt;
	u64 bytes_received; /* by the kernel; a FIN counts as one, as in the sequence numbers */
	u64 bytes_sent;     /* those sent again among them */
	u64 bytes_retrans;
} KERNEL_TYPE;

struct inode {
	u16 i_mode;
	u64 i_ino;
} KERNEL_TYPE;

struct file {
	struct inode *f_inode;
	u32 f_flags;
	void *private_data;
} KERNEL_TYPE;

struct socket {
	struct file *file;
	struct sock *sk;
} KERNEL_TYPE;

struct sockaddr_un {
	u16 sun_family;
	char sun_path[108];
};

struct unix_address {
	int len;
	struct sockaddr_un name[0];
} KERNEL_TYPE;

struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
} KERNEL_TYPE;

struct fdtable {
	u32 max_fds;
	struct file **fd;
} KERNEL_TYPE;

struct files_struct {
	struct fdtable *fdt;
} KERNEL_TYPE;

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} KERNEL_TYPE;

struct user_tls {
	unsigned long tp_value;
} KERNEL_TYPE;

struct thread_struct {
	unsigned long fsbase; /* x86-64 */
	struct user_tls uw;   /* arm64 */
} KERNEL_TYPE;

typedef struct {
	u64 ctx_id; /* x86-64: never given twice */
} KERNEL_TYPE mm_context_t;

struct mm_struct {
	mm_context_t context;
} KERNEL_TYPE;

struct task_struct {
	int pid;
	int tgid;
	void *stack;
	struct files_struct *files;
	struct signal_struct *signal;
	struct mm_struct *mm;
	unsigned long nvcsw;
	struct thread_struct thread;
} KERNEL_TYPE;

struct flowi_common {
	u8 flowic_proto;
} KERNEL_TYPE;

union flowi_uli {
	struct {
		__be16 dport;
		__be16 sport;
	} ports;
} KERNEL_TYPE;

struct flowi4 {
	struct flowi_common __fl_common;
	__be32 daddr;
	union flowi_uli uli;
} KERNEL_TYPE;

struct flowi6 {
	struct flowi_common __fl_common;
	struct in6_addr daddr;
	union flowi_uli uli;
} KERNEL_TYPE;

struct fib6_info;

struct fib6_result {
	struct fib6_info *f6i;
	u8 fib6_type;
} KERNEL_TYPE;

struct netns_ipv6 {
	struct fib6_info *fib6_null_entry;
} KERNEL_TYPE;

struct net {
	struct netns_ipv6 ipv6;
} KERNEL_TYPE;

struct cgroup;

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bx, di, si, dx, r10, r8, r9, ax, orig_ax, sp;
} KERNEL_TYPE;
#else
#error "one architecture so far: x86-64"
#endif

enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_CLOSE = 7, TCP_LISTEN = 10, RCV_SHUTDOWN = 1 };
enum { SOCK_DONE = 1 }; /* bit of skc_flags: a FIN has come */

#endif
