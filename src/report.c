#include "report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "discover/select.h"
#include "trace/redact.h"

enum { RULE_TEXT_BYTES = 256, URL_TEXT_BYTES = 512, NOTE_BYTES = 96 };

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

/* What the user chose decides before what the kernel can do is of interest. */
static const char *headers_off(const struct options *o, const char *why)
{
	if (o->no_trace_context)
		return "OTEL_PROPAGATORS has no tracecontext";
	if (!o->propagate)
		return "--propagate=off";
	if (o->propagate == PROPAGATE_TCP)
		return "--propagate=tcp";
	return why;
}

void report_propagation(const struct options *o, bool headers, bool tcp_option, const char *why,
			char *buf, size_t bytes)
{
	const char *reason = headers_off(o, why);
	struct buf b = { 0 };

	buf_printf(&b, "traceparent into outgoing HTTP: %s", headers ? "on" : "off");
	/* What goes with it although it is on is a warning of its own. */
	if (!headers && reason)
		buf_printf(&b, " (%s)", reason);
	if (o->propagate & PROPAGATE_TCP)
		buf_printf(&b, ", TCP option: %s", tcp_option ? "on" : "off");
	if (o->propagate & PROPAGATE_TCP && !tcp_option && why)
		buf_printf(&b, " (%s)", why);
	copy_out(&b, buf, bytes);
}

static void add_note(struct buf *notes, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_note(struct buf *notes, const char *fmt, ...)
{
	char note[NOTE_BYTES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(note, sizeof(note), fmt, ap);
	va_end(ap);
	buf_printf(notes, "%s%s", notes->len ? "; " : "", note);
}

void report_sampling(const struct options *o, char *buf, size_t bytes)
{
	static const char *const roots[] = { "all", "none" };
	struct buf b = { 0 }, notes = { 0 };

	if (o->sampler_root < 2)
		buf_printf(&b, "%s", roots[o->sampler_root]);
	else
		buf_printf(&b, "%.6g", o->sampler_ratio);
	if (!o->sampler_parent_based)
		add_note(&notes, "whatever the caller decided");
	if (o->root_limit)
		add_note(&notes, "at most %" PRIu32 " new traces/s of a service", o->root_limit);
	if (o->keep_errors)
		add_note(&notes, "failed requests always");
	if (o->keep_slow_ms)
		add_note(&notes, "requests of %" PRIu64 " ms and longer always", o->keep_slow_ms);
	if (notes.len)
		buf_printf(&b, " (%s)", buf_cstr(&notes));
	buf_free(&notes);
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
