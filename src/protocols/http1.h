/* HTTP/1.0 and 1.1 (RFC 9112), both sides. It follows message framing and builds one span for each
 * request. */
#ifndef PROTOCOLS_HTTP1_H
#define PROTOCOLS_HTTP1_H

#include "trace/protocol.h"

extern const struct protocol http1_protocol;

#endif
