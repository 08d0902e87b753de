/*
 * Options: what each source gives, which one wins, what is refused and with which words. Refuses no
 * detail of the standard's names: the expectations are the OpenTelemetry specification's. No test
 * depends on the machine.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/options.h"
#include "check.h"

enum { MAX_WORDS = 16 };

/* Words separated by blanks; each test owns at most one parsed set at a time. */
static struct options parsed;
static char *parse_error;

static char **split(char *text, char **words, size_t first)
{
	char *save = NULL;
	char *word = strtok_r(text, " ", &save);

	while (word && first < MAX_WORDS) {
		words[first++] = word;
		word = strtok_r(NULL, " ", &save);
	}
	words[first] = NULL;
	return words;
}

static int parse(const char *args, const char *env)
{
	char *arg_text = strdup(args), *env_text = strdup(env), program[] = "spanloom";
	char *argv[MAX_WORDS + 1] = { program }, *envp[MAX_WORDS + 1];
	int argc = 0, err;

	options_free(&parsed);
	free(parse_error);
	parse_error = NULL;
	split(arg_text, argv, 1);
	split(env_text, envp, 0);
	while (argv[argc])
		argc++;
	err = options_parse(argc, argv, envp, &parsed, &parse_error);
	free(arg_text);
	free(env_text);
	return err;
}

static bool fails_with(const char *args, const char *env, const char *words)
{
	if (parse(args, env) != -EINVAL || !parse_error)
		return false;
	if (strstr(parse_error, words))
		return true;
	printf("got the message: %s\n", parse_error);
	return false;
}

static void test_defaults(void)
{
	CHECK(parse("--port 8000", "") == 0);
	CHECK(parsed.enabled && parsed.export_otlp && parsed.console == CONSOLE_AUTO);
	CHECK(parsed.otlp_protocol == OTLP_GRPC);
	CHECK_STR(parsed.otlp_endpoint, "http://localhost:4317");
	CHECK(parsed.sampler_parent_based && parsed.sampler_root == 0);
	CHECK(parsed.batch_delay_ms == 1000 && parsed.export_timeout_ms == 30000);
	CHECK(parsed.max_queue_size == 8192 && parsed.max_export_batch_size == 512);
	CHECK(parsed.otlp_timeout_ms == 10000 && !parsed.otlp_gzip);
	CHECK(parsed.ring_bytes == 8 << 20 && parsed.capture_bytes == 8192);
	CHECK(parsed.max_connections == 16384 && parsed.max_processes == 4096);
	CHECK(parsed.shutdown_timeout_ms == 5000 && parsed.nice == 10);
	CHECK(!parsed.service_name && !parsed.file && !parsed.otlp_certificate);
	CHECK(parsed.rule_count == 1 && parsed.rules[0].kind == SELECT_PORT);
}

