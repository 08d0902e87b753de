/*
 * The table of all options, and the order in which sources are read: flag, environment, file,
 * default. Everything that is known of an option stands in its row; --help and the README's table
 * are printed from it by help.c.
 */
#include "config/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/internal.h"

static const struct choice bools[] = { { "true", 1 }, { "false", 0 }, { NULL, 0 } };
static const struct choice collectors[] = { { "auto", COLLECTOR_AUTO },
					    { "sock", COLLECTOR_SOCK },
					    { "syscall", COLLECTOR_SYSCALL },
					    { NULL, 0 } };
static const struct choice consoles[] = {
	{ "tree", CONSOLE_TREE }, { "json", CONSOLE_JSON }, { "off", CONSOLE_OFF }, { NULL, 0 }
};
static const struct choice protocols[] = { { "grpc", OTLP_GRPC },
					   { "http/protobuf", OTLP_HTTP_PROTOBUF },
					   { NULL, 0 } };
static const struct choice compressions[] = { { "gzip", 1 }, { "none", 0 }, { NULL, 0 } };
static const struct choice samplers[] = {
	{ "always_on", SAMPLER_ROOT_ON },
	{ "always_off", SAMPLER_ROOT_OFF },
	{ "traceidratio", SAMPLER_ROOT_RATIO },
	{ "parentbased_always_on", SAMPLER_ROOT_ON | SAMPLER_PARENT_BASED },
	{ "parentbased_always_off", SAMPLER_ROOT_OFF | SAMPLER_PARENT_BASED },
	{ "parentbased_traceidratio", SAMPLER_ROOT_RATIO | SAMPLER_PARENT_BASED },
	{ NULL, 0 },
};
static const struct choice log_levels[] = { { "error", LOG_LEVEL_ERROR },
					    { "warning", LOG_LEVEL_WARNING },
					    { "info", LOG_LEVEL_INFO },
					    { "debug", LOG_LEVEL_DEBUG },
					    { NULL, 0 } };

#define FIELD(member) .offset = offsetof(struct options, member)
/* Of one variable both names of the specification: the one for traces wins. */
#define OTLP_ENV(name)                                                        \
	{                                                                     \
		"OTEL_EXPORTER_OTLP_TRACES_" name, "OTEL_EXPORTER_OTLP_" name \
	}

