/*
 * Redis (RESP2 and RESP3, https://redis.io/docs/latest/develop/reference/protocol-spec/), both
 * sides: one span for each command, one for each pipeline and each MULTI … EXEC that is sent as one
 * batch.
 */
#ifndef PROTOCOLS_REDIS_H
#define PROTOCOLS_REDIS_H

#include "trace/protocol.h"

extern const struct protocol redis_protocol;

#endif