static void test_rules(void)
{
	CHECK(parse("--pid 12 --pid=13,14 --port 80 --port 8000-8010,9 --exe a* --cgroup /x,y",
		    "") == 0);
	CHECK(parsed.rule_count == 8);
	CHECK(parsed.rules[0].kind == SELECT_PID && parsed.rules[2].pid == 14);
	CHECK(parsed.rules[3].kind == SELECT_EXE);
	CHECK_STR(parsed.rules[3].text, "a*");
	CHECK(parsed.rules[5].port_low == 8000 && parsed.rules[5].port_high == 8010);
	CHECK(parsed.rules[6].port_low == 9 && parsed.rules[6].port_high == 9);
	CHECK_STR(parsed.rules[7].text, "/x,y");

	CHECK(parse("", "SPANLOOM_PID=1,2 SPANLOOM_EXE=a,b,,c SPANLOOM_PORT=1-2 "
			"SPANLOOM_CGROUP=/x,/y") == 0);
	CHECK(parsed.rule_count == 8);
	CHECK_STR(parsed.rules[4].text, "c");

	CHECK(parse("--pid 5", "SPANLOOM_PID=1,2 SPANLOOM_PORT=3") == 0);
	CHECK(parsed.rule_count == 2 && parsed.rules[0].pid == 5);

	CHECK(fails_with("--port 99999", "", "--port=99999: must be a TCP port"));
	CHECK(fails_with("--port 10-9", "", "--port=10-9: must be"));
	CHECK(fails_with("--port 10-", "", "--port=10-: must be"));
	CHECK(fails_with("--port 0", "", "--port=0: must be"));
	CHECK(fails_with("--pid 0", "", "--pid=0: must be a whole number from 1 to 4194304"));
	CHECK(fails_with("--pid -1", "", "--pid=-1: must be"));
	CHECK(fails_with("", "SPANLOOM_PID=1,x", "SPANLOOM_PID=x: must be"));
	CHECK(fails_with("--pid", "", "--pid needs a value"));
	CHECK(fails_with("--exe=", "", "--exe needs a value"));
	CHECK(fails_with("", "", "nothing to trace was chosen"));
	CHECK(fails_with("--nosuch 1", "", "unknown option --nosuch"));
	CHECK(fails_with("--port 1 --console json", "", "unexpected argument 'json'"));
	CHECK(parse("", "OTEL_ENABLED=false") == 0 && !parsed.enabled);
}

static void test_help(void)
{
	CHECK(parse("--help", "") == 0 && parsed.help && !parsed.help_markdown);
	CHECK(parse("--help=markdown", "") == 0 && parsed.help_markdown);
	CHECK(parse("-V", "OTEL_SAMPLING_RATE=x") == 0 && parsed.version);
}

static void test_enabled(void)
{
	CHECK(parse("--port 1", "OTEL_SDK_DISABLED=TRUE") == 0 && !parsed.enabled);
	CHECK(parse("--port 1", "OTEL_SDK_DISABLED=false OTEL_ENABLED=false") == 0 &&
	      parsed.enabled);
	CHECK(parse("--port 1", "OTEL_SDK_DISABLED=1") == 0 && parsed.enabled);
	CHECK(parse("--port 1", "OTEL_SDK_DISABLED=true OTEL_ENABLED=true") == 0 &&
	      !parsed.enabled);
	CHECK(parse("--port 1 --enabled", "OTEL_SDK_DISABLED=true") == 0 && parsed.enabled);
	CHECK(parse("--port 1", "OTEL_ENABLED=") == 0 && parsed.enabled);
	CHECK(fails_with("--port 1", "OTEL_ENABLED=yes",
			 "OTEL_ENABLED=yes: must be true or false"));
}

static void test_sampler(void)
{
	CHECK(parse("--port 1", "OTEL_SAMPLING_RATE=0.25") == 0);
	CHECK(parsed.sampler_parent_based && parsed.sampler_root == 2 &&
	      parsed.sampler_ratio == 0.25);
	CHECK(parse("--port 1", "OTEL_SAMPLING_RATE=0.25 OTEL_TRACES_SAMPLER=always_off") == 0);
	CHECK(!parsed.sampler_parent_based && parsed.sampler_root == 1);
	CHECK(parse("--port 1", "OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=1e-3") ==
	      0);
	CHECK(!parsed.sampler_parent_based && parsed.sampler_root == 2 &&
	      parsed.sampler_ratio == 1e-3);
	CHECK(parse("--port 1", "OTEL_TRACES_SAMPLER=parentbased_traceidratio") == 0);
	CHECK(parsed.sampler_parent_based && parsed.sampler_ratio == 1);
	CHECK(parse("--port 1", "OTEL_TRACES_SAMPLER=parentbased_always_off") == 0);
	CHECK(parsed.sampler_parent_based && parsed.sampler_root == 1);
	CHECK(parse("--port 1", "OTEL_TRACES_SAMPLER=always_on OTEL_TRACES_SAMPLER_ARG=rubbish") ==
	      0);
	CHECK(parse("--port 1 --sampling-rate 0", "OTEL_TRACES_SAMPLER=always_on") == 0);
	CHECK(parsed.sampler_root == 2 && parsed.sampler_ratio == 0);
	CHECK(fails_with("--port 1", "OTEL_TRACES_SAMPLER=jaeger_remote",
			 "OTEL_TRACES_SAMPLER=jaeger_remote: must be always_on, always_off, "));
	CHECK(fails_with("--port 1", "OTEL_TRACES_SAMPLER=traceidratio OTEL_TRACES_SAMPLER_ARG=2",
			 "OTEL_TRACES_SAMPLER_ARG=2: must be a number from 0 to 1"));
	CHECK(fails_with("--port 1", "OTEL_SAMPLING_RATE=1.5",
			 "OTEL_SAMPLING_RATE=1.5: must be a number"));
	CHECK(fails_with("--port 1", "OTEL_SAMPLING_RATE=nan", "must be a number from 0 to 1"));
	CHECK(fails_with("--port 1", "OTEL_SAMPLING_RATE=0x1", "must be a number from 0 to 1"));
	CHECK(fails_with("--port 1", "OTEL_SAMPLING_RATE=0.5%", "must be a number from 0 to 1"));
}

