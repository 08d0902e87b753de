/*
 * What is remembered of the requests on a connection, and what work that is done for a request
 * carries. request.bpf.h recognises requests that are received, owner.bpf.h knows whose work is
 * whose, call.bpf.h gives ids to calls. Kept small: it is in every entry of the conns map.
 */
#ifndef SPANLOOM_REQUEST_STATE_BPF_H
#define SPANLOOM_REQUEST_STATE_BPF_H

#include "event.h"

/* A trace as it is handed on: from a request to its work, from a call to the request at the other
 * end. */
struct trace_ids {
	u8 trace_id[TRACE_CONTEXT_ID_BYTES];
	u8 span_id[TRACE_CONTEXT_SPAN_BYTES]; /* the request's, or the call's */
	u8 trace_flags;                       /* W3C, bit 0 as decided */
	u8 flags;                             /* IDS_* */
	u8 zero[2];
	u32 began; /* of a request: owner_clock() when its head was complete */
};
RECORD_SIZE_IS(trace_ids, 32);

enum {
	IDS_KNOWN = 1,
	IDS_FIXED = 2,   /* the trace id stays: whoever carries on from here may rely on it. Not so
			    where the request was joined to a call whose own request is not certain:
			    user space finds out, and may give it another trace */
	IDS_SAMPLED = 4, /* with IDS_FIXED: the decision */
	IDS_FLOATING = 16, /* not IDS_FIXED, and the call at the other end is of a process that the
			      kernel side knows nothing of (a proxy): whoever has to name the
			      trace to others fixes it */
	IDS_THREAD = 8,    /* an owner: found by the thread, and not by a context */
};

/* Whose work something is: the request that was received on conn_id. */
struct owner {
	struct trace_ids ids;
	u64 conn_id;
};

enum request_stage {
	REQUEST_NONE,     /* nothing is known of what goes on */
	REQUEST_HEAD,     /* a head is being received */
	REQUEST_RUNNING,  /* it is complete, the answer is not known to have begun */
	REQUEST_ANSWERED, /* the answer has begun: what is received next begins a request */
	REQUEST_LOST, /* pipelined, upgraded or not understood: nothing is claimed until the next
			 request that is certain to begin */
};

struct request_state {
	struct trace_ids ids;
	u64 body;     /* bytes of its body still to be received; ~0: until the answer */
	u32 seq;      /* TCP: of its first byte */
	u16 scanned;  /* bytes of the head seen so far */
	u8 stage;     /* enum request_stage */
	u8 muted;     /* set of REQUEST_MUTED* */
	u32 peer_seq; /* TCP: the other direction's counter then; the answer begins there or behind
		       */
	u32 tid; /* the thread that read it from a blocking socket and has not begun to answer; 0 */
};

enum {
	REQUEST_MUTED = 1,        /* nothing of it is reported */
	REQUEST_MUTED_BEFORE = 2, /* nor of the one before it */
};

struct call_state {
	struct trace_ids ids;
	u8 parent[TRACE_CONTEXT_SPAN_BYTES]; /* zero: none */
	u64 start_ns;                        /* before its first byte was queued */
	u32 seq, peer_seq;                   /* TCP: of the call's first byte; the other counter */
	u8 flags;                            /* REQUEST_* of its record */
	u8 begun;    /* a call was begun whose first byte has not been seen to be sent */
	u8 muted;    /* nothing of this connection is reported */
	u8 added;    /* bytes that were put behind its request line */
	u32 refused; /* drop reason for which calls here get no header; 0: none so far */
	u32 zero;
};

#endif
