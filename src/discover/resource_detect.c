/*
 * The resource of a traced process. Later ones win: what was detected, the agent's own attributes,
 * the process's OTEL_RESOURCE_ATTRIBUTES; telemetry.* is always ours. service.name has its own
 * order (semconv). A list that does not parse is left out as a whole, as the OpenTelemetry
 * specification says.
 */
#include "discover/resource_detect.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "discover/file.h"

enum {
	RESOURCE_KEY_MAX_BYTES = 255,
	RUNTIME_VERSION_BYTES = 16,
	INSTANCE_NAME_BYTES = HOST_NAME_BYTES + 2 * HOST_ID_BYTES
};

int resource_context_init(struct resource_context *c, const struct options *options,
			  const char *version)
{
	struct utsname uts;

	*c = (struct resource_context){ .options = options, .version = version };
	c->proc_fd = process_open_proc();
	if (uname(&uts) == 0)
		snprintf(c->host_name, sizeof(c->host_name), "%s", uts.nodename);
	file_read_word("/etc/machine-id", c->host_id, sizeof(c->host_id));
	/* "uninitialized": systemd, before the first boot is through */
	if (!c->host_id[0] || strcmp(c->host_id, "uninitialized") == 0)
		file_read_word("/sys/class/dmi/id/product_uuid", c->host_id, sizeof(c->host_id));
	file_read_word("/proc/sys/kernel/random/boot_id", c->boot_id, sizeof(c->boot_id));
	return c->proc_fd < 0 ? c->proc_fd : 0;
}

void resource_context_free(struct resource_context *c)
{
	if (c->proc_fd >= 0)
		close(c->proc_fd);
	c->proc_fd = -1;
}

void resource_instance_id(const struct resource_context *c, const struct process *p,
			  char ret[UUID_TEXT_BYTES])
{
	static const uint8_t space[16] = { 0x4d, 0x63, 0x00, 0x9a, 0x8d, 0x0f, 0x11, 0xee,
					   0xaa, 0xd7, 0x4c, 0x79, 0x6e, 0xd8, 0xe3, 0x20 };
	char name[INSTANCE_NAME_BYTES];
	int len = snprintf(name, sizeof(name), "%s/%s/%" PRIu32 "/%" PRIu64,
			   c->host_id[0] ? c->host_id : c->host_name, c->boot_id, p->pid,
			   p->start_ticks);

	uuid_v5(space, name, (size_t)len < sizeof(name) ? (size_t)len : sizeof(name) - 1, ret);
}

/* From outside, so bounded; never cut within a UTF-8 sequence. */
static void set_bounded(struct resource *r, const char *key, const char *value)
{
	char cut[RESOURCE_VALUE_MAX_BYTES + 1];
	size_t len = strnlen(value, sizeof(cut));

	if (len > RESOURCE_VALUE_MAX_BYTES) {
		len = RESOURCE_VALUE_MAX_BYTES;
		while (len && ((unsigned char)value[len] & 0xc0) == 0x80)
			len--;
	}
	memcpy(cut, value, len);
	cut[len] = 0;
	resource_set(r, key, cut);
}

static void set_host(struct resource *r, const struct resource_context *c)
{
	resource_set(r, "host.name", c->host_name);
	resource_set(r, "host.id", c->host_id);
	resource_set(r, "os.type", "linux");
}

static void set_process(struct resource *r, const struct resource_context *c,
			const struct process *p)
{
	char id[UUID_TEXT_BYTES], command[RESOURCE_VALUE_MAX_BYTES];

	resource_set_int(r, "process.pid", p->pid);
	if (p->exe && *p->exe) {
		resource_set(r, "process.executable.path", p->exe);
		resource_set(r, "process.executable.name", path_base(p->exe));
	} else {
		resource_set(r, "process.executable.name", p->comm);
	}
	if (p->argv0) {
		/* A title set at run time has its arguments behind a blank. */
		snprintf(command, sizeof(command), "%.*s", (int)strcspn(p->argv0, " "), p->argv0);
		set_bounded(r, "process.command", command);
	}
	resource_set(r, "container.id", p->container_id);
	/* Without a start time the number may be another process's: no identity. */
	if (p->start_ticks) {
		resource_instance_id(c, p, id);
		resource_set(r, "service.instance.id", id);
	}
}

static void set_telemetry(struct resource *r, const struct resource_context *c)
{
	resource_set(r, "telemetry.sdk.name", "spanloom");
	/* Of the conventions' list none is C, and then another value is allowed. */
	resource_set(r, "telemetry.sdk.language", "c");
	resource_set(r, "telemetry.sdk.version", c->version);
	resource_set(r, "telemetry.distro.name", "spanloom");
}

