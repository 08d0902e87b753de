/*
 * One transfer of bytes, as both collectors describe it: which socket, whose buffers, how much.
 * Filled by the collector, and on the way by who knows more of it; what becomes of it is
 * connection.bpf.h.
 */
#ifndef SPANLOOM_TRANSFER_BPF_H
#define SPANLOOM_TRANSFER_BPF_H

#include "maps.bpf.h"

enum { PIECES_MAX = 8 }; /* buffers of one that are looked at */

/* How the buffers of a system call are given. */
enum buffers { BUFFERS_NONE, BUFFERS_ONE, BUFFERS_VECTOR, BUFFERS_MESSAGE, BUFFERS_MANY };

/* One transfer, as a collector saw it. */
struct transfer {
	u64 sk;
	u64 inode; /* of the socket when it is AF_UNIX */
	u64 base;  /* user address of the buffer, the iovec array or the msghdr */
	u64 len;   /* of the buffer in bytes, of the array in entries */
	u32 pid, tid;
	s32 result;
	u32 left; /* of result, not reported yet */
	u32 tcp_seq, tcp_peer_seq;
	u16 family;
	u8 dir; /* IO_RECORD_SEND or 0 */
	u8 flags;
	u8 buffers; /* enum buffers */
	u32 syscall;
	u32 turn;   /* as in io_record */
	u32 traced; /* TRACED_* */
	u64 context;
	u64 state;          /* of the thread whose frames are looked at; 0: they are not */
	u64 request_parent; /* of the record that is due, as in memory; 0: none */
	u8 request;         /* its REQUEST_*; 0: no request begins */
};

#endif
