/*
 * Brings the programs into the kernel and hangs them on what they watch: all that were asked for,
 * or fewer where the kernel refuses the rest. Which ones a kernel can have at all is programs.h.
 * Nothing is pinned: what was loaded and attached goes with its skeleton.
 */
#ifndef PROBE_LOAD_H
#define PROBE_LOAD_H

#include "probe/programs.h"

struct spanloom; /* the skeleton */

/*
 * Loads. 0, or -errno with *ret_error (malloc'd), the rest untouched then. *ret_skel is the
 * caller's to spanloom__destroy(); *ret_why, a constant, is set only when the programs that put
 * something into calls were refused and left out.
 */
int programs_load(const struct probe_options *o, struct spanloom **ret_skel,
		  struct program_choice *ret_choice, const char **ret_why, char **ret_error);
/*
 * Attaches all that was loaded, but for what hooks.c, inject.c and option.c attach by themselves.
 * 0, or -errno with *ret_error (malloc'd).
 */
int programs_attach(struct spanloom *skel, char **ret_error);

#endif