/* The agent is one for many processes: what would make them all the same instance is not theirs. */
static void set_agent_attributes(struct resource *r, const struct options *o)
{
	for (size_t i = 0; o && i < o->resource_attribute_count; i++) {
		const struct key_value *kv = &o->resource_attributes[i];

		if (strcmp(kv->key, "service.name") != 0 &&
		    strcmp(kv->key, "service.instance.id") != 0)
			set_bounded(r, kv->key, kv->value);
	}
}

static const char *non_empty(const char *text)
{
	return text && *text ? text : NULL;
}

/* Sets service.name when the list has it; true then. */
static bool set_own_attributes(struct resource *r, const struct process_env *env)
{
	const char *text = process_env_get(env, "OTEL_RESOURCE_ATTRIBUTES");
	struct key_value *list;
	bool named = false;
	size_t count;

	if (!text || key_value_parse(text, &list, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		if (strlen(list[i].key) > RESOURCE_KEY_MAX_BYTES)
			continue;
		set_bounded(r, list[i].key, list[i].value);
		named |= *list[i].value && strcmp(list[i].key, "service.name") == 0;
	}
	key_value_free(list, count);
	return named;
}

static void set_service_name(struct resource *r, const struct resource_context *c,
			     const struct process_env *env, const char *rule_name, bool named)
{
	const char *name = non_empty(rule_name), *executable;
	char unknown[RESOURCE_VALUE_MAX_BYTES];

	if (!name)
		name = non_empty(process_env_get(env, "OTEL_SERVICE_NAME"));
	if (!name && named)
		return;
	if (!name && c->options)
		name = non_empty(c->options->service_name);
	if (name) {
		set_bounded(r, "service.name", name);
		return;
	}
	executable = resource_find(r, "process.executable.name");
	snprintf(unknown, sizeof(unknown), "unknown_service%s%s", executable ? ":" : "",
		 executable ? executable : "");
	set_bounded(r, "service.name", unknown);
}

void resource_fill(struct resource *r, const struct resource_context *c, const struct process *p,
		   const struct process_env *env, const char *rule_name)
{
	bool named;

	set_telemetry(r, c); /* first, so that a full resource has them */
	set_host(r, c);
	set_process(r, c, p);
	resource_set(r, "service.name", "unknown_service"); /* takes its place */
	set_agent_attributes(r, c->options);
	named = set_own_attributes(r, env);
	set_service_name(r, c, env, rule_name, named);
	set_telemetry(r, c); /* last, so that nobody else's stay */
}

/* "3.11" of "3.11", "3.11.so.1.0", "3.11d"; "" when there is no minor version. */
static void python_version(const char *text, char ret[RUNTIME_VERSION_BYTES])
{
	size_t major = strspn(text, "0123456789");
	size_t minor = text[major] == '.' ? strspn(text + major + 1, "0123456789") : 0;

	ret[0] = 0;
	if (major && minor && major + 1 + minor < RUNTIME_VERSION_BYTES)
		snprintf(ret, RUNTIME_VERSION_BYTES, "%.*s", (int)(major + 1 + minor), text);
}

/*
 * What runs the program, where a file's name says it: CPython and Node.js. The version is as exact
 * as the name: major and minor.
 */
static void set_runtime(struct resource *r, const struct resource_context *c,
			const struct process *p)
{
	const char *base = path_base(p->exe ? p->exe : "");
	char version[RUNTIME_VERSION_BYTES] = "", library[64];
	bool python =
		strncmp(base, "python", 6) == 0 && (!base[6] || isdigit((unsigned char)base[6]));

	if (strcmp(base, "node") == 0) {
		resource_set(r, "process.runtime.name", "nodejs");
		return;
	}
	if (python)
		python_version(base + 6, version);
	if (!version[0] &&
	    process_maps_file(c->proc_fd, p->pid, "libpython", library, sizeof(library))) {
		python = true;
		python_version(library + strlen("libpython"), version);
	}
	if (!python)
		return;
	resource_set(r, "process.runtime.name", "cpython");
	resource_set(r, "process.runtime.version", version);
}

struct resource *resource_detect(const struct resource_context *c, uint32_t pid,
				 const char *rule_name)
{
	struct resource *r = resource_new(pid);
	struct process_env env = { 0 };
	struct process p = { .pid = pid };

	if (!r)
		return NULL;
	if (process_read(c->proc_fd, pid, PROCESS_ALL & ~(unsigned int)PROCESS_NET_NS, &p) == 0) {
		if (process_env_read(c->proc_fd, pid, &env))
			env = (struct process_env){ 0 };
		set_runtime(r, c, &p);
	}
	resource_fill(r, c, &p, &env, rule_name);
	process_env_free(&env);
	process_free(&p);
	return r;
}