static void test_kept(void)
{
	CHECK(parse("--port 1", "") == 0);
	CHECK(!parsed.keep_errors && !parsed.keep_slow_ms && !parsed.root_limit);
	CHECK(parse("--port 1 --keep-errors --keep-slow 250", "SPANLOOM_MAX_TRACES_PER_SECOND=7") ==
	      0);
	CHECK(parsed.keep_errors && parsed.keep_slow_ms == 250 && parsed.root_limit == 7);
	CHECK(parse("--port 1 --keep-errors=false", "SPANLOOM_KEEP_ERRORS=true "
						    "SPANLOOM_KEEP_SLOW=1") == 0);
	CHECK(!parsed.keep_errors && parsed.keep_slow_ms == 1);
	CHECK(fails_with("--port 1 --keep-slow -1", "",
			 "--keep-slow=-1: must be a whole number from 0 to 3600000"));
	CHECK(fails_with("--port 1", "SPANLOOM_MAX_TRACES_PER_SECOND=many",
			 "SPANLOOM_MAX_TRACES_PER_SECOND=many: must be a whole number"));
}

static void test_propagate(void)
{
	CHECK(parse("--port 1", "") == 0);
	CHECK(parsed.propagate == PROPAGATE_AUTO && !parsed.no_trace_context && !parsed.keep_sdk);
	CHECK(parse("--port 1 --propagate=off", "SPANLOOM_PROPAGATE=headers") == 0);
	CHECK(parsed.propagate == 0);
	CHECK(parse("--port 1 --propagate headers,tcp --with-sdk", "") == 0);
	CHECK(parsed.propagate == (PROPAGATE_HEADERS | PROPAGATE_TCP) && parsed.keep_sdk);
	CHECK(parse("--port 1", "SPANLOOM_PROPAGATE=tcp SPANLOOM_WITH_SDK=true") == 0);
	CHECK(parsed.propagate == PROPAGATE_TCP && parsed.keep_sdk);
	CHECK(fails_with("--port 1 --propagate=auto,tcp", "",
			 "--propagate=auto,tcp: must be auto, off, headers, tcp or headers,tcp"));
	CHECK(fails_with("--port 1 --propagate=off,tcp", "", "--propagate=off,tcp: must be"));
	CHECK(fails_with("--port 1", "SPANLOOM_PROPAGATE=b3", "SPANLOOM_PROPAGATE=b3: must be"));
}

