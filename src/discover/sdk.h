/*
 * Does a process report spans of its own, by an OpenTelemetry SDK? Judged by what /proc shows from
 * outside: its environment, its arguments, the context that SDKs publish for profilers. A name
 * alone (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) says nothing: users set it for us as well.
 */
#ifndef DISCOVER_SDK_H
#define DISCOVER_SDK_H

#include <stddef.h>
#include <stdint.h>

#include "discover/process.h"

enum sdk_evidence {
	SDK_NONE,
	SDK_HINT,  /* it is set up for one, which may not be there */
	SDK_PROOF, /* one is at work in it */
};

/* What is known of a process, for sdk_judge(); texts may be NULL. */
struct sdk_signs {
	const struct process_env *env;
	const char *program;   /* base name of its executable */
	const char *arguments; /* cmdline, with blanks for the NULs */
	const char *maps;      /* text of /proc/PID/maps */
};

enum { SDK_WHY_BYTES = 96 };

/*
 * Reads the process and judges it. `why` gets what speaks for it, to stand behind "since"; "" for
 * SDK_NONE. A process that is gone, or may not be read, is SDK_NONE.
 */
enum sdk_evidence sdk_look(int proc_fd, uint32_t pid, char why[SDK_WHY_BYTES]);
/* The pure part of it. */
enum sdk_evidence sdk_judge(const struct sdk_signs *signs, char why[SDK_WHY_BYTES]);

#endif
