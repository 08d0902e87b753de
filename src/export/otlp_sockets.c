/*
 * The brake of otlp_sockets.h: after IDLE_MAX calls that moved nothing a socket rests for REST_NS.
 * What can be read (a WINDOW_UPDATE) ends the rest at once.
 */
#include "export/otlp_sockets.h"

#include <sys/epoll.h>

#define REST_NS 20000000ull

enum { IDLE_MAX = 8 };

static struct otlp_socket *find(struct otlp_sockets *s, int fd, bool add)
{
	struct otlp_socket *place = NULL;
	int i;

	for (i = 0; i < OTLP_SOCKETS_MAX; i++) {
		if (s->all[i].used && s->all[i].fd == fd)
			return &s->all[i];
		if (!s->all[i].used)
			place = &s->all[i];
	}
	if (!add || !place)
		return NULL;
	*place = (struct otlp_socket){ .used = true, .fd = fd };
	return place;
}

int otlp_sockets_want(struct otlp_sockets *s, int fd, uint32_t events)
{
	struct otlp_socket *e = find(s, fd, events != 0);

	if (e) {
		e->used = events != 0;
		e->events = events;
		e->idle = 0;
		e->resume_ns = UINT64_MAX;
	}
	return s->loop.watch(s->loop.ctx, fd, events);
}

static void resume(struct otlp_sockets *s, struct otlp_socket *e)
{
	if (e->resume_ns == UINT64_MAX)
		return;
	e->resume_ns = UINT64_MAX;
	s->loop.watch(s->loop.ctx, e->fd, e->events);
}

void otlp_sockets_told(struct otlp_sockets *s, int fd, uint32_t events, bool moved, uint64_t now_ns)
{
	struct otlp_socket *e = find(s, fd, false);

	if (!e)
		return;
	if (moved || events != EPOLLOUT) {
		e->idle = 0;
		resume(s, e);
	} else if (++e->idle >= IDLE_MAX) {
		e->resume_ns = now_ns + REST_NS;
		s->loop.watch(s->loop.ctx, fd, e->events & ~(uint32_t)EPOLLOUT);
	}
}

void otlp_sockets_tick(struct otlp_sockets *s, uint64_t now_ns)
{
	int i;

	for (i = 0; i < OTLP_SOCKETS_MAX; i++) {
		struct otlp_socket *e = &s->all[i];

		if (!e->used || e->resume_ns > now_ns)
			continue;
		e->idle = IDLE_MAX - 1; /* one look is enough */
		resume(s, e);
	}
}

uint64_t otlp_sockets_next_tick(const struct otlp_sockets *s)
{
	uint64_t next = UINT64_MAX;
	int i;

	for (i = 0; i < OTLP_SOCKETS_MAX; i++) {
		if (s->all[i].used && s->all[i].resume_ns < next)
			next = s->all[i].resume_ns;
	}
	return next;
}
