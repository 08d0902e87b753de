/*
 * Everything a user can set, after flags, environment, configuration file and defaults were put
 * together (that order wins). One table in options.c names each option once; the parser, --help and
 * the README's table come from it.
 */
#ifndef CONFIG_OPTIONS_H
#define CONFIG_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum select_kind { SELECT_PID, SELECT_EXE, SELECT_PORT, SELECT_CGROUP };

/* One rule of what to trace; a process that matches any rule is traced. */
struct select_rule {
	enum select_kind kind;
	uint32_t pid;                 /* SELECT_PID */
	uint16_t port_low, port_high; /* SELECT_PORT, inclusive */
	char *text; /* SELECT_EXE: glob over the executable's path, or its base name when the glob
		       has no '/'; SELECT_CGROUP: path as given. Owned. */
};

/* What these are when nothing else is said; why, stands in the table of options.c. */
enum {
	OPTIONS_NO_TIMEOUT_MS = INT32_MAX, /* what a timeout of 0 ("no limit") becomes */
	OPTIONS_FILE_MAX_BYTES = 1 << 20,
};

enum span_option_kind { SPAN_OPTION_PYTHON, SPAN_OPTION_NATIVE };

struct key_value {
	char *key, *value; /* owned */
};

/* A custom span: --span 'app.a2a:call_agent=a2a.call,agent.type=gateway'. All owned. */
struct span_option {
	enum span_option_kind kind;
	char *where;    /* Python: module or file (ends with .py); native: library or executable */
	char *function; /* Python: qualified name; native: symbol */
	char *name;     /* of the span; the function's when none was given */
	struct key_value *attributes;
	size_t attribute_count;
};

enum collector_kind { COLLECTOR_AUTO, COLLECTOR_SOCK, COLLECTOR_SYSCALL };
enum propagate_kind { PROPAGATE_HEADERS = 1, PROPAGATE_TCP = 2, PROPAGATE_AUTO = 4 };
enum otlp_protocol { OTLP_GRPC, OTLP_HTTP_PROTOBUF };
enum console_mode { CONSOLE_AUTO, CONSOLE_OFF, CONSOLE_TREE, CONSOLE_JSON };

struct options {
	/* what to trace */
	struct select_rule *rules;
	size_t rule_count;
	enum collector_kind collector;
	bool enabled; /* OTEL_ENABLED, OTEL_SDK_DISABLED */

	/* what is read from runtimes */
	struct span_option *spans;
	size_t span_count;
	bool python; /* contexts, routes and code of Python processes */
	bool route;  /* http.route */
	bool code;   /* code.* */

	/* what is kept */
	char *service_name; /* the agent's own fallback (OTEL_SERVICE_NAME), NULL: none */
	struct key_value *resource_attributes; /* OTEL_RESOURCE_ATTRIBUTES */
	size_t resource_attribute_count;
	bool sampler_parent_based;
	int sampler_root; /* enum sampler_root of trace/sample.h: 0 on, 1 off, 2 ratio */
	double sampler_ratio;
	uint32_t root_limit; /* new traces of a service per second; 0: no limit */
	bool keep_errors;    /* --keep-errors: failed requests are recorded although not sampled */
	uint64_t keep_slow_ms; /* --keep-slow: and slow ones; 0: not */

	/* across processes */
	uint32_t propagate; /* set of enum propagate_kind; PROPAGATE_AUTO alone: headers where they
			       work */
	bool no_trace_context; /* OTEL_PROPAGATORS leaves it out: why headers are off */
	bool keep_sdk; /* --with-sdk: spans of processes that report their own are ours too */

	/* where spans go */
	bool export_otlp;
	enum console_mode console;
	char *file; /* path of the file exporter, NULL: off */
	enum otlp_protocol otlp_protocol;
	char *otlp_endpoint; /* URL as it is used: gRPC: scheme://host:port, HTTP: with its path */
	struct key_value *otlp_headers;
	size_t otlp_header_count;
	uint64_t otlp_timeout_ms;
	bool otlp_gzip;
	char *otlp_certificate, *otlp_client_key,
		*otlp_client_certificate; /* paths, NULL: the system's store, none */

	/* how spans are batched: OTEL_BSP_* */
	uint64_t batch_delay_ms, export_timeout_ms;
	uint32_t max_queue_size, max_export_batch_size;

	/* limits */
	uint32_t ring_bytes;    /* a power of two */
	uint32_t capture_bytes; /* at most this much of one transfer */
	uint32_t max_connections;
	uint32_t max_processes;
	uint64_t shutdown_timeout_ms;
	int nice; /* the agent's own niceness */

	int log_level; /* enum log_level of base/log.h */
	bool help, version;
	bool help_markdown; /* --help=markdown: the README's table */
};

/*
 * Fills *ret from `argv`, `env` (NAME=value, NULL-terminated) and the file they name. Returns 0, or
 * -EINVAL with *ret_error (malloc'd): the option's name, the value, what is allowed. *ret is valid
 * for options_free() either way.
 */
int options_parse(int argc, char *const *argv, char *const *env, struct options *ret,
		  char **ret_error);
/* Takes a zeroed one. */
void options_free(struct options *o);
void options_print_help(FILE *out);
/* The README's table. */
void options_print_markdown(FILE *out);

/*
 * A list as OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_HEADERS hold it: key=value,key=value as
 * in W3C Baggage, white space around keys and values dropped, values percent-decoded (keys too), a
 * later key replaces an earlier one, empty members skipped. 0; -EINVAL (a member without '=' or
 * key, a wrong %xx, a decoded NUL; the whole list is then refused, as the specification says) or
 * -ENOMEM with *ret_list and *ret_count untouched. The caller owns the list.
 */
int key_value_parse(const char *text, struct key_value **ret_list, size_t *ret_count);
void key_value_free(struct key_value *list, size_t count);

#endif
