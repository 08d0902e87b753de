/* The command: reads the options, says what is wrong with them, runs the agent. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "base/log.h"
#include "base/version.h"
#include "config/options.h"

extern char **environ;

/* Descriptors 0 to 2 are there, so that nothing else is ever opened as one of them and written to
 * as if it were the terminal. */
static void keep_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

/* Was everything that was asked for printed? The exit status. */
static int check_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	log_error("writing to standard output failed: %s", strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	struct options options;
	char *error = NULL;
	int status = 0;

	keep_standard_descriptors();
	if (options_parse(argc, argv, environ, &options, &error)) {
		log_error("%s", error ? error : "out of memory");
		status = 1;
	} else if (options.help_markdown) {
		options_print_markdown(stdout);
		status = check_stdout();
	} else if (options.help) {
		options_print_help(stdout);
		status = check_stdout();
	} else if (options.version) {
		printf("spanloom %s\n", SPANLOOM_VERSION);
		status = check_stdout();
	} else {
		status = agent_run(&options);
	}
	free(error);
	options_free(&options);
	return status;
}
