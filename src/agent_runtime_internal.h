/*
 * Shared by agent_runtime.c (who is looked at, when; what is asked) and agent_runtime_attach.c
 * (what is done to one process) and nobody else.
 */
#ifndef AGENT_RUNTIME_INTERNAL_H
#define AGENT_RUNTIME_INTERNAL_H

#include "agent_runtime.h"
#include "base/hash.h"
#include "runtimes/native.h"
#include "runtimes/runtime.h"

/* So long a process may show no runtime yet. */
#define STARTING_NS 5000000000ull
/* An interpreter that still isn't ready then is spoken of. */
#define STUCK_NS 3000000000ull

enum follow_state {
	FOLLOW_WAITS, /* it may yet become one that we know */
	FOLLOW_RUNS,  /* its runtime is followed */
	FOLLOW_NOT,   /* it has none, or one that can't be trusted */
};

/* A traced process. */
struct followed {
	uint32_t pid;
	enum follow_state state;
	enum runtime_origin origin;
	struct runtime_process *process; /* FOLLOW_RUNS: owned */
	struct native_process *native;   /* owned; NULL: no rule of this kind */
	bool cut_said;                   /* that not all of it is read */
	bool stuck_said;                 /* that its interpreter isn't ready */
	struct hash asked;               /* code objects that the kernel asked about lately */
	uint64_t since_ns;               /* when it began */
	uint64_t due_ns;                 /* when it is looked at next; UINT64_MAX: never */
	uint64_t looked_ns;
	uint64_t pause_ns;         /* FOLLOW_WAITS: between two looks */
	uint64_t start_ticks;      /* what it was when it began */
	uint64_t exe_dev, exe_ino; /* the same */
};

struct agent_runtime {
	const struct options *options;
	struct probe *probe;
	struct tracer *tracer;
	int proc_fd;
	struct runtime_span_rule *rules; /* one for each of options->spans */
	struct runtime_options runtime_options;
	struct native_rule *native_rules;
	struct native *native; /* NULL: no rule of this kind */
	bool python_spans;
	bool *span_met;       /* one for each rule: a function of it was found in some process */
	bool starting;        /* until agent_runtime_start() ends: what is found is summed up */
	bool probed;          /* a probe could be attached once: the kernel takes them */
	bool refused;         /* the kernel refuses probes, said */
	bool native_refused;  /* those of native functions alone, said */
	struct hash followed; /* pid → struct followed */
	uint64_t now_ns;
	uint64_t next_due_ns;    /* no process is due before */
	unsigned int classified; /* in this turn */
	unsigned int said;       /* lines about single processes */
};

/* agent_runtime.c: a code object was found to mean this. */
void agent_runtime_found(struct agent_runtime *r, const struct code_class *class_);

/* agent_runtime_attach.c */
/* Opens, refreshes, looks for native functions: whatever is due. Sets state, not due_ns. */
void followed_look(struct agent_runtime *r, struct followed *f);
/* Takes its probes and its runtime away. */
void followed_drop(struct agent_runtime *r, struct followed *f);

#endif
