/*
 * How the collector is connected to: URL, headers, certificates, protocol, as options of libcurl
 * handles. Checked once at the start, so that what a user got wrong is said then. It owns the
 * header list that its handles borrow.
 */
#ifndef EXPORT_OTLP_CONNECT_H
#define EXPORT_OTLP_CONNECT_H

#include <curl/curl.h>

#include "export/otlp_answer.h"

struct otlp_connect;

/* `options` is borrowed for the call. NULL with *ret_error (malloc'd): what is wrong, why, what to
 * do. */
struct otlp_connect *otlp_connect_new(const struct options *options,
				      const struct otlp_variant *variant, char **ret_error);
/* After all handles are gone. Takes NULL. */
void otlp_connect_free(struct otlp_connect *c);
/* A handle that posts to the collector, the body still to be set; the caller owns it. NULL when out
 * of memory. */
CURL *otlp_connect_handle(const struct otlp_connect *c);
/* Whether the connection of the handle's transfer outlives it: not before the collector has
 * answered on it. libcurl keeps an HTTP/2 connection whose request timed out, and would send
 * the next one into the same silence. */
void otlp_connect_keep(const struct otlp_connect *c, CURL *easy, bool keep);
/* The URL without user, password and query. */
const char *otlp_connect_display(const struct otlp_connect *c);

#endif
