/*
 * Requests to one URL through libcurl's multi interface, driven by the agent's epoll loop: it owns
 * the connections, the handles and the answers' bytes, and bounds them. It never blocks (names are
 * resolved by libcurl's own thread) and knows nothing of spans or of what an answer means.
 */
#ifndef EXPORT_OTLP_TRANSPORT_H
#define EXPORT_OTLP_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "export/exporter.h"
#include "export/otlp_answer.h"

struct otlp_transport;

/* The request tagged `tag` is over; may call otlp_transport_send. */
typedef void (*otlp_done)(void *ctx, void *tag, const struct otlp_answer *answer, uint64_t now_ns);

/*
 * Endpoint, headers, timeout, certificates from `options` (borrowed for the call); `loop` and
 * `variant` are borrowed. NULL with *ret_error (malloc'd): what can't be carried out, why, what to
 * do.
 */
struct otlp_transport *otlp_transport_new(const struct options *options,
					  const struct otlp_variant *variant,
					  const struct exporter_loop *loop, otlp_done done,
					  void *ctx, char **ret_error);
/* Cuts off what is in flight, without calling done. Takes NULL. */
void otlp_transport_free(struct otlp_transport *t);
/* The URL without user, password and query, for messages. */
const char *otlp_transport_url(const struct otlp_transport *t);

/* False when as many requests are in flight as may be, or out of memory. `body` must live until
 * done. */
bool otlp_transport_send(struct otlp_transport *t, struct slice body, void *tag, uint64_t now_ns);
unsigned int otlp_transport_in_flight(const struct otlp_transport *t);
bool otlp_transport_full(const struct otlp_transport *t);

void otlp_transport_ready(struct otlp_transport *t, int fd, uint32_t events, uint64_t now_ns);
void otlp_transport_tick(struct otlp_transport *t, uint64_t now_ns);
/* UINT64_MAX: no need. */
uint64_t otlp_transport_next_tick(const struct otlp_transport *t);

#endif
