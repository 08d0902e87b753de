/*
 * What the kernel side must know of one CPython process: where its structures keep what is read
 * there, and which of its code objects matter. src/runtimes/python*.c fills these after checking
 * them against the live process; bpf/python.bpf.c is their only reader. All offsets are in bytes,
 * all addresses are of the process.
 */
#ifndef SPANLOOM_PYTHON_LAYOUT_H
#define SPANLOOM_PYTHON_LAYOUT_H

#include "event.h"

/* This version has no such field. */
enum { PYTHON_NONE = 0xffff };

/* Where a thread keeps the values of pthread_setspecific(). */
enum python_tsd {
	PYTHON_TSD_GLIBC, /* at thread pointer + tsd_offset + key * 16 + 8 */
	PYTHON_TSD_MUSL,  /* *(thread pointer + tsd_offset) is an array of pointers, by key */
};

/* Where an object keeps the values of its attributes. */
enum python_values {
	PYTHON_VALUES_DICT,   /* 3.9, 3.10: a dict with split keys at dict_offset; its ma_values */
	PYTHON_VALUES_BEFORE, /* 3.11: *(object - 32) */
	PYTHON_VALUES_TAGGED, /* 3.12: *(object - 24) + 1, when that is odd */
	PYTHON_VALUES_INLINE, /* 3.13, 3.14: object + values_offset */
};

/* How the keys of a dict are laid out (struct _dictkeysobject). */
enum python_keys {
	PYTHON_KEYS_OLD, /* 3.9, 3.10: dk_size at 8, dk_nentries at 32, indices at 40; entries of 24
			    bytes */
	PYTHON_KEYS_NEW, /* 3.11 on: log2_index_bytes at 9, kind at 10, dk_nentries at 24, indices
			    at 32; entries of 16 bytes when kind is not 0 (no hash), else of 24 */
};

/* When frames are walked beyond what links need. */
enum python_walks {
	PYTHON_WALK_EVENTS =
		1, /* custom spans: what begins and who makes tasks reports its frames */
	PYTHON_WALK_MAKERS = 2, /* code.*: what is handed on reports who of the application did */
};

struct python_layout {
	/* the thread state of the running thread */
	u32 tss_key;
	u16 tsd_offset;
	u8 tsd;               /* enum python_tsd */
	u8 reference_tags;    /* 3.14: low bits of references in frames that are not address */
	u16 tstate_thread_id; /* equals the thread pointer, else it isn't this thread's */
	u16 tstate_context;
	u16 tstate_frame;    /* the current frame, or struct _PyCFrame when cframe_frame is set */
	u16 cframe_frame;    /* in there; PYTHON_NONE: tstate_frame is the frame itself */
	u16 context_entered; /* a context counts only while this int is not 0 */
	/* frames, all within 128 bytes of the frame but for the locals of 3.9 and 3.10 */
	u16 frame_code, frame_previous;
	u16 frame_owner; /* PYTHON_NONE: has none */
	u16 frame_locals;
	u8 frame_owner_skip; /* frames with at least this owner are not of Python code */
	/* objects and dicts */
	u8 values; /* enum python_values */
	u16 values_offset;
	u16 dict_offset;            /* of the instance dict, PYTHON_VALUES_DICT */
	u16 dict_keys, dict_values; /* ma_keys, ma_values */
	u8 keys;                    /* enum python_keys */
	u8 walks;                   /* of enum python_walks */
	/* 3.14 on, else 0: ctx_prev of a context. What a threading.Thread runs is in a context of
	 * its own there, entered from none: it counts as none, as in versions that have no such. */
	u16 context_previous;
	u64 context_type; /* of which every context is */
	/* the interned strings that are keys of an ASGI scope; 0: not known yet */
	u64 key_route, key_root_path, key_endpoint, key_fastapi, key_route_context, key_router;
	/* "client", where the server reads and answers in no context: calls and what is handed on
	 * report the client that they are made for; else 0 */
	u64 key_client;
};
RECORD_SIZE_IS(python_layout, 104);

/* Contexts in which a process's loop handles what it reads in none (uvloop: those of its listening
 * sockets), so the roots of requests are copies of them. */
enum { HANDLERS_MAX = 4 };
struct context_handlers {
	u64 context[HANDLERS_MAX]; /* 0: none */
	u32 since;                 /* owner_clock(): CLOCK_MONOTONIC in units of 2^20 ns */
	u32 zero;
};
RECORD_SIZE_IS(context_handlers, 40);

/* What a code object means where it is met in a stack. */
enum code_kind {
	CODE_LIBRARY = 1,
	CODE_TASK,  /* a library's, which makes tasks and the like for its caller; arg 1: a
		       coroutine, which may itself be what a loop runs */
	CODE_SERVE, /* a library's, which has a request handled: what it makes tasks for is nobody's
		       call; arg 1: custom spans may be around it */
	CODE_LOOP,  /* a library's, which runs an event loop: it calls whatever is ready, and only
		       what it makes itself, before it begins, is its caller's; arg 1: not that
		       either */
	CODE_APPLICATION,
	CODE_SPAN,         /* the application's, and a custom span; arg: index of the rule, and bit
			      16 + i is set where local i is an argument that it never assigns */
	CODE_STOP,         /* nothing of interest is further out */
	CODE_POOL,         /* only threads of a pool run this */
	CODE_WORK,         /* runs one item of an executor: its first local */
	CODE_ANSWER_SELF,  /* sends an answer; the ASGI scope is attribute value number arg of its
			      first local */
	CODE_ANSWER_LOCAL, /* is on the stack of an answer; the scope is local number arg */
	CODE_ANSWER_MATCH, /* the same of aiohttp, which has no scope: attribute value number
			      arg >> 8 & 255 of local number arg & 255 is an object that has the
			      route at arg >> 16 bytes */
};

struct code_class {
	u32 kind; /* enum code_kind */
	u32 arg;
};
RECORD_SIZE_IS(code_class, 8);

/* Key of the table of code objects. */
struct code_key {
	u64 code;
	u32 pid;
	u32 zero;
};
RECORD_SIZE_IS(code_key, 16);

enum { CODE_SPAN_RULE = 0xffff /* the rule's bits of arg, of CODE_SPAN */ };
enum { SPAN_ARGUMENTS_MAX = 4 /* locals that are looked at, of CODE_SPAN */ };
enum { CODES_MAX = 65536, CODES_OF_PROCESS_MAX = 16384, PYTHONS_MAX = 1024, FRAMES_MAX = 64 };

#endif
