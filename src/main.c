/* The command: reads the options, says what is wrong with them, runs the agent. */
#include <stdio.h>
#include <stdlib.h>

#include "agent.h"
#include "base/log.h"
#include "base/version.h"
#include "config/options.h"

extern char **environ;

int main(int argc, char **argv)
{
	struct options options;
	char *error = NULL;
	int status = 0;

	if (options_parse(argc, argv, environ, &options, &error)) {
		log_error("%s", error ? error : "out of memory");
		status = 1;
	} else if (options.help_markdown) {
		options_print_markdown(stdout);
	} else if (options.help) {
		options_print_help(stdout);
	} else if (options.version) {
		printf("spanloom %s\n", SPANLOOM_VERSION);
	} else {
		status = agent_run(&options);
	}
	free(error);
	options_free(&options);
	return status;
}
