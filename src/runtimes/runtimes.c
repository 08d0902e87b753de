/*
 * The table of runtimes. A new one is a row here and a file pair; nothing else of this folder
 * changes.
 */
#include "runtimes/runtime.h"

#include <errno.h>

#include "runtimes/python.h"

const struct runtime *const runtimes_all[] = { &python_runtime, NULL };

int runtime_open(const struct runtime_options *options, uint32_t pid, struct runtime_process **ret,
		 char **ret_why)
{
	for (size_t i = 0; runtimes_all[i]; i++) {
		int err = runtimes_all[i]->open(options, pid, ret, ret_why);

		if (err != -ENOENT)
			return err;
	}
	return -ENOENT;
}

void runtime_free(struct runtime_process *p)
{
	if (p)
		p->runtime->free(p);
}
