/*
 * Which of our programs this kernel can have, and with which constants they run. Asks the kernel's
 * type information and nothing else; what is left out without harm is named in a sentence.
 */
#ifndef PROBE_PROGRAMS_H
#define PROBE_PROGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "event.h"
#include "probe/probe.h"

struct bpf_object;
struct bpf_program;
struct btf;

enum { MISSING_MAX = 8 };

struct program_choice {
	enum probe_collector collector; /* never AUTO */
	bool requests;                  /* requests are recognised in the kernel */
	bool calls_early;               /* calls have their ids before their bytes leave */
	uint32_t propagate;             /* set of enum probe_propagate: what is loaded for it */
	const char *missing[MISSING_MAX + 1]; /* sentences, NULL-terminated */
	size_t missing_count;
};

/* The most that may be loaded: what was asked for and, when the kernel has refused it, less. */
struct program_limits {
	bool no_requests;
	uint32_t propagate;
};

/*
 * Sets the autoload flag of every program. 0 or -errno with *ret_error (malloc'd). Failures after
 * this one may be answered by another call with narrower limits; `ret` is made anew.
 */
int programs_choose(struct bpf_object *obj, const struct probe_options *o,
		    const struct program_limits *limits, struct program_choice *ret,
		    char **ret_error);
/* The constants of the programs, from the options and what was chosen. */
void programs_constants(const struct probe_options *o, const struct program_choice *choice,
			struct probe_constants *ret);
/* Is it one of those that put headers or options into calls? Who knows where they hang attaches
 * them. */
bool programs_propagate(const struct bpf_program *prog);
/* Can the sampler refuse anything? */
bool programs_may_refuse(const struct probe_options *o);
void programs_missing(struct program_choice *c, const char *sentence);

/* Does the kernel have this helper, as in "loop"? By the names of enum bpf_func_id. */
bool kernel_has_helper(const struct btf *kernel, const char *name);

#endif