const struct option_row option_rows[OPTION_COUNT] = {
	[OPT_PID] = { .title = "What to trace (a process that any of these selects, and its "
			       "children)",
		      .flag = "pid",
		      .arg = "N",
		      .env = { "SPANLOOM_PID" },
		      .flags = ROW_LIST | ROW_COMMA,
		      .min = 1,
		      .max = 1 << 22,
		      .parse = parse_pid,
		      .help = "the running process N" },
	[OPT_EXE] = { .flag = "exe",
		      .arg = "GLOB",
		      .env = { "SPANLOOM_EXE" },
		      .flags = ROW_LIST | ROW_ENV_COMMA,
		      .parse = parse_rule_text,
		      .allowed = "a glob",
		      .help = "processes whose executable's path matches GLOB; a GLOB without '/' "
			      "is compared with "
			      "the base names of the executable and of the first argument "
			      "(argv[0]), never with a "
			      "script's name. '*' also matches '/'" },
	[OPT_PORT] = { .flag = "port",
		       .arg = "N[-M]",
		       .env = { "SPANLOOM_PORT" },
		       .flags = ROW_LIST | ROW_COMMA,
		       .min = 1,
		       .max = 65535,
		       .parse = parse_port,
		       .allowed = "a TCP port or a range N-M, from 1 to 65535",
		       .help = "processes that listen on this TCP port, or one of this range" },
	[OPT_CGROUP] = { .flag = "cgroup",
			 .arg = "PATH",
			 .env = { "SPANLOOM_CGROUP" },
			 .flags = ROW_LIST | ROW_ENV_COMMA,
			 .parse = parse_rule_text,
			 .allowed = "a path",
			 .help = "processes in this cgroup v2 or below it, such as a container's: "
				 "an absolute path "
				 "below the cgroup v2 mount, or one relative to it" },
	[OPT_ENABLED] = { .flag = "enabled",
			  .arg = "BOOL",
			  .implied = "true",
			  .env = { "OTEL_ENABLED" },
			  .initial = "true",
			  .choices = bools,
			  .parse = check_choice,
			  .help = "false: run, attach nothing, say so" },
	[OPT_SDK_DISABLED] = { .env = { "OTEL_SDK_DISABLED" },
			       .flags = ROW_STANDARD_BOOL,
			       .arg = "BOOL",
			       .help = "true: the same as --enabled=false; wins over "
				       "OTEL_ENABLED" },

	[OPT_SERVICE_NAME] = { .title = "What spans say",
			       .flag = "service-name",
			       .arg = "NAME",
			       .env = { "OTEL_SERVICE_NAME" },
			       .parse = parse_string,
			       FIELD(service_name),
			       .shown_default = "unknown_service:EXECUTABLE",
			       .help = "service.name of processes that name themselves nowhere "
				       "(their own "
				       "OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win)" },
	[OPT_RESOURCE_ATTRIBUTES] = { .flag = "resource-attributes",
				      .arg = "LIST",
				      .env = { "OTEL_RESOURCE_ATTRIBUTES" },
				      .parse = parse_attributes,
				      .allowed = "key=value,key=value with values percent-encoded",
				      .help = "resource attributes for all traced processes, "
					      "key=value,key=value" },
	[OPT_SAMPLER] = { .flag = "sampler",
			  .arg = "NAME",
			  .env = { "OTEL_TRACES_SAMPLER" },
			  .choices = samplers,
			  .parse = check_choice,
			  .shown_default = "parentbased_always_on",
			  .help = "which traces are kept: always_on, always_off, traceidratio, "
				  "parentbased_always_on, parentbased_always_off or "
				  "parentbased_traceidratio" },
	[OPT_SAMPLER_ARG] = { .flag = "sampler-arg",
			      .arg = "RATIO",
			      .env = { "OTEL_TRACES_SAMPLER_ARG" },
			      .shown_default = "1",
			      .help = "the ratio of the two ratio samplers, 0 to 1; others ignore "
				      "it" },
	[OPT_SAMPLING_RATE] = { .flag = "sampling-rate",
				.arg = "RATIO",
				.env = { "OTEL_SAMPLING_RATE" },
				.parse = check_rate,
				.allowed = "a number from 0 to 1",
				.help = "short for parentbased_traceidratio with this ratio, 0 to "
					"1; "
					"OTEL_TRACES_SAMPLER wins" },

	[OPT_EXPORTER] = { .title = "Where spans go",
			   .flag = "exporter",
			   .arg = "LIST",
			   .env = { "OTEL_TRACES_EXPORTER" },
			   .parse = check_exporters,
			   .shown_default = "otlp; console as well when stdout is a terminal",
			   .allowed = "a list of otlp and console, or none",
			   .help = "otlp, console, both with a comma, or none" },
	[OPT_CONSOLE] = { .flag = "console",
			  .arg = "FORM",
			  .implied = "tree",
			  .env = { "SPANLOOM_CONSOLE" },
			  .choices = consoles,
			  .parse = check_choice,
			  .shown_default =
				  "tree when stdout is a terminal and no exporter was chosen",
			  .help = "spans on stdout: each trace as a tree, json (one object a "
				  "line), or off" },
	[OPT_LOG_SPANS] = { .flag = "log-spans",
			    .arg = "BOOL",
			    .implied = "true",
			    .env = { "OTEL_LOG_SPANS" },
			    .choices = bools,
			    .parse = check_choice,
			    .help = "true: the same as --console" },
	[OPT_FILE] = { .flag = "file",
		       .arg = "PATH",
		       .env = { "SPANLOOM_FILE" },
		       .parse = parse_string,
		       FIELD(file),
		       .help = "append spans to this file as well" },
	[OPT_OTLP_ENDPOINT] = { .flag = "otlp-endpoint",
				.arg = "URL",
				.env = { "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
					 "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_ENDPOINT" },
				.shown_default = "http://localhost:4317, for http/protobuf "
						 "http://localhost:4318",
				.help = "the collector. gRPC: scheme, host and port (https is TLS; "
					"HOST:PORT goes by "
					"--otlp-insecure). HTTP: a base to which /v1/traces is "
					"appended; the "
					"TRACES variable is used as it stands" },
	[OPT_OTLP_PROTOCOL] = { .flag = "otlp-protocol",
				.arg = "NAME",
				.env = OTLP_ENV("PROTOCOL"),
				.initial = "grpc",
				.choices = protocols,
				.parse = parse_choice,
				FIELD(otlp_protocol),
				.help = "grpc or http/protobuf" },
	[OPT_OTLP_INSECURE] = { .flag = "otlp-insecure",
				.arg = "BOOL",
				.implied = "true",
				.env = OTLP_ENV("INSECURE"),
				.initial = "false",
				.choices = bools,
				.flags = ROW_STANDARD_BOOL,
				.parse = check_choice,
				.help = "gRPC without TLS for an endpoint without a scheme" },
	[OPT_OTLP_HEADERS] = { .flag = "otlp-headers",
			       .arg = "LIST",
			       .env = OTLP_ENV("HEADERS"),
			       .flags = ROW_SECRET,
			       .parse = parse_headers,
			       .allowed = "key=value,key=value with values percent-encoded, each a "
					  "valid header",
			       .help = "request headers, key=value,key=value. In the environment "
				       "or a file they "
				       "are not seen in the process list" },
	[OPT_OTLP_TIMEOUT] = { .flag = "otlp-timeout",
			       .arg = "MS",
			       .env = OTLP_ENV("TIMEOUT"),
			       .initial = "10000",
			       .max = INT32_MAX,
			       .parse = parse_timeout,
			       FIELD(otlp_timeout_ms),
			       .help = "the longest that one request may take; 0: no limit" },
	[OPT_OTLP_COMPRESSION] = { .flag = "otlp-compression",
				   .arg = "NAME",
				   .env = OTLP_ENV("COMPRESSION"),
				   .initial = "none",
				   .choices = compressions,
				   .parse = parse_gzip,
				   .help = "gzip or none" },
	[OPT_OTLP_CERTIFICATE] = { .flag = "otlp-certificate",
				   .arg = "PATH",
				   .env = OTLP_ENV("CERTIFICATE"),
				   .parse = parse_string,
				   FIELD(otlp_certificate),
				   .shown_default = "the system's store",
				   .help = "the certificates to trust, PEM" },
	[OPT_OTLP_CLIENT_KEY] = { .flag = "otlp-client-key",
				  .arg = "PATH",
				  .env = OTLP_ENV("CLIENT_KEY"),
				  .parse = parse_string,
				  FIELD(otlp_client_key),
				  .help = "the agent's own private key, PEM" },
	[OPT_OTLP_CLIENT_CERTIFICATE] = { .flag = "otlp-client-certificate",
					  .arg = "PATH",
					  .env = OTLP_ENV("CLIENT_CERTIFICATE"),
					  .parse = parse_string,
					  FIELD(otlp_client_certificate),
					  .help = "the agent's own certificate, PEM" },
	/* 1000, not the SDKs' 5000: a span is to be at the collector within 1.5 s of its end. */
	[OPT_BATCH_DELAY] = { .flag = "batch-delay",
			      .arg = "MS",
			      .env = { "OTEL_BSP_SCHEDULE_DELAY" },
			      .initial = "1000",
			      .min = 1,
			      .max = 3600000,
			      .parse = parse_uint64,
			      FIELD(batch_delay_ms),
			      .help = "the longest that a span waits for others (SDKs wait 5000)" },
	[OPT_EXPORT_TIMEOUT] = { .flag = "export-timeout",
				 .arg = "MS",
				 .env = { "OTEL_BSP_EXPORT_TIMEOUT" },
				 .initial = "30000",
				 .max = INT32_MAX,
				 .parse = parse_timeout,
				 FIELD(export_timeout_ms),
				 .help = "the longest that a batch is retried; 0: no limit" },
	/*
	 * A queued span takes up to 2 KB, so a full queue is 16 MiB: with the ring's 8 MiB, the BPF
	 * maps and the agent itself that stays below 64 MiB. Four times the SDKs' 2048, because one
	 * agent speaks for many processes.
	 */
	[OPT_QUEUE_SIZE] = { .flag = "queue-size",
			     .arg = "N",
			     .env = { "OTEL_BSP_MAX_QUEUE_SIZE" },
			     .initial = "8192",
			     .min = 1,
			     .max = 1 << 20,
			     .parse = parse_uint32,
			     FIELD(max_queue_size),
			     .help = "spans that wait at most, about 2 KB each; more are dropped "
				     "and counted" },
	[OPT_BATCH_SIZE] = { .flag = "batch-size",
			     .arg = "N",
			     .env = { "OTEL_BSP_MAX_EXPORT_BATCH_SIZE" },
			     .initial = "512",
			     .min = 1,
			     .max = 1 << 20,
			     .parse = parse_uint32,
			     FIELD(max_export_batch_size),
			     .help = "spans in one request at most" },

	[OPT_COLLECTOR] = { .title = "How it runs",
			    .flag = "collector",
			    .arg = "KIND",
			    .env = { "SPANLOOM_COLLECTOR" },
			    .initial = "auto",
			    .choices = collectors,
			    .parse = parse_choice,
			    FIELD(collector),
			    .help = "how traffic is seen: sock (kernel 6.3 on), syscall, or auto" },
	[OPT_RING_SIZE] = { .flag = "ring-size",
			    .arg = "BYTES",
			    .env = { "SPANLOOM_RING_SIZE" },
			    .initial = "8M",
			    .flags = ROW_POWER_OF_TWO,
			    .min = 64 << 10,
			    .max = 1 << 30,
			    .parse = parse_bytes,
			    FIELD(ring_bytes),
			    .allowed = "a power of two from 64K to 1G",
			    .help = "the buffer between kernel and agent" },
	[OPT_CAPTURE_BYTES] = { .flag = "capture-bytes",
				.arg = "BYTES",
				.env = { "SPANLOOM_CAPTURE_BYTES" },
				.initial = "8192",
				.min = 256,
				.max = 64 << 10,
				.parse = parse_bytes,
				FIELD(capture_bytes),
				.allowed = "from 256 to 64K",
				.help = "how much of one send or receive is copied; the rest is "
					"known by length" },
	[OPT_MAX_CONNECTIONS] = { .flag = "max-connections",
				  .arg = "N",
				  .env = { "SPANLOOM_MAX_CONNECTIONS" },
				  .initial = "16384",
				  .min = 16,
				  .max = 1 << 20,
				  .parse = parse_uint32,
				  FIELD(max_connections),
				  .help = "connections followed at the same time" },
	[OPT_MAX_PROCESSES] = { .flag = "max-processes",
				.arg = "N",
				.env = { "SPANLOOM_MAX_PROCESSES" },
				.initial = "4096",
				.min = 1,
				.max = 1 << 20,
				.parse = parse_uint32,
				FIELD(max_processes),
				.help = "processes traced at the same time" },
	[OPT_NICE] = { .flag = "nice",
		       .arg = "N",
		       .env = { "SPANLOOM_NICE" },
		       .initial = "10",
		       .min = -20,
		       .max = 19,
		       .parse = parse_int,
		       FIELD(nice),
		       .help = "the agent's own niceness: at 10 it takes a tenth of a core at most "
			       "from services that want all of it; what it can't do then it drops "
			       "and counts" },
	[OPT_SHUTDOWN_TIMEOUT] = { .flag = "shutdown-timeout",
				   .arg = "MS",
				   .env = { "SPANLOOM_SHUTDOWN_TIMEOUT" },
				   .initial = "5000",
				   .max = 3600000,
				   .parse = parse_uint64,
				   FIELD(shutdown_timeout_ms),
				   .help = "how long SIGTERM and SIGINT wait for spans to be "
					   "sent" },
	[OPT_CONFIG] = { .flag = "config",
			 .arg = "FILE",
			 .env = { "SPANLOOM_CONFIG" },
			 .flags = ROW_NOT_IN_FILE,
			 .help = "read options from a file: lines of key = value, where the keys "
				 "are these options' "
				 "names; '#' begins a comment" },
	[OPT_LOG_LEVEL] = { .flag = "log-level",
			    .arg = "LEVEL",
			    .env = { "SPANLOOM_LOG_LEVEL" },
			    .initial = "info",
			    .choices = log_levels,
			    .parse = parse_choice,
			    FIELD(log_level),
			    .help = "error, warning, info or debug" },
	[OPT_HELP] = { .flag = "help",
		       .implied = "text",
		       .flags = ROW_NOT_IN_FILE,
		       .help = "this text (--help=markdown: as a table)" },
	[OPT_VERSION] = { .flag = "version",
			  .implied = "text",
			  .flags = ROW_NOT_IN_FILE,
			  .help = "the version" },
};

