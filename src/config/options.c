/*
 * From the texts of all sources to options: the order in which they are read is flag, environment,
 * file, default. What an option is, stands in table.c; a text is refused here with the words of its
 * row.
 */
#include "config/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "config/internal.h"

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
	char allowed[320];
	int err = row->parse(row, value->text, o);

	if (err == -ENOMEM)
		return settings_no_memory(ret_error);
	if (err != -EINVAL)
		return err;
	describe_allowed(row, allowed, sizeof(allowed));
	return fail(ret_error, -EINVAL, "%s=%s: must be %s", value->where,
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
			return settings_no_memory(ret_error);
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

	if (!err && path)
		err = settings_from_file(settings, path, settings[OPT_CONFIG].values[0].where,
					 ret_error);
	path = setting_text(settings, OPT_SPAN_FILE);
	if (err || !path)
		return err;
	return settings_from_list(settings, OPT_SPAN, path, settings[OPT_SPAN_FILE].values[0].where,
				  ret_error);
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
	span_options_free(o->spans, o->span_count);
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