/* The standard's variable wins over ours in the environment, a flag over both. */
static void test_propagators(void)
{
	CHECK(parse("--port 1", "OTEL_PROPAGATORS=tracecontext,baggage") == 0);
	CHECK(parsed.propagate == PROPAGATE_AUTO && !parsed.no_trace_context);
	CHECK(parse("--port 1", "OTEL_PROPAGATORS=b3multi SPANLOOM_PROPAGATE=headers,tcp") == 0);
	CHECK(parsed.propagate == PROPAGATE_TCP && parsed.no_trace_context);
	CHECK(parse("--port 1", "OTEL_PROPAGATORS=none") == 0);
	CHECK(parsed.propagate == 0 && parsed.no_trace_context);
	CHECK(parse("--port 1", "OTEL_PROPAGATORS=mine,,tracecontext") == 0);
	CHECK(parsed.propagate == PROPAGATE_AUTO);
	CHECK(parse("--port 1 --propagate=headers", "OTEL_PROPAGATORS=none") == 0);
	CHECK(parsed.propagate == PROPAGATE_HEADERS && !parsed.no_trace_context);
}

static void test_exporters(void)
{
	CHECK(parse("--port 1", "OTEL_TRACES_EXPORTER=console") == 0);
	CHECK(!parsed.export_otlp && parsed.console == CONSOLE_TREE);
	CHECK(parse("--port 1", "OTEL_TRACES_EXPORTER=otlp,console") == 0);
	CHECK(parsed.export_otlp && parsed.console == CONSOLE_TREE);
	CHECK(parse("--port 1", "OTEL_TRACES_EXPORTER=otlp") == 0);
	CHECK(parsed.export_otlp && parsed.console == CONSOLE_OFF);
	CHECK(parse("--port 1", "OTEL_TRACES_EXPORTER=none") == 0);
	CHECK(!parsed.export_otlp && parsed.console == CONSOLE_OFF);
	CHECK(parse("--port 1", "OTEL_LOG_SPANS=true") == 0);
	CHECK(parsed.export_otlp && parsed.console == CONSOLE_TREE);
	CHECK(parse("--port 1", "OTEL_LOG_SPANS=false") == 0 && parsed.console == CONSOLE_OFF);
	CHECK(parse("--port 1 --console=json --file /tmp/x", "OTEL_TRACES_EXPORTER=none") == 0);
	CHECK(!parsed.export_otlp && parsed.console == CONSOLE_JSON);
	CHECK_STR(parsed.file, "/tmp/x");
	CHECK(parse("--console --port 1", "") == 0 && parsed.console == CONSOLE_TREE);
	CHECK(fails_with("--port 1", "OTEL_TRACES_EXPORTER=zipkin",
			 "must be a list of otlp and console, or none"));
	CHECK(fails_with("--port 1", "OTEL_TRACES_EXPORTER=none,otlp",
			 "OTEL_TRACES_EXPORTER=none,otlp"));
	CHECK(fails_with("--port 1 --console=xml", "", "--console=xml: must be tree, json or off"));
}

static bool endpoint_is(const char *env, const char *expected)
{
	if (parse("--port 1", env) == 0 && strcmp(parsed.otlp_endpoint, expected) == 0)
		return true;
	printf("%s: %s\n", env, parsed.otlp_endpoint ? parsed.otlp_endpoint : parse_error);
	return false;
}

#define HTTP "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf "

static void test_endpoint_grpc(void)
{
	CHECK(endpoint_is("OTEL_EXPORTER_ENDPOINT=http://a:1", "http://a:1"));
	CHECK(endpoint_is(
		"OTEL_EXPORTER_ENDPOINT=http://a:1 OTEL_EXPORTER_OTLP_ENDPOINT=http://b:2/",
		"http://b:2"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=http://b:2 "
			  "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://c:3",
			  "https://c:3"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=", "http://localhost:4317"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=HTTPS://c", "https://c"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=c:4317", "https://c:4317"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=c OTEL_EXPORTER_OTLP_INSECURE=true",
			  "http://c:4317"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=c:1 OTEL_EXPORTER_OTLP_INSECURE=1",
			  "https://c:1"));
	CHECK(endpoint_is(
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://c:1 OTEL_EXPORTER_OTLP_INSECURE=true",
		"https://c:1"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=c:1 OTEL_EXPORTER_OTLP_INSECURE=true "
			  "OTEL_EXPORTER_OTLP_TRACES_INSECURE=false",
			  "https://c:1"));
	CHECK(endpoint_is("OTEL_EXPORTER_OTLP_ENDPOINT=http://[::1]:4317", "http://[::1]:4317"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_ENDPOINT=ftp://a",
			 "must be http://HOST:PORT"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_ENDPOINT=http://",
			 "must be http://HOST:PORT"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_ENDPOINT=http://a:0",
			 "must be http://HOST:PORT"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_ENDPOINT=http://a:99999", "must be"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_ENDPOINT=http://a:x",
			 "OTEL_EXPORTER_ENDPOINT=http://a:x: must be"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_ENDPOINT=http://[::1", "must be"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:4318/v1/traces",
			 "without a path for OTLP/gRPC"));
}

