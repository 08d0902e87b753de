/*
 * What must not leave the machine: user info in URLs and the values of query keys that carry
 * secrets are written as REDACTED. Everything else is copied as it stands, up to a limit that the
 * caller names. Pure.
 */
#ifndef TRACE_REDACT_H
#define TRACE_REDACT_H

#include "base/buf.h"
#include "base/slice.h"

/* Is the value of this query key (as on the wire, percent-encoded or not) a secret? */
bool redact_is_secret_key(struct slice key);
/*
 * Appends a query (without the '?'), secret values replaced, at most `max` bytes of it. A pair that
 * is cut off by `max` is judged by its whole key.
 */
void redact_query(struct buf *out, struct slice query, size_t max);
/*
 * Appends an absolute URL or a path, with a query or without, user info and secret query values
 * replaced, at most about `max` bytes.
 */
void redact_url(struct buf *out, struct slice url, size_t max);

#endif
