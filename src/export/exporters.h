/* The exporters there are, one row each, and which of them a set of options asks for. */
#ifndef EXPORT_EXPORTERS_H
#define EXPORT_EXPORTERS_H

#include "export/exporter.h"
#include "export/queue.h"

extern const struct exporter otlp_exporter, console_exporter, file_exporter;

/*
 * Opens in `q` what the options ask for (CONSOLE_AUTO: the tree when stdout is a terminal). 0, or
 * -EINVAL with *ret_error (malloc'd): what, why and what to do. None asked for is no error.
 */
int exporters_open(const struct options *options, struct export_queue *q, char **ret_error);

#endif
