/*
 * Interpreters for the tests of runtimes/python*: starts one with a script, reads the lines it
 * prints (fields divided by tabs), opens it as the agent does. A script prints what it made and
 * what should be read there, then "ready", and waits for the end of its input.
 */
#ifndef TESTS_UNIT_PYTHON_CHILD_H
#define TESTS_UNIT_PYTHON_CHILD_H

#include <glob.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "runtimes/python_internal.h"

enum { CHILD_FIELDS = 12, CHILD_LINE = 16384 };

struct python_child {
	pid_t pid;
	FILE *lines; /* what it prints */
	int input;
	struct runtime_process *process;
};

/* Starts `python script`. */
static inline bool python_child_start(struct python_child *c, const char *python,
				      const char *script)
{
	int in[2], out[2];

	memset(c, 0, sizeof(*c));
	if (pipe(in) || pipe(out))
		return false;
	c->pid = fork();
	if (c->pid == 0) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		execl(python, python, "-B", script, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	c->input = in[1];
	c->lines = fdopen(out[0], "r");
	return c->pid > 0 && c->lines;
}

/* The next line's fields, "" for those that it lacks; false: it is ready, or gone. */
static inline bool python_child_line(struct python_child *c, char *line,
				     const char *fields[CHILD_FIELDS])
{
	char *at = line;

	if (!fgets(line, CHILD_LINE, c->lines))
		return false;
	line[strcspn(line, "\n")] = '\0';
	if (strcmp(line, "ready") == 0)
		return false;
	for (int i = 0; i < CHILD_FIELDS; i++) {
		fields[i] = at ? strsep(&at, "\t") : "";
		if (!fields[i])
			fields[i] = "";
	}
	return true;
}

static inline struct python *python_child_open(struct python_child *c,
					       const struct runtime_options *options)
{
	char *why = NULL;
	int err = runtime_open(options, (uint32_t)c->pid, &c->process, &why);

	if (err)
		printf("  not opened: %d %s\n", err, why ? why : "");
	free(why);
	CHECK(err == 0);
	return err ? NULL : (struct python *)c->process;
}

static inline void python_child_end(struct python_child *c)
{
	if (c->process)
		runtime_free(c->process);
	if (c->input)
		close(c->input);
	if (c->pid > 0) {
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
	}
	if (c->lines)
		fclose(c->lines);
}

/* Writes the text to a file of this name in the folder. */
static inline void python_child_write(const char *folder, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	CHECK(f != NULL);
	if (f) {
		fputs(text, f);
		fclose(f);
	}
}

/* Calls fn for each interpreter of this machine that we know the version of. */
static inline int python_child_each(void (*fn)(const char *python))
{
	const char *home = getenv("HOME"), *named = getenv("SPANLOOM_TEST_PYTHONS");
	char pattern[512];
	int count = 0;
	glob_t g;

	if (named) {
		char *all = strdup(named), *at = all;

		for (char *one; (one = strsep(&at, ":")) != NULL; count++)
			fn(one);
		free(all);
		return count;
	}
	if (access("/usr/bin/python3", X_OK) == 0) {
		fn("/usr/bin/python3");
		count++;
	}
	snprintf(pattern, sizeof(pattern), "%s/.pyenv/versions/3.[0-9]*/bin/python3",
		 home ? home : "");
	if (glob(pattern, 0, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc; i++) {
			const char *version = strstr(g.gl_pathv[i], "versions/3.") + 11;
			int minor = atoi(version);

			if (minor < 9 || minor > 14)
				continue;
			fn(g.gl_pathv[i]);
			count++;
		}
		globfree(&g);
	}
	return count;
}

#endif