static void test_endpoint_http(void)
{
	CHECK(endpoint_is(HTTP, "http://localhost:4318/v1/traces"));
	CHECK(endpoint_is(HTTP "OTEL_EXPORTER_OTLP_ENDPOINT=http://a:1", "http://a:1/v1/traces"));
	CHECK(endpoint_is(HTTP "OTEL_EXPORTER_OTLP_ENDPOINT=https://a/otlp/",
			  "https://a/otlp/v1/traces"));
	CHECK(endpoint_is(HTTP "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:1", "http://a:1/"));
	CHECK(endpoint_is(HTTP "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://a:1/x?y",
			  "http://a:1/x?y"));
	CHECK(endpoint_is(HTTP "OTEL_EXPORTER_OTLP_ENDPOINT=http://a?k=v",
			  "http://a/v1/traces?k=v"));
	CHECK(parse("--port 1 --otlp-endpoint http://a:1/v1/traces --otlp-protocol http/protobuf",
		    "") == 0);
	CHECK_STR(parsed.otlp_endpoint, "http://a:1/v1/traces");
	CHECK(parse("--port 1 --otlp-endpoint http://a:1 --otlp-protocol http/protobuf", "") == 0);
	CHECK_STR(parsed.otlp_endpoint, "http://a:1/v1/traces");
	CHECK(parse("--port 1 --otlp-endpoint http://f:1",
		    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://e:1") == 0);
	CHECK_STR(parsed.otlp_endpoint, "http://f:1");
	CHECK(endpoint_is(
		"OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
		"http://localhost:4318/v1/traces"));
	CHECK(fails_with("--port 1", HTTP "OTEL_EXPORTER_OTLP_ENDPOINT=a:4318",
			 "must be http://HOST:PORT/PATH"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json",
			 "must be grpc or http/protobuf"));
}

static void test_otlp(void)
{
	CHECK(parse("--port 1",
		    "OTEL_EXPORTER_OTLP_HEADERS=Authorization=Basic%20abc%3D%3D,x-b=1 "
		    "OTEL_EXPORTER_OTLP_TIMEOUT=0 OTEL_EXPORTER_OTLP_COMPRESSION=gzip") == 0);
	CHECK(parsed.otlp_header_count == 2);
	CHECK_STR(parsed.otlp_headers[0].key, "Authorization");
	CHECK_STR(parsed.otlp_headers[0].value, "Basic abc==");
	CHECK(parsed.otlp_timeout_ms == OPTIONS_NO_TIMEOUT_MS && parsed.otlp_gzip);
	CHECK(parse("--port 1",
		    "OTEL_EXPORTER_OTLP_HEADERS=a=1 OTEL_EXPORTER_OTLP_TRACES_HEADERS=b=2") == 0);
	CHECK(parsed.otlp_header_count == 1);
	CHECK_STR(parsed.otlp_headers[0].key, "b");
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_HEADERS=a=1%0d%0aX:y",
			 "OTEL_EXPORTER_OTLP_HEADERS=...: must"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_HEADERS=a:b=1", "must be key=value"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_HEADERS=justtext", "must be key=value"));
	CHECK(fails_with("--port 1", "OTEL_EXPORTER_OTLP_TIMEOUT=10s",
			 "must be a whole number from 0"));
	CHECK(fails_with("--port 1 --otlp-client-key k", "",
			 "--otlp-client-key is set without the other"));
	CHECK(parse("--port 1 --otlp-client-key k --otlp-client-certificate c --otlp-certificate "
		    "ca",
		    "") == 0);
	CHECK_STR(parsed.otlp_certificate, "ca");
}