static void describe_allowed(const struct option_row *row, char *buf, size_t bytes)
{
	size_t len = 0;

	if (row->allowed) {
		snprintf(buf, bytes, "%s", row->allowed);
	} else if (row->choices) {
		for (const struct choice *c = row->choices; c->name && len < bytes; c++)
			len += (size_t)snprintf(buf + len, bytes - len, "%s%s",
						c == row->choices ? ""
						: c[1].name       ? ", "
								  : " or ",
						c->name);
	} else {
		snprintf(buf, bytes, "a whole number from %lld to %lld", (long long)row->min,
			 (long long)row->max);
	}
}

static int apply_text(const struct option_row *row, const struct setting_value *value,
		      struct options *o, char **ret_error)
{
	char allowed[160];
	int err = row->parse(row, value->text, o);

	if (err == -ENOMEM)
		options_fail(ret_error, "out of memory while reading the options");
	if (err != -EINVAL)
		return err;
	describe_allowed(row, allowed, sizeof(allowed));
	return options_fail(ret_error, "%s=%s: must be %s", value->where,
			    row->flags & ROW_SECRET ? "..." : value->text, allowed);
}

static int apply(const struct setting *settings, struct options *o, char **ret_error)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		const struct setting *s = &settings[i];

		if (!row->parse)
			continue;
		if (!s->count && row->initial && row->parse(row, row->initial, o))
			return options_fail(ret_error, "out of memory while reading the options");
		if (row->flags & ROW_STANDARD_BOOL && s->source == SOURCE_ENV)
			continue;
		for (size_t k = 0; k < s->count; k++) {
			int err = apply_text(row, &s->values[k], o, ret_error);

			if (err)
				return err;
		}
	}
	return 0;
}

