/* OTLP over gRPC, as far as it is noticed: a client that sends spans to a collector. Nothing else
 * of HTTP/2 is read. */
#ifndef PROTOCOLS_OTLP_GRPC_H
#define PROTOCOLS_OTLP_GRPC_H

#include "trace/protocol.h"

extern const struct protocol otlp_grpc_protocol;

#endif
