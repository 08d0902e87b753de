#include "protocols/protocols.h"

#include "protocols/http1.h"
#include "protocols/otlp_grpc.h"
#include "protocols/redis.h"

const struct protocol *const protocols_all[] = { &http1_protocol, &redis_protocol,
						 &otlp_grpc_protocol, NULL };
