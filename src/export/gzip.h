/* gzip (RFC 1952) in memory, one state used again for every message. */
#ifndef EXPORT_GZIP_H
#define EXPORT_GZIP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/slice.h"

struct gzip;

/* NULL when out of memory. */
struct gzip *gzip_new(void);
/* Takes NULL. */
void gzip_free(struct gzip *g);
/* Appends `data` compressed; false when out of memory, *out may then hold a part. */
bool gzip_append(struct gzip *g, struct slice data, struct buf *out);

#endif
