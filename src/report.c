#include "report.h"

#include <inttypes.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "discover/select.h"
#include "trace/redact.h"

enum { RULE_TEXT_BYTES = 256, URL_TEXT_BYTES = 512 };

static void copy_out(struct buf *b, char *buf, size_t bytes)
{
	snprintf(buf, bytes, "%s", buf_cstr(b));
	buf_free(b);
}

void report_selection(const struct options *o, char *buf, size_t bytes)
{
	struct buf b = { 0 };
	size_t i;

	for (i = 0; i < o->rule_count; i++) {
		char rule[RULE_TEXT_BYTES];

		select_rule_describe(&o->rules[i], rule, sizeof(rule));
		buf_printf(&b, "%s%s", i ? ", " : "", rule);
	}
	copy_out(&b, buf, bytes);
}

static void add_place(struct buf *b, const char *what, const char *where)
{
	buf_printf(b, "%s%s%s%s", b->len ? " and " : "", what, where ? " " : "",
		   where ? where : "");
}

void report_destination(const struct options *o, char *buf, size_t bytes)
{
	struct buf b = { 0 };

	if (o->export_otlp) {
		add_place(&b, o->otlp_protocol == OTLP_GRPC ? "OTLP/gRPC " : "OTLP/HTTP ", NULL);
		redact_url(&b, slice_str(o->otlp_endpoint), URL_TEXT_BYTES);
	}
	if (o->console == CONSOLE_TREE || o->console == CONSOLE_JSON ||
	    (o->console == CONSOLE_AUTO && isatty(STDOUT_FILENO)))
		add_place(&b, "the console", NULL);
	if (o->file)
		add_place(&b, "file", o->file);
	if (!b.len)
		add_place(&b, "nowhere (no exporter is on)", NULL);
	copy_out(&b, buf, bytes);
}

void report_summary(const struct stats *s, const char *title)
{
	struct buf b = { 0 };
	int i;

	for (i = 0; i < STATS_FIGURE_COUNT; i++) {
		if (i == STATS_EXPORTED && !s->figures[i])
			continue; /* spans for the console or a file alone are not counted here */
		buf_printf(&b, "%s%s %" PRIu64, i ? ", " : "", stats_figure_name(i), s->figures[i]);
	}
	log_info("%s: %s", title, buf_cstr(&b));
	buf_free(&b);
	for (i = 0; i < DROP_REASON_COUNT; i++) {
		if (s->drops[i])
			log_info("%s: dropped %s %" PRIu64 ": %s", title, drop_reason_name(i),
				 s->drops[i], drop_reason_text(i));
	}
}
