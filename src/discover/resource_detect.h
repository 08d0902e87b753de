/*
 * Builds the OpenTelemetry resource of a traced process from its environment, /proc and the agent's
 * own options. Unknown values are left out, never guessed. Source: OpenTelemetry semantic
 * conventions 1.44, resource.
 */
#ifndef DISCOVER_RESOURCE_DETECT_H
#define DISCOVER_RESOURCE_DETECT_H

#include <stdint.h>

#include "config/options.h"
#include "discover/process.h"
#include "trace/resource.h"

enum { HOST_NAME_BYTES = 256, HOST_ID_BYTES = 64, RESOURCE_VALUE_MAX_BYTES = 1024 };

/* What all resources of this host have in common. */
struct resource_context {
	const struct options *options; /* borrowed; may be NULL */
	const char *version;           /* borrowed; the agent's own */
	int proc_fd;                   /* owned */
	char host_name[HOST_NAME_BYTES];
	char host_id[HOST_ID_BYTES]; /* /etc/machine-id, else the board's product_uuid, else "" */
	char boot_id[HOST_ID_BYTES];
};

/* 0 or -errno when /proc can't be opened; valid for resource_context_free() either way. */
int resource_context_init(struct resource_context *c, const struct options *options,
			  const char *version);
void resource_context_free(struct resource_context *c);

/*
 * One reference for the caller; NULL when out of memory. `rule_name`: the service name that the
 * selecting rule gives, or NULL. A process that is gone gets what is known without it. process.pid
 * is the host's number (that of our pid namespace), not the one inside the process's container.
 */
struct resource *resource_detect(const struct resource_context *c, uint32_t pid,
				 const char *rule_name);

/* Pure part of resource_detect: the attributes from what was read. `env` may be empty, `p` zeroed
 * but for pid. */
void resource_fill(struct resource *r, const struct resource_context *c, const struct process *p,
		   const struct process_env *env, const char *rule_name);

/*
 * service.instance.id: a version 5 UUID (RFC 9562, 5.5) in the namespace that the semantic
 * conventions give (4d63009a-8d0f-11ee-aad7-4c796ed8e320) of host, boot, pid and start time; the
 * same for all agents that see the process.
 */
enum { UUID_TEXT_BYTES = 37 };
void resource_instance_id(const struct resource_context *c, const struct process *p,
			  char ret[UUID_TEXT_BYTES]);

/* RFC 9562 version 5 UUID of `name` in `space`, as text. */
void uuid_v5(const uint8_t space[16], const void *name, size_t len, char ret[UUID_TEXT_BYTES]);

#endif
