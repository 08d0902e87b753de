/*
 * The resource of a process: the order of service names, whose attributes win, what is bounded, the
 * instance id.
 */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "discover/resource_detect.h"

static struct options options;
static struct resource_context context = { .options = &options,
					   .version = "1.2.3",
					   .proc_fd = -1,
					   .host_name = "box",
					   .host_id = "0f0e",
					   .boot_id = "b007" };
static char exe[] = "/usr/bin/app", argv0[] = "app: worker 1 secret", none[] = "";
static struct process process = { .pid = 42,
				  .start_ticks = 4711,
				  .comm = "app",
				  .exe = exe,
				  .argv0 = argv0,
				  .cgroup = none,
				  .container_id = "c0ffee" };

static struct resource *fill(const char *env_text, const char *rule_name)
{
	struct process_env env = { .data = strdup(env_text), .len = strlen(env_text) };
	struct resource *r = resource_new(42);

	for (char *p = env.data; *p; p++) {
		if (*p == '|')
			*p = 0;
	}
	resource_fill(r, &context, &process, &env, rule_name);
	process_env_free(&env);
	return r;
}

static void check_attr(const char *env, const char *rule_name, const char *key,
		       const char *expected)
{
	struct resource *r = fill(env, rule_name);

	if (expected)
		CHECK_STR(resource_find(r, key), expected);
	else
		CHECK(!resource_find(r, key));
	resource_put(r);
}

#define NAME "OTEL_SERVICE_NAME="
#define ATTRS "OTEL_RESOURCE_ATTRIBUTES="

static void test_service_name(void)
{
	static char own[] = "agent-name";

	check_attr("", NULL, "service.name", "unknown_service:app");
	options.service_name = own;
	check_attr("", NULL, "service.name", "agent-name");
	check_attr(ATTRS "service.name=two", NULL, "service.name", "two");
	check_attr(ATTRS "service.name=two|" NAME "one", NULL, "service.name", "one");
	check_attr(ATTRS "service.name=two|" NAME "", NULL, "service.name", "two");
	check_attr(NAME "one", "rule", "service.name", "rule");
	check_attr(ATTRS "service.name=", NULL, "service.name", "agent-name");
	check_attr(ATTRS "service.name=a%zz", NULL, "service.name", "agent-name");
	check_attr(ATTRS "service.name=a%20b", NULL, "service.name", "a b");
	options.service_name = NULL;
}

static void test_attributes(void)
{
	static char name[] = "service.name", a[] = "a", b[] = "b", x[] = "x",
		    id[] = "service.instance.id";
	struct key_value list[] = { { a, x }, { b, x }, { name, x }, { id, x } };

	check_attr("", NULL, "telemetry.sdk.name", "spanloom");
	check_attr(ATTRS "telemetry.sdk.name=opentelemetry", NULL, "telemetry.sdk.name",
		   "spanloom");
	check_attr("", NULL, "telemetry.sdk.version", "1.2.3");
	check_attr("", NULL, "telemetry.sdk.language", "c");
	check_attr("", NULL, "telemetry.distro.name", "spanloom");
	check_attr("", NULL, "host.name", "box");
	check_attr("", NULL, "host.id", "0f0e");
	check_attr("", NULL, "os.type", "linux");
	check_attr("", NULL, "process.pid", "42");
	check_attr("", NULL, "process.executable.name", "app");
	check_attr("", NULL, "process.executable.path", "/usr/bin/app");
	check_attr("", NULL, "process.command", "app:");
	check_attr("", NULL, "container.id", "c0ffee");
	check_attr(ATTRS "service.version=1%2C5,deployment.environment.name=prod", NULL,
		   "service.version", "1,5");
	options.resource_attributes = list;
	options.resource_attribute_count = 4;
	check_attr(ATTRS "a=own", NULL, "a", "own");
	check_attr(ATTRS "a=own", NULL, "b", "x");
	check_attr("", NULL, "service.name", "unknown_service:app");
	check_attr(ATTRS "service.instance.id=mine", NULL, "service.instance.id", "mine");
	options.resource_attributes = NULL;
	options.resource_attribute_count = 0;
}

static void test_bounds(void)
{
	char env[2 * RESOURCE_VALUE_MAX_BYTES] = NAME;
	const char *value;
	struct resource *r;
	size_t at = strlen(env);

	env[at++] = 'x';
	while (at + 2 < sizeof(env)) {
		env[at++] = '\xc3';
		env[at++] = '\xa9';
	}
	env[at] = 0;
	r = fill(env, NULL);
	value = resource_find(r, "service.name");
	CHECK(value && strlen(value) == RESOURCE_VALUE_MAX_BYTES - 1);
	CHECK(value && value[strlen(value) - 1] == '\xa9');
	resource_put(r);
}

static void test_gone(void)
{
	struct resource *r = resource_detect(&context, 4194304, NULL);

	CHECK_STR(resource_find(r, "service.name"), "unknown_service");
	CHECK_STR(resource_find(r, "process.pid"), "4194304");
	CHECK(!resource_find(r, "process.executable.name") &&
	      !resource_find(r, "service.instance.id"));
	resource_put(r);
}

static void test_uuid(void)
{
	/* RFC 9562, A.4: the DNS namespace and www.example.com */
	static const uint8_t dns[16] = { 0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
					 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8 };
	char text[UUID_TEXT_BYTES], again[UUID_TEXT_BYTES], longer[200];
	struct process later = process;

	uuid_v5(dns, "www.example.com", 15, text);
	CHECK_STR(text, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
	memset(longer, 'a', sizeof(longer));
	uuid_v5(dns, longer, sizeof(longer), text);
	CHECK_STR(text, "fe30bfa6-ef90-59b3-b108-118411d0f0ab");
	resource_instance_id(&context, &process, text);
	resource_instance_id(&context, &process, again);
	CHECK_STR(again, text);
	later.start_ticks++;
	resource_instance_id(&context, &later, again);
	CHECK(strcmp(again, text) != 0);
}

int main(void)
{
	test_service_name();
	test_attributes();
	test_bounds();
	test_gone();
	test_uuid();
	return check_result();
}
