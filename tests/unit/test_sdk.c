/*
 * Signs of an OpenTelemetry SDK in another process: what each of them means, and that nothing else
 * means anything. On texts, and on a made-up proc tree.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "discover/sdk.h"

#define AUTO_PYTHON "/v/lib/opentelemetry/instrumentation/auto_instrumentation:/srv/app"
#define AUTO_NODE "--require @opentelemetry/auto-instrumentations-node/register"
#define AUTO_JAVA "-javaagent:/opt/opentelemetry-javaagent.jar"

static char why[SDK_WHY_BYTES];

/* `env`: entries with blanks between them, so values hold none. */
static enum sdk_evidence judge(const char *env, const char *program, const char *arguments,
			       const char *maps)
{
	char *data = strdup(env);
	struct process_env e = { data, strlen(env) };
	struct sdk_signs signs = {
		.env = &e, .program = program, .arguments = arguments, .maps = maps
	};
	enum sdk_evidence found;

	for (size_t i = 0; i < e.len; i++) {
		if (data[i] == ' ')
			data[i] = 0;
	}
	found = sdk_judge(&signs, why);
	free(data);
	return found;
}

static enum sdk_evidence judge_env(const char *env)
{
	return judge(env, "python3.11", "python3 -m uvicorn app:app", "");
}

static void test_names_say_nothing(void)
{
	CHECK(judge_env("") == SDK_NONE && !why[0]);
	CHECK(judge_env("PATH=/bin OTEL_SERVICE_NAME=cart OTEL_RESOURCE_ATTRIBUTES=a=b") ==
	      SDK_NONE);
	CHECK(judge_env("OTEL_EXPORTER_OTLP_ENDPOINT= OTEL_TRACES_EXPORTER=") == SDK_NONE);
	CHECK(judge_env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://c "
			"OTEL_EXPORTER_OTLP_LOGS_HEADERS=a=b OTEL_METRICS_EXPORTER=otlp") ==
	      SDK_NONE);
	CHECK(judge_env("MY_OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_TRACES_SAMPLER=always_on") ==
	      SDK_NONE);
}

static void test_hints(void)
{
	CHECK(judge_env("A=b OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4317") == SDK_HINT);
	CHECK_STR(why, "OTEL_EXPORTER_OTLP_ENDPOINT is in its environment");
	CHECK(judge_env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4317") == SDK_HINT);
	CHECK(judge_env("OTEL_TRACES_EXPORTER=otlp") == SDK_HINT);
	CHECK_STR(why, "OTEL_TRACES_EXPORTER is in its environment");
	CHECK(judge_env("OTEL_SDK_DISABLED=yes OTEL_TRACES_EXPORTER=console") == SDK_HINT);
}

static void test_loaders(void)
{
	CHECK(judge_env("PYTHONPATH=" AUTO_PYTHON) == SDK_PROOF);
	CHECK_STR(why, "PYTHONPATH loads OpenTelemetry's instrumentation");
	CHECK(judge("PYTHONPATH=" AUTO_PYTHON, "uwsgi", "uwsgi",
		    "7f-8f r-xp 0 08:01 1 /usr/lib/libpython3.11.so.1.0\n") == SDK_PROOF);
	CHECK(judge("NODE_OPTIONS=" AUTO_NODE, "node", "node app.js", "") == SDK_NONE);
	CHECK(judge("NODE_OPTIONS=--require=@opentelemetry/auto-instrumentations-node/register",
		    "node", "node app.js", "") == SDK_PROOF);
	CHECK(judge("JAVA_TOOL_OPTIONS=" AUTO_JAVA, "java", "java -jar x.jar", NULL) == SDK_PROOF);
	CHECK(judge("", "java", "java " AUTO_JAVA " -jar x.jar", NULL) == SDK_PROOF);
	CHECK_STR(why, "its arguments load OpenTelemetry's instrumentation");
	CHECK(judge("", "node", "node " AUTO_NODE " app.js", NULL) == SDK_PROOF);
	CHECK(judge("PYTHONPATH=/srv/app NODE_OPTIONS=--max-old-space-size=1", "python3", "", "") ==
	      SDK_NONE);
}

/* A child has the variables of a parent in another language. */
static void test_other_interpreter(void)
{
	CHECK(judge("PYTHONPATH=" AUTO_PYTHON, "nginx", "nginx: worker", "") == SDK_NONE);
	CHECK(judge("JAVA_TOOL_OPTIONS=" AUTO_JAVA, "redis-server", "redis-server", "") ==
	      SDK_NONE);
	CHECK(judge("", "grep", "grep opentelemetry-javaagent log", NULL) == SDK_NONE);
	CHECK(judge("PYTHONPATH=" AUTO_PYTHON " OTEL_TRACES_EXPORTER=otlp", "nginx", "nginx", "") ==
	      SDK_HINT);
}

static void test_switched_off(void)
{
	CHECK(judge_env("PYTHONPATH=" AUTO_PYTHON " OTEL_SDK_DISABLED=true") == SDK_NONE);
	CHECK(judge_env("PYTHONPATH=" AUTO_PYTHON " OTEL_SDK_DISABLED=TRUE") == SDK_NONE);
	CHECK(judge_env("PYTHONPATH=" AUTO_PYTHON " OTEL_TRACES_EXPORTER=none") == SDK_NONE);
	CHECK(judge_env("OTEL_EXPORTER_OTLP_ENDPOINT=http://c OTEL_TRACES_EXPORTER=none") ==
	      SDK_NONE);
	CHECK(!why[0]);
}

static void test_context(void)
{
	CHECK(judge("", "app", "app", "7f-8f r--p 0 00:00 0 [anon:OTEL_CTX]\n") == SDK_PROOF);
	CHECK(judge("", "app", "app", "7f-8f r--s 0 00:01 9 /memfd:OTEL_CTX (deleted)\n") ==
	      SDK_PROOF);
	CHECK_STR(why, "it publishes a context for profilers (OTEL_CTX)");
	CHECK(judge("", "app", "app", "7f-8f r--p 0 00:00 0 [anon:OTHER]\n") == SDK_NONE);
}

/* --- a made-up proc tree --- */

static char root[] = "/tmp/test_sdk_XXXXXX";

static void put(const char *name, const void *text, size_t len)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	file = fopen(path, "w");
	CHECK(file != NULL);
	if (!file)
		return;
	fwrite(text, 1, len, file);
	fclose(file);
}

