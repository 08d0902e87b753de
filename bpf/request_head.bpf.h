/*
 * The head of an HTTP/1 request as it is read, maybe in several pieces: what is known of it so far,
 * and who looks at the bytes (request_head.bpf.c).
 */
#ifndef SPANLOOM_REQUEST_HEAD_BPF_H
#define SPANLOOM_REQUEST_HEAD_BPF_H

#include "maps.bpf.h"

enum {
	HEAD_KEPT = 192,       /* of a line that goes on in the next piece */
	HEAD_CHUNK = 1024,     /* is read at once */
	HEAD_ROOM = 2048,      /* a power of two */
	HEAD_STEPS = 64,       /* words and lines that are looked at before the scan pauses */
	HEAD_PIECES = 56,      /* pauses, chunks and buffers of one transfer */
	HEAD_BYTES_MAX = 8192, /* a longer head is not understood */
	HEADS_MAX = 1024,      /* that come in pieces at a time */
};

enum { HEAD_BAD = -1, HEAD_MORE, HEAD_AGAIN, HEAD_DONE, HEAD_TUNNEL };
enum { HEAD_NAME_OTHER, HEAD_NAME_TRACEPARENT, HEAD_NAME_LENGTH, HEAD_NAME_CODING };
enum {
	HEAD_LINE = 1,    /* the request line was seen */
	HEAD_LENGTH = 2,  /* Content-Length */
	HEAD_ENDLESS = 4, /* how long the body is can't be told from the head */
};

/* What the lines so far have said. */
struct head_found {
	struct trace_ids ids; /* of the first traceparent; IDS_KNOWN: it is valid */
	volatile u64 length;
	u32 bytes; /* of the head, and of what was read with it */
	u32 kept;  /* bytes in front, of the line that isn't complete */
	u8 flags;  /* HEAD_* */
	u8 traceparents;
	u8 zero[6];
};

/* The buffers of a transfer, one after the other. */
struct pieces {
	u64 vector; /* of iovecs */
	u64 addr;   /* what is left of the current one */
	u32 count;  /* of iovecs that are left */
	u32 len;
	u32 left; /* of the transfer */
	s32 verdict;
};

struct head_scan {
	/* What is counted stands here, and not on the stack, where the verifier would follow each
	 * way by which a number comes about. */
	struct pieces pieces;
	u32 at;   /* the next byte that is looked at */
	u32 from; /* where its line begins */
	u32 end;
	u32 busy;
	volatile u32 value, value_end; /* of a field */
	struct head_found found;       /* this and HEAD_KEPT bytes are a struct head_part */
	u8 data[HEAD_ROOM + 16];
};

/* Tracepoints run with preemption off, so that a CPU has one user of this at a time; where that
 * should ever be different the second one finds it busy. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct head_scan);
} head_scans SEC(".maps") __weak;

/* A head that comes in several reads, between two of them. */
struct head_part {
	struct head_found found;
	u8 line[HEAD_KEPT];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, HEADS_MAX);
	__type(key, u64); /* connection */
	__type(value, struct head_part);
} heads SEC(".maps") __weak;

static __always_inline struct head_scan *head_scratch(void)
{
	u32 zero = 0;

	return bpf_map_lookup_elem(&head_scans, &zero);
}

/*
 * request_head.bpf.c: `len` more bytes of the head, at `address` of the process (0: it goes on with
 * those it has, after HEAD_AGAIN). HEAD_MORE: all of them are the head's; HEAD_DONE: found.bytes of
 * them are; HEAD_TUNNEL: CONNECT, what follows is no HTTP; HEAD_BAD.
 */
extern int request_scan(u64 address, u32 len);

struct transfer;

struct first_bytes {
	u64 words[2];
};

/* request_bytes.bpf.c: the first bytes of a transfer, as in memory, and how many of them there are:
 * where the first buffer with bytes holds fewer, not more than those. 0: not known. */
extern int transfer_begins(const struct transfer *t, struct first_bytes *ret);
/* The same file: all bytes of a transfer to the scan. HEAD_*, as request_scan(). */
extern int head_read(const struct transfer *t);
/* The same file: what the scan has found so far is kept until the connection's next read; 0: it
 * could not be, or none was kept. */
extern int head_resume(u64 conn_id);
extern int head_pause(u64 conn_id);
extern int head_forget(u64 conn_id);

static __always_inline bool method_is(u64 word, u64 known, u64 method, u32 len)
{
	u64 mask = len < 8 ? (1ull << 8 * len) - 1 : ~0ull;

	return !((word ^ method) & mask & known);
}

/* Do the first `n` bytes (at most 8, the first in the lowest) begin as the method of an HTTP/1
 * request does? */
static __always_inline bool http_method(u64 word, u32 n)
{
	u64 known = n < 8 ? (1ull << 8 * n) - 1 : ~0ull;

	return method_is(word, known, 0x20544547, 4) ||         /* GET */
	       method_is(word, known, 0x2054534f50, 5) ||       /* POST */
	       method_is(word, known, 0x20545550, 4) ||         /* PUT */
	       method_is(word, known, 0x204554454c4544, 7) ||   /* DELETE */
	       method_is(word, known, 0x204843544150, 6) ||     /* PATCH */
	       method_is(word, known, 0x2044414548, 5) ||       /* HEAD */
	       method_is(word, known, 0x20534e4f4954504f, 8) || /* OPTIONS */
	       method_is(word, known, 0x204543415254, 6) ||     /* TRACE */
	       method_is(word, known, 0x205443454e4e4f43, 8);   /* CONNECT */
}

#endif
