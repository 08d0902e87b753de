/*
 * Shared by the files of src/config and nobody else: what a row of the option table is, and where
 * each option's value came from. Texts are checked by the row's parser before anything else looks
 * at them.
 */
#ifndef CONFIG_INTERNAL_H
#define CONFIG_INTERNAL_H

#include "config/options.h"

enum option_id {
	OPT_PID,
	OPT_EXE,
	OPT_PORT,
	OPT_CGROUP,
	OPT_ENABLED,
	OPT_SDK_DISABLED,
	OPT_PYTHON,
	OPT_ROUTE,
	OPT_CODE,
	OPT_SPAN,
	OPT_SPAN_FILE,
	OPT_SERVICE_NAME,
	OPT_RESOURCE_ATTRIBUTES,
	OPT_SAMPLER,
	OPT_SAMPLER_ARG,
	OPT_SAMPLING_RATE,
	OPT_KEEP_ERRORS,
	OPT_KEEP_SLOW,
	OPT_MAX_TRACES,
	OPT_PROPAGATE,
	OPT_PROPAGATORS,
	OPT_WITH_SDK,
	OPT_EXPORTER,
	OPT_CONSOLE,
	OPT_LOG_SPANS,
	OPT_FILE,
	OPT_OTLP_ENDPOINT,
	OPT_OTLP_PROTOCOL,
	OPT_OTLP_INSECURE,
	OPT_OTLP_HEADERS,
	OPT_OTLP_TIMEOUT,
	OPT_OTLP_COMPRESSION,
	OPT_OTLP_CERTIFICATE,
	OPT_OTLP_CLIENT_KEY,
	OPT_OTLP_CLIENT_CERTIFICATE,
	OPT_BATCH_DELAY,
	OPT_EXPORT_TIMEOUT,
	OPT_QUEUE_SIZE,
	OPT_BATCH_SIZE,
	OPT_COLLECTOR,
	OPT_RING_SIZE,
	OPT_CAPTURE_BYTES,
	OPT_MAX_CONNECTIONS,
	OPT_MAX_PROCESSES,
	OPT_NICE,
	OPT_SHUTDOWN_TIMEOUT,
	OPT_CONFIG,
	OPT_LOG_LEVEL,
	OPT_HELP,
	OPT_VERSION,
	OPTION_COUNT
};

enum { OPTION_MAX_ENV = 3 };

/* Higher ones win. */
enum source { SOURCE_NONE, SOURCE_FILE, SOURCE_ENV, SOURCE_FLAG };

enum row_flag {
	ROW_LIST = 1 << 0,      /* may be given more than once */
	ROW_COMMA = 1 << 1,     /* a comma separates values in any source */
	ROW_ENV_COMMA = 1 << 2, /* only in the environment */
	ROW_NOT_IN_FILE = 1 << 3,
	ROW_STANDARD_BOOL = 1 << 4, /* from the environment: true only as `true`, all else is false,
				       with a warning */
	ROW_SECRET = 1 << 5,        /* the value is not repeated in messages */
	ROW_POWER_OF_TWO = 1 << 6,
	ROW_ENV_SEMICOLON = 1 << 7, /* a semicolon separates values in the environment */
};

struct choice {
	const char *name;
	int value;
};

struct option_row {
	const char *title;   /* begins a group in --help; NULL: the same group goes on */
	const char *flag;    /* without "--"; also the key in files; NULL: environment only */
	const char *arg;     /* what --help calls the value; NULL: it takes none */
	const char *implied; /* the value when the flag stands alone; NULL: it needs one */
	const char *env[OPTION_MAX_ENV]; /* the first that is set wins */
	const char *initial;             /* the default, as text for the parser; NULL: none */
	const char *shown_default;       /* for people, where `initial` says too little */
	unsigned int flags;              /* enum row_flag */
	size_t offset;                   /* into struct options, for the parsers that store */
	int64_t min, max;                /* numbers, both inclusive */
	const struct choice *choices;    /* ended by a NULL name */
	/* 0, -EINVAL or -ENOMEM; NULL: resolved by options_resolve alone */
	int (*parse)(const struct option_row *row, const char *text, struct options *o);
	const char *allowed; /* behind "must be " in messages; NULL: from choices or limits */
	const char *help;
};

struct setting_value {
	char *where; /* "--port", "SPANLOOM_PORT", "FILE:3: port" */
	char *text;
};

struct setting {
	enum source source;
	int env_index; /* which name of the row's env, -1 otherwise */
	struct setting_value *values;
	size_t count;
};

