/*
 * Options that more than one text decides: the standard's names and the story's own, endpoint with
 * protocol, exporters with console. Rule: the higher source wins (flag, environment, file); within
 * one source the standard's name does. The texts have passed their row's parser.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/log.h"
#include "config/internal.h"

static const char *setting_where(const struct setting *settings, enum option_id id)
{
	const struct setting *s = &settings[id];

	return s->count ? s->values[s->count - 1].where : "";
}

static bool setting_bool(const struct setting *settings, enum option_id id, bool fallback)
{
	const char *text = setting_text(settings, id);

	if (!text)
		return fallback;
	if (strcasecmp(text, "true") == 0)
		return true;
	/* Only a row that takes any text gets here with another one. */
	if (strcasecmp(text, "false") != 0)
		log_warning("%s=%s is read as false: a boolean is true only as 'true'",
			    setting_where(settings, id), text);
	return false;
}

static void resolve_enabled(const struct setting *settings, struct options *o)
{
	if (settings[OPT_SDK_DISABLED].count &&
	    settings[OPT_SDK_DISABLED].source >= settings[OPT_ENABLED].source)
		o->enabled = !setting_bool(settings, OPT_SDK_DISABLED, false);
	else
		o->enabled = setting_bool(settings, OPT_ENABLED, true);
}

/* OTEL_SERVICE_NAME beats service.name in OTEL_RESOURCE_ATTRIBUTES; the list keeps what isn't it.
 */
static void resolve_service_name(struct options *o)
{
	for (size_t i = 0; i < o->resource_attribute_count; i++) {
		struct key_value *kv = &o->resource_attributes[i];

		if (strcmp(kv->key, "service.name") != 0)
			continue;
		if (!o->service_name && *kv->value) {
			o->service_name = kv->value;
			kv->value = NULL;
		}
		free(kv->key);
		free(kv->value);
		o->resource_attribute_count--;
		memmove(kv, kv + 1, (o->resource_attribute_count - i) * sizeof(*kv));
		return;
	}
}

static int resolve_sampler(const struct setting *settings, struct options *o, char **ret_error)
{
	const char *name = setting_text(settings, OPT_SAMPLER);
	const char *rate = setting_text(settings, OPT_SAMPLING_RATE);
	enum option_id from = OPT_SAMPLER_ARG;
	int value = SAMPLER_ROOT_ON | SAMPLER_PARENT_BASED;

	o->sampler_ratio = 1;
	if (rate && settings[OPT_SAMPLING_RATE].source > settings[OPT_SAMPLER].source) {
		value = SAMPLER_ROOT_RATIO | SAMPLER_PARENT_BASED;
		from = OPT_SAMPLING_RATE;
	} else if (name) {
		choice_find(option_rows[OPT_SAMPLER].choices, name, &value);
		if (!settings[OPT_SAMPLER_ARG].count)
			from = OPT_SAMPLING_RATE;
	}
	o->sampler_parent_based = value & SAMPLER_PARENT_BASED;
	o->sampler_root = value & ~SAMPLER_PARENT_BASED;
	/* The argument of a sampler that takes none is not looked at. */
	if (o->sampler_root == SAMPLER_ROOT_RATIO && settings[from].count &&
	    !rate_parse(setting_text(settings, from), &o->sampler_ratio))
		return fail(ret_error, -EINVAL, "%s=%s: must be a number from 0 to 1",
			    setting_where(settings, from), setting_text(settings, from));
	return 0;
}

static void resolve_exporters(const struct setting *settings, struct options *o)
{
	const char *exporters = setting_text(settings, OPT_EXPORTER);
	const char *console = setting_text(settings, OPT_CONSOLE);
	unsigned int set = EXPORTER_OTLP;
	int mode = CONSOLE_AUTO;

	if (exporters)
		exporters_parse(exporters, &set);
	o->export_otlp = set & EXPORTER_OTLP;
	if (console)
		choice_find(option_rows[OPT_CONSOLE].choices, console, &mode);
	else if (set & EXPORTER_CONSOLE || setting_bool(settings, OPT_LOG_SPANS, false))
		mode = CONSOLE_TREE;
	else if (exporters || settings[OPT_LOG_SPANS].count)
		mode = CONSOLE_OFF;
	o->console = (enum console_mode)mode;
}

static int resolve_endpoint(const struct setting *settings, struct options *o, char **ret_error)
{
	static const enum endpoint_form env_forms[OPTION_MAX_ENV] = { ENDPOINT_VERBATIM,
								      ENDPOINT_BASE,
								      ENDPOINT_BASE };
	const struct setting *s = &settings[OPT_OTLP_ENDPOINT];
	const char *text = setting_text(settings, OPT_OTLP_ENDPOINT), *why = NULL;
	enum endpoint_form form = ENDPOINT_FLAG;
	int err;

	if (!text)
		text = o->otlp_protocol == OTLP_GRPC ? "http://localhost:4317"
						     : "http://localhost:4318";
	else if (s->env_index >= 0)
		form = env_forms[s->env_index];
	err = endpoint_parse(text, o->otlp_protocol, form,
			     setting_bool(settings, OPT_OTLP_INSECURE, false), &o->otlp_endpoint,
			     &why);
	if (err == -EINVAL)
		return fail(ret_error, err, "%s=%s: must be %s",
			    setting_where(settings, OPT_OTLP_ENDPOINT), text, why);
	return err;
}

static int resolve_tls(const struct setting *settings, struct options *o, char **ret_error)
{
	if (!o->otlp_client_key == !o->otlp_client_certificate)
		return 0;
	return fail(ret_error, -EINVAL,
		    "%s is set without the other: --otlp-client-key and "
		    "--otlp-client-certificate belong together",
		    setting_where(settings, o->otlp_client_key ? OPT_OTLP_CLIENT_KEY
							       : OPT_OTLP_CLIENT_CERTIFICATE));
}

static int resolve_batch(const struct setting *settings, struct options *o, char **ret_error)
{
	if (o->max_export_batch_size <= o->max_queue_size)
		return 0;
	if (settings[OPT_BATCH_SIZE].count)
		return fail(ret_error, -EINVAL, "%s=%s: must be at most the queue's size, %u",
			    setting_where(settings, OPT_BATCH_SIZE),
			    setting_text(settings, OPT_BATCH_SIZE), o->max_queue_size);
	o->max_export_batch_size = o->max_queue_size;
	return 0;
}

int options_resolve(const struct setting *settings, struct options *o, char **ret_error)
{
	int err;

	resolve_enabled(settings, o);
	resolve_service_name(o);
	resolve_exporters(settings, o);
	resolve_propagate(settings, o);
	err = resolve_sampler(settings, o, ret_error);
	if (!err)
		err = resolve_endpoint(settings, o, ret_error);
	if (!err)
		err = resolve_tls(settings, o, ret_error);
	if (!err)
		err = resolve_batch(settings, o, ret_error);
	if (err)
		return err;
	if (o->enabled && !o->rule_count)
		return fail(
			ret_error, -EINVAL,
			"nothing to trace was chosen; for example:\n"
			"  spanloom --port 8000            what listens on TCP port 8000\n"
			"  spanloom --exe 'uvicorn*'       by the program's name\n"
			"  spanloom --pid 1234             one running process and its children\n"
			"  spanloom --cgroup system.slice/app.service\n"
			"or SPANLOOM_PORT, SPANLOOM_EXE, SPANLOOM_PID, SPANLOOM_CGROUP, or "
			"--config "
			"FILE; see spanloom --help");
	return 0;
}