static void test_tree(void)
{
	static const char stat_text[] = "9 (java) S 7 1 1 0 -1 4194304 100 0 0 0 1 1 0 0 20 0 1 0 "
					"4711 1000 100 18446744073709551615 0 0\n";
	static const char env[] = "PATH=/bin\0OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c";
	static const char arguments[] = "java\0" AUTO_JAVA "\0-jar\0x.jar";
	char path[64];
	int proc;

	CHECK(mkdtemp(root) != NULL);
	snprintf(path, sizeof(path), "%s/9", root);
	CHECK(mkdir(path, 0700) == 0);
	proc = open(root, O_RDONLY | O_DIRECTORY);
	CHECK(sdk_look(proc, 8, why) == SDK_NONE); /* not there */
	put("9/stat", stat_text, sizeof(stat_text) - 1);
	CHECK(sdk_look(proc, 9, why) == SDK_NONE); /* nothing can be read of it */
	put("9/environ", env, sizeof(env));
	put("9/cmdline", "", 0);
	CHECK(sdk_look(proc, 9, why) == SDK_HINT);
	CHECK_STR(why, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is in its environment");
	put("9/cmdline", arguments, sizeof(arguments));
	CHECK(sdk_look(proc, 9, why) == SDK_PROOF);
	CHECK_STR(why, "its arguments load OpenTelemetry's instrumentation");
	put("9/maps", "7f-8f r--p 0 00:00 0 [anon:OTEL_CTX]\n", 37);
	CHECK(sdk_look(proc, 9, why) == SDK_PROOF);
	CHECK_STR(why, "it publishes a context for profilers (OTEL_CTX)");
	close(proc);
}

static void remove_tree(void)
{
	static const char *const names[] = { "9/stat", "9/environ", "9/cmdline", "9/maps" };
	char path[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", root, names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/9", root);
	rmdir(path);
	rmdir(root);
}

int main(void)
{
	test_names_say_nothing();
	test_hints();
	test_loaders();
	test_other_interpreter();
	test_switched_off();
	test_context();
	test_tree();
	remove_tree();
	return check_result();
}
