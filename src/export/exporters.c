/* The table of exporters: a new one is its file and a row here. It holds no state. */
#include "export/exporters.h"

#include <unistd.h>

#include "config/options.h"

static bool wants_otlp(const struct options *o)
{
	return o->export_otlp;
}

static bool wants_console(const struct options *o)
{
	return o->console == CONSOLE_TREE || o->console == CONSOLE_JSON ||
	       (o->console == CONSOLE_AUTO && isatty(STDOUT_FILENO));
}

static bool wants_file(const struct options *o)
{
	return o->file != NULL;
}

static const struct {
	const struct exporter *exporter;
	bool (*wanted)(const struct options *o);
} exporters[] = {
	{ &otlp_exporter, wants_otlp },
	{ &console_exporter, wants_console },
	{ &file_exporter, wants_file },
};

int exporters_open(const struct options *options, struct export_queue *q, char **ret_error)
{
	size_t i;

	for (i = 0; i < sizeof(exporters) / sizeof(exporters[0]); i++) {
		int err = exporters[i].wanted(options)
				  ? export_queue_add(q, exporters[i].exporter, options, ret_error)
				  : 0;

		if (err)
			return err;
	}
	return 0;
}
