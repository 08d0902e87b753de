/*
 * The sockets that libcurl wants watched. Owns a brake: libcurl (7.88 at least) asks for POLLOUT
 * while HTTP/2's flow control forbids it to send, and would be called for ever by a collector that
 * takes a connection and then reads nothing. Refuses nothing: a socket beyond the last place is
 * watched without the brake.
 */
#ifndef EXPORT_OTLP_SOCKETS_H
#define EXPORT_OTLP_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>

#include "export/exporter.h"

enum { OTLP_SOCKETS_MAX = 8 };

struct otlp_socket {
	bool used;
	int fd;
	uint32_t events;    /* as libcurl wants them */
	unsigned int idle;  /* calls in a row that moved nothing */
	uint64_t resume_ns; /* when EPOLLOUT is watched again; UINT64_MAX: it is */
};

struct otlp_sockets {
	struct exporter_loop loop;
	struct otlp_socket all[OTLP_SOCKETS_MAX];
};

/* libcurl wants these epoll events of `fd`, 0: none any more. As exporter_loop.watch. */
int otlp_sockets_want(struct otlp_sockets *s, int fd, uint32_t events);
/* libcurl was told of `events`; `moved`: it has sent something since. */
void otlp_sockets_told(struct otlp_sockets *s, int fd, uint32_t events, bool moved,
		       uint64_t now_ns);
/* Watches again what has rested long enough. */
void otlp_sockets_tick(struct otlp_sockets *s, uint64_t now_ns);
/* When the next tick is due; UINT64_MAX: never. */
uint64_t otlp_sockets_next_tick(const struct otlp_sockets *s);

#endif