static int collect(struct setting *settings, char *const *env, char **ret_error)
{
	int err = settings_from_env(settings, env, ret_error);
	const char *path = setting_text(settings, OPT_CONFIG);

	if (err || !path)
		return err;
	return settings_from_file(settings, path, settings[OPT_CONFIG].values[0].where, ret_error);
}

int options_parse(int argc, char *const *argv, char *const *env, struct options *ret,
		  char **ret_error)
{
	struct setting settings[OPTION_COUNT] = { 0 };
	int err;

	*ret = (struct options){ 0 };
	err = settings_from_argv(settings, argc, argv, ret_error);
	if (err)
		goto out;
	if (settings[OPT_HELP].count || settings[OPT_VERSION].count) {
		ret->help = settings[OPT_HELP].count > 0;
		ret->help_markdown =
			ret->help && strcmp(setting_text(settings, OPT_HELP), "markdown") == 0;
		ret->version = settings[OPT_VERSION].count > 0;
		goto out;
	}
	err = collect(settings, env, ret_error);
	if (!err)
		err = apply(settings, ret, ret_error);
	if (!err)
		err = options_resolve(settings, ret, ret_error);
out:
	settings_free(settings);
	return err;
}

void options_free(struct options *o)
{
	for (size_t i = 0; i < o->rule_count; i++)
		free(o->rules[i].text);
	free(o->rules);
	free(o->service_name);
	key_value_free(o->resource_attributes, o->resource_attribute_count);
	free(o->file);
	free(o->otlp_endpoint);
	key_value_free(o->otlp_headers, o->otlp_header_count);
	free(o->otlp_certificate);
	free(o->otlp_client_key);
	free(o->otlp_client_certificate);
	*o = (struct options){ 0 };
}