static void test_numbers(void)
{
	CHECK(parse("--port 1 --ring-size 1M --capture-bytes 1k --nice -5",
		    "OTEL_BSP_SCHEDULE_DELAY=200") == 0);
	CHECK(parsed.ring_bytes == 1 << 20 && parsed.capture_bytes == 1024 && parsed.nice == -5);
	CHECK(parsed.batch_delay_ms == 200);
	CHECK(parse("--port 1", "OTEL_BSP_MAX_QUEUE_SIZE=100") == 0 &&
	      parsed.max_export_batch_size == 100);
	CHECK(fails_with(
		"--port 1", "OTEL_BSP_MAX_QUEUE_SIZE=100 OTEL_BSP_MAX_EXPORT_BATCH_SIZE=101",
		"OTEL_BSP_MAX_EXPORT_BATCH_SIZE=101: must be at most the queue's size, 100"));
	CHECK(fails_with("--port 1 --ring-size 3M", "", "--ring-size=3M: must be a power of two"));
	CHECK(fails_with("--port 1 --ring-size 8X", "", "--ring-size=8X: must be"));
	CHECK(fails_with("--port 1 --ring-size 99999999999G", "", "must be a power of two"));
	CHECK(fails_with("--port 1 --nice 20", "", "a whole number from -20 to 19"));
	CHECK(fails_with("--port 1 --max-processes 18446744073709551617", "", "must be"));
	CHECK(fails_with("--port 1", "OTEL_BSP_SCHEDULE_DELAY=-1",
			 "OTEL_BSP_SCHEDULE_DELAY=-1: must be"));
	CHECK(fails_with("--port 1 --log-level loud", "", "error, warning, info or debug"));
	CHECK(fails_with("--port 1 --collector ebpf", "", "auto, sock or syscall"));
}

static void test_names(void)
{
	CHECK(parse("--port 1", "OTEL_RESOURCE_ATTRIBUTES=service.name=a,k=v%2C%C3%A9") == 0);
	CHECK_STR(parsed.service_name, "a");
	CHECK(parsed.resource_attribute_count == 1);
	CHECK_STR(parsed.resource_attributes[0].value, "v,\xc3\xa9");
	CHECK(parse("--port 1",
		    "OTEL_RESOURCE_ATTRIBUTES=x=y,service.name=a OTEL_SERVICE_NAME=b") == 0);
	CHECK_STR(parsed.service_name, "b");
	CHECK(parsed.resource_attribute_count == 1);
	CHECK(fails_with("--port 1", "OTEL_RESOURCE_ATTRIBUTES=a=%zz",
			 "OTEL_RESOURCE_ATTRIBUTES=a=%zz: must be"));
}

static char config_path[] = "/tmp/test_options_XXXXXX";

static int parse_file(const char *text, size_t len, const char *args, const char *env)
{
	char all[512];
	FILE *file = fopen(config_path, "w");

	fwrite(text, 1, len, file);
	fclose(file);
	snprintf(all, sizeof(all), "--config %s %s", config_path, args);
	return parse(all, env);
}

static bool file_fails_with(const char *text, const char *words)
{
	char expected[512];

	snprintf(expected, sizeof(expected), "%s%s", config_path, words);
	if (parse_file(text, strlen(text), "", "") == -EINVAL && parse_error &&
	    strstr(parse_error, expected))
		return true;
	printf("got the message: %s\n", parse_error ? parse_error : "none");
	return false;
}

