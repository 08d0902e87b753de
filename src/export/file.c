/*
 * The exporter "file": every batch as one line of OTLP/JSON, appended, as the OpenTelemetry
 * collector's file exporter writes them. It owns the descriptor. Invariant: a file only ever grows
 * by whole lines: one that did not fit is taken back (in a pipe, ended before the next), its spans
 * counted (DROP_FILE_FAILED), the first of a row of failures logged.
 */
#include "export/exporters.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "config/options.h"
#include "export/json.h"

enum { FILE_MODE = 0640 };

struct file {
	struct stats *stats;
	char *path;
	int fd;
	bool regular; /* can be cut back */
	bool torn;    /* the last line has no end */
	bool failing;
	struct buf line;
};

static void file_close(void *state)
{
	struct file *f = state;

	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	buf_free(&f->line);
	free(f->path);
	free(f);
}

static void *file_open(const struct options *options, const struct exporter_loop *loop,
		       struct stats *stats, char **ret_error)
{
	struct file *f = calloc(1, sizeof(*f));
	struct stat st;

	(void)loop;
	if (f) {
		f->stats = stats;
		/* Not blocking: a FIFO without a reader is an error, not a wait. */
		f->fd = open(options->file,
			     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
			     FILE_MODE);
		f->path = strdup(options->file);
	}
	if (f && f->path && f->fd >= 0) {
		f->regular = fstat(f->fd, &st) == 0 && S_ISREG(st.st_mode);
		return f;
	}
	if (asprintf(ret_error,
		     "the span file %s can't be opened: %s; name one in a directory that the agent "
		     "may write to",
		     options->file, strerror(f && f->path ? errno : ENOMEM)) < 0)
		*ret_error = NULL;
	file_close(f);
	return NULL;
}

/* 0, or the errno of the line that was not written. */
static int write_line(struct file *f)
{
	off_t before = f->regular ? lseek(f->fd, 0, SEEK_END) : -1;
	size_t done = 0;

	if (f->line.failed)
		return ENOMEM;
	while (done < f->line.len) {
		ssize_t n = write(f->fd, f->line.data + done, f->line.len - done);
		int err = errno;

		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		if (n < 0 && err == EINTR)
			continue;
		if (done)
			f->torn = before < 0 || ftruncate(f->fd, before) < 0;
		return n < 0 ? err : EIO;
	}
	f->torn = false;
	return 0;
}

static void file_export(void *state, const struct span_batch *batch, uint64_t now_ns)
{
	struct file *f = state;
	int err;

	(void)now_ns;
	buf_reset(&f->line);
	if (f->torn)
		buf_append_char(&f->line, '\n');
	json_append_request(&f->line, batch);
	buf_append_char(&f->line, '\n');
	err = write_line(f);
	if (err) {
		stats_drop(f->stats, DROP_FILE_FAILED, batch->count);
		if (!f->failing)
			log_warning("the span file %s can't be written: %s; spans are not kept "
				    "there until it can",
				    f->path, strerror(err));
	} else if (f->failing) {
		log_info("the span file %s is written again", f->path);
	}
	f->failing = err != 0;
}

const struct exporter file_exporter = {
	.name = "file",
	.open = file_open,
	.export = file_export,
	.close = file_close,
};
