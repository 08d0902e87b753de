/*
 * The signs of an OpenTelemetry SDK in another process. Sources: OpenTelemetry's environment
 * variable specification; the zero-code instrumentations of Python, Node.js, Java and .NET, by the
 * way in which each gets itself loaded; the process context (OTEP 4719), a mapping named OTEL_CTX.
 */
#include "discover/sdk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "discover/file.h"

enum { ARGUMENTS_MAX_BYTES = 64 << 10, SDK_MAPS_MAX_BYTES = 4 << 20 };

/* How an instrumentation gets into a process without a change to its code. */
struct loader {
	const char *variable; /* of the environment; NULL: an argument */
	const char *part;     /* what stands in it */
	const char *program;  /* the executable's name begins with this, or */
	const char *library;  /* this stands in its mappings: it is the right interpreter */
};

static const struct loader loaders[] = {
	{ "PYTHONPATH", "opentelemetry/instrumentation/auto_instrumentation", "python",
	  "/libpython" },
	{ "NODE_OPTIONS", "@opentelemetry/", "node", "/libnode" },
	{ "JAVA_TOOL_OPTIONS", "opentelemetry-javaagent", "java", "/libjvm" },
	{ "JDK_JAVA_OPTIONS", "opentelemetry-javaagent", "java", "/libjvm" },
	{ "_JAVA_OPTIONS", "opentelemetry-javaagent", "java", "/libjvm" },
	{ "OTEL_DOTNET_AUTO_HOME", "", "dotnet", "/libcoreclr" },
	{ NULL, "opentelemetry-javaagent", "java", "/libjvm" },
	{ NULL, "@opentelemetry/", "node", "/libnode" },
};

/* Empty is unset, as the specification says. */
static const char *get(const struct sdk_signs *signs, const char *name)
{
	const char *value = signs->env ? process_env_get(signs->env, name) : NULL;

	return value && *value ? value : NULL;
}

static bool contains(const char *text, const char *part)
{
	return text && strstr(text, part);
}

/* It says itself that it reports no spans. */
static bool switched_off(const struct sdk_signs *signs)
{
	const char *disabled = get(signs, "OTEL_SDK_DISABLED");
	const char *exporter = get(signs, "OTEL_TRACES_EXPORTER");

	return (disabled && strcasecmp(disabled, "true") == 0) ||
	       (exporter && strcmp(exporter, "none") == 0);
}

/* Children inherit variables that mean nothing to them. */
static bool runs(const struct sdk_signs *signs, const struct loader *l)
{
	return (signs->program && strncmp(signs->program, l->program, strlen(l->program)) == 0) ||
	       contains(signs->maps, l->library);
}

static bool loaded(const struct sdk_signs *signs, char *why)
{
	for (size_t i = 0; i < sizeof(loaders) / sizeof(loaders[0]); i++) {
		const struct loader *l = &loaders[i];
		const char *text = l->variable ? get(signs, l->variable) : signs->arguments;

		if (!contains(text, l->part) || !runs(signs, l))
			continue;
		if (l->variable)
			snprintf(why, SDK_WHY_BYTES, "%s loads OpenTelemetry's instrumentation",
				 l->variable);
		else
			snprintf(why, SDK_WHY_BYTES,
				 "its arguments load OpenTelemetry's instrumentation");
		return true;
	}
	return false;
}

static bool published(const char *maps)
{
	return contains(maps, "[anon:OTEL_CTX]") || contains(maps, "[anon_shmem:OTEL_CTX]") ||
	       contains(maps, "/memfd:OTEL_CTX");
}

/* A variable that sets an exporter of spans up; borrowed, up to its '='. */
static const char *exporter_variable(const struct process_env *env)
{
	static const char prefix[] = "OTEL_EXPORTER_OTLP_", metrics[] = "METRICS_",
			  logs[] = "LOGS_";

	if (!env)
		return NULL;
	for (size_t pos = 0; pos < env->len; pos += strlen(env->data + pos) + 1) {
		const char *entry = env->data + pos, *equals = strchr(entry, '=');
		const char *rest = entry + sizeof(prefix) - 1;

		if (!equals || !equals[1])
			continue;
		if (strncmp(entry, prefix, sizeof(prefix) - 1) == 0 &&
		    strncmp(rest, metrics, sizeof(metrics) - 1) != 0 &&
		    strncmp(rest, logs, sizeof(logs) - 1) != 0)
			return entry;
		if (strncmp(entry, "OTEL_TRACES_EXPORTER=", strlen("OTEL_TRACES_EXPORTER=")) == 0)
			return entry;
	}
	return NULL;
}

enum sdk_evidence sdk_judge(const struct sdk_signs *signs, char why[SDK_WHY_BYTES])
{
	const char *variable;

	why[0] = 0;
	if (switched_off(signs))
		return SDK_NONE;
	if (published(signs->maps)) {
		snprintf(why, SDK_WHY_BYTES, "it publishes a context for profilers (OTEL_CTX)");
		return SDK_PROOF;
	}
	if (loaded(signs, why))
		return SDK_PROOF;
	variable = exporter_variable(signs->env);
	if (!variable)
		return SDK_NONE;
	snprintf(why, SDK_WHY_BYTES, "%.*s is in its environment", (int)strcspn(variable, "="),
		 variable);
	return SDK_HINT;
}

/* NULL when it can't be read; NULs become blanks. */
static char *read_arguments(int dir)
{
	char *text;
	size_t len;

	if (file_read_at(dir, "cmdline", ARGUMENTS_MAX_BYTES, &text, &len))
		return NULL;
	for (size_t i = 0; i + 1 < len; i++) {
		if (!text[i])
			text[i] = ' ';
	}
	return text;
}

enum sdk_evidence sdk_look(int proc_fd, uint32_t pid, char why[SDK_WHY_BYTES])
{
	enum sdk_evidence found = SDK_NONE;
	struct sdk_signs signs = { 0 };
	struct process_env env = { 0 };
	char name[16], *maps = NULL, *arguments = NULL;
	struct process p;
	int dir;

	why[0] = 0;
	if (process_read(proc_fd, pid, PROCESS_EXE, &p))
		return SDK_NONE;
	snprintf(name, sizeof(name), "%" PRIu32, pid);
	dir = openat(proc_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0) {
		arguments = read_arguments(dir);
		if (file_read_at(dir, "maps", SDK_MAPS_MAX_BYTES, &maps, NULL))
			maps = NULL;
		if (process_env_read(proc_fd, pid, &env) == 0)
			signs.env = &env;
		signs.program = path_base(p.exe && *p.exe ? p.exe : p.comm);
		signs.arguments = arguments;
		signs.maps = maps;
		found = sdk_judge(&signs, why);
		close(dir);
	}
	free(arguments);
	free(maps);
	process_env_free(&env);
	process_free(&p);
	return found;
}