static void test_file(void)
{
	static const char good[] =
		"# a comment\n\nport = 8000-8001 # behind\n  port=9\nexe = /opt/a b/*\r\n"
		"sampling-rate = 0.5\nnice=3\notlp-headers = a=b#c";
	char args[128];

	CHECK(parse_file(good, strlen(good), "", "") == 0);
	CHECK(parsed.rule_count == 3 && parsed.nice == 3 && parsed.sampler_ratio == 0.5);
	CHECK_STR(parsed.rules[0].text, "/opt/a b/*");
	CHECK_STR(parsed.otlp_headers[0].value, "b#c");
	CHECK(parse_file(good, strlen(good), "--nice 4", "SPANLOOM_NICE=5 SPANLOOM_PORT=7") == 0);
	CHECK(parsed.nice == 4 && parsed.rule_count == 2 && parsed.rules[1].port_low == 7);
	CHECK(parse_file(good, strlen(good), "", "SPANLOOM_NICE=5") == 0 && parsed.nice == 5);
	CHECK(parse_file(good, strlen(good), "", "OTEL_TRACES_SAMPLER=always_on") == 0 &&
	      parsed.sampler_root == 0);

	CHECK(file_fails_with("port = 1\nwhat\n", ":2: not of the form key = value"));
	CHECK(file_fails_with("prot = 1\n", ":1: unknown key 'prot'"));
	CHECK(file_fails_with("config = x\n", ":1: unknown key 'config'"));
	CHECK(file_fails_with("\nport =\n", ":2: port needs a value"));
	CHECK(file_fails_with("nice = 1\nnice = 2\n", ":2: nice is given a second time"));
	CHECK(file_fails_with("\n\nport = 1x\n", ":3: port=1x: must be a TCP port"));
	CHECK(parse_file("port = 1\n\0x\n", 12, "", "") == -EINVAL &&
	      strstr(parse_error, ":2: a NUL byte"));

	snprintf(args, sizeof(args), "SPANLOOM_CONFIG=%s", config_path);
	CHECK(parse_file("port = 1\n", 9, "", "") == 0);
	CHECK(parse("", args) == 0 && parsed.rule_count == 1);
	unlink(config_path);
	CHECK(fails_with("", args,
			 "cannot read the configuration file: No such file or directory"));
	CHECK(fails_with("--config /", "",
			 "--config=/: cannot read the configuration file: Is a directory"));
}

static void test_key_values(void)
{
	struct key_value *list = NULL;
	size_t count = 0;

	CHECK(key_value_parse("", &list, &count) == 0 && count == 0);
	CHECK(key_value_parse(" a = 1 ,, b=,a=2", &list, &count) == 0 && count == 2);
	CHECK_STR(list[0].value, "2");
	CHECK_STR(list[1].value, "");
	key_value_free(list, count);
	CHECK(key_value_parse("a=%4", &list, &count) == -EINVAL);
	CHECK(key_value_parse("a=%", &list, &count) == -EINVAL);
	CHECK(key_value_parse("a=%00", &list, &count) == -EINVAL);
	CHECK(key_value_parse("=v", &list, &count) == -EINVAL);
	CHECK(key_value_parse("a=1,b", &list, &count) == -EINVAL);
	CHECK(key_value_parse("a=b=c%3d", &list, &count) == 0 && count == 1);
	CHECK_STR(list[0].value, "b=c=");
	key_value_free(list, count);
}

static void test_print(void)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	options_print_help(out);
	options_print_markdown(out);
	fclose(out);
	CHECK(strstr(text, "--port N[-M]") && strstr(text, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"));
	CHECK(strstr(text, "| `--ring-size BYTES` | `SPANLOOM_RING_SIZE` | 8M |"));
	free(text);
}

int main(void)
{
	int fd = mkstemp(config_path);

	if (fd >= 0)
		close(fd);
	test_defaults();
	test_rules();
	test_help();
	test_enabled();
	test_sampler();
	test_kept();
	test_propagate();
	test_propagators();
	test_exporters();
	test_endpoint_grpc();
	test_endpoint_http();
	test_otlp();
	test_numbers();
	test_names();
	test_file();
	test_key_values();
	test_print();
	options_free(&parsed);
	free(parse_error);
	return check_result();
}