/* table.c */
extern const struct option_row option_rows[OPTION_COUNT];

/* source.c. -ENOMEM; *ret_error is the message for it, malloc'd. */
int settings_no_memory(char **ret_error);

/*
 * source.c: collects texts. `settings` has OPTION_COUNT elements, zeroed before. Each of these
 * returns 0, or -EINVAL or -ENOMEM with the first failure's message (malloc'd).
 */
int settings_from_argv(struct setting *settings, int argc, char *const *argv, char **ret_error);
int settings_from_env(struct setting *settings, char *const *env, char **ret_error);
int settings_from_file(struct setting *settings, const char *path, const char *where,
		       char **ret_error);
/* Every line that is not empty becomes one more text of `id`, whatever gave the others. */
int settings_from_list(struct setting *settings, enum option_id id, const char *path,
		       const char *where, char **ret_error);
void settings_free(struct setting *settings);
/* The last text given, NULL when none was. */
const char *setting_text(const struct setting *settings, enum option_id id);

/* value.c: texts to values. */
int parse_pid(const struct option_row *row, const char *text, struct options *o);
int parse_port(const struct option_row *row, const char *text, struct options *o);
int parse_rule_text(const struct option_row *row, const char *text, struct options *o);
int parse_string(const struct option_row *row, const char *text, struct options *o);
int parse_uint32(const struct option_row *row, const char *text, struct options *o);
int parse_uint64(const struct option_row *row, const char *text, struct options *o);
int parse_timeout(const struct option_row *row, const char *text, struct options *o);
int parse_int(const struct option_row *row, const char *text, struct options *o);
int parse_bytes(const struct option_row *row, const char *text, struct options *o);
int parse_choice(const struct option_row *row, const char *text, struct options *o);
int parse_bool(const struct option_row *row, const char *text, struct options *o);
int parse_gzip(const struct option_row *row, const char *text, struct options *o);
int parse_headers(const struct option_row *row, const char *text, struct options *o);
int parse_attributes(const struct option_row *row, const char *text, struct options *o);
/* span.c */
int parse_span(const struct option_row *row, const char *text, struct options *o);
void span_options_free(struct span_option *spans, size_t count);
/* These check only; options_resolve uses the text. */
int check_choice(const struct option_row *row, const char *text, struct options *o);
int check_exporters(const struct option_row *row, const char *text, struct options *o);
int check_rate(const struct option_row *row, const char *text, struct options *o);
/* False when it is none of them. */
bool choice_find(const struct choice *choices, const char *text, int *ret);
/* 0…1, plain decimal digits or an exponent. */
bool rate_parse(const char *text, double *ret);
/* A comma list of names as a set of their values; false when a name is unknown or one whose value
 * is 0 is not alone. */
bool choices_parse(const struct choice *names, const char *text, unsigned int *ret);
/* Values of OPT_EXPORTER as a set of these bits; false when a name is unknown or `none` is not
 * alone. */
enum { EXPORTER_OTLP = 1 << 0, EXPORTER_CONSOLE = 1 << 1 };
bool exporters_parse(const char *text, unsigned int *ret);

/* value.c's sampler names: value = root | SAMPLER_PARENT_BASED */
enum {
	SAMPLER_ROOT_ON = 0,
	SAMPLER_ROOT_OFF = 1,
	SAMPLER_ROOT_RATIO = 2,
	SAMPLER_PARENT_BASED = 4
};

/* endpoint.c: the URL as options.h describes it (malloc'd). */
enum endpoint_form {
	ENDPOINT_BASE,     /* HTTP: /v1/traces is appended */
	ENDPOINT_FLAG,     /* HTTP: appended unless it ends with it */
	ENDPOINT_VERBATIM, /* HTTP: as it stands, "/" for no path */
};
/* 0; -ENOMEM; -EINVAL with *ret_why (a literal, behind "must be "). */
int endpoint_parse(const char *text, enum otlp_protocol protocol, enum endpoint_form form,
		   bool insecure, char **ret_url, const char **ret_why);

/* key_value.c: without the blanks around it, percent-decoded, malloc'd. 0, -EINVAL or -ENOMEM. */
int key_value_decode(const char *text, size_t len, char **ret);

/* propagate.c */
int parse_propagate(const struct option_row *row, const char *text, struct options *o);
/* OTEL_PROPAGATORS may switch headers off. */
void resolve_propagate(const struct setting *settings, struct options *o);

/* resolve.c: the options that depend on more than one text; the texts have been checked. */
int options_resolve(const struct setting *settings, struct options *o, char **ret_error);

#endif
