#include "probe/ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "event.h"
#include "probe/hooks.h"
#include "probe/inject.h"

/*
 * What the frames told, until the record comes that it belongs to. `site` and `route` are borrowed
 * by the sink for one call.
 */
struct frames {
	bool has_site, has_route;
	struct runtime_site site;
	struct runtime_route route;
	char root_path[ROOT_PATH_MAX];
};

/* More wait only when something is wrong: nobody sends what was written. */
enum { FRAMES_WAITING_MAX = 65536 };

/* Connections have small numbers. */
static uint64_t thread_key(uint32_t tid)
{
	return 1ull << 63 | tid;
}

static void frames_forget(struct ring_reader *r)
{
	size_t pos = 0;
	void *value;
	uint64_t key;

	while (hash_next(&r->frames, &pos, &key, &value))
		free(value);
	hash_free(&r->frames);
}

void ring_reader_free(struct ring_reader *r)
{
	frames_forget(r);
}

/* Those of the next record of `key`; NULL when out of memory. */
static struct frames *frames_of(struct ring_reader *r, uint64_t key)
{
	struct frames *f = hash_get(&r->frames, key);

	if (f)
		return f;
	if (r->frames.count >= FRAMES_WAITING_MAX) {
		stats_drop(r->stats, DROP_LATE_WRITE_LOST, r->frames.count);
		frames_forget(r);
	}
	f = calloc(1, sizeof(*f));
	if (f && !hash_put(&r->frames, key, f)) {
		free(f);
		f = NULL;
	}
	if (!f)
		stats_drop(r->stats, DROP_NO_MEMORY, 1);
	return f;
}

/* The caller frees them. NULL: none told. */
static struct frames *frames_take(struct ring_reader *r, uint64_t key)
{
	return r->frames.count ? hash_remove(&r->frames, key) : NULL;
}

static const struct runtime_site *frames_site(const struct frames *f)
{
	return f && f->has_site ? &f->site : NULL;
}

/* Says that records are missing as soon as one tells of it. What was told of a record that may be
 * among them would be taken for another's. */
static void check_losses(struct ring_reader *r, uint32_t losses, uint64_t ts_ns)
{
	if (losses == r->losses)
		return;
	r->losses = losses;
	frames_forget(r);
	r->sink->lost(r->sink->ctx, ts_ns);
}

static void codes_unknown(struct ring_reader *r, uint32_t pid, const uint64_t *codes, uint8_t count)
{
	uint8_t i;

	for (i = 0; r->sink->code_unknown && i < count && i < SITE_UNKNOWN_MAX; i++)
		r->sink->code_unknown(r->sink->ctx, pid, codes[i]);
}

static bool is_v4_mapped(const uint8_t *address)
{
	static const uint8_t prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(address, prefix, sizeof(prefix)) == 0;
}

/* What is no address and port is no client. */
static struct runtime_client client_from(const struct site_record *rec)
{
	char host[CLIENT_HOST_MAX + 1] = "", port[sizeof(rec->client_port) + 1] = "", *end;
	struct runtime_client c = { 0 };
	unsigned long number;

	if (!rec->client_len || rec->client_len > CLIENT_HOST_MAX ||
	    rec->client_port_len > sizeof(rec->client_port))
		return c;
	memcpy(host, rec->client, rec->client_len);
	memcpy(port, rec->client_port, rec->client_port_len);
	number = strtoul(port, &end, 10);
	if (*end || !number || number > UINT16_MAX || port[0] < '0' || port[0] > '9')
		return c;
	c.port = (uint16_t)number;
	c.known = inet_pton(AF_INET, host, c.address) == 1;
	if (c.known)
		return c;
	c.known = c.v6 = inet_pton(AF_INET6, host, c.address) == 1;
	if (c.known && is_v4_mapped(c.address)) {
		c.v6 = false;
		memmove(c.address, c.address + 12, 4);
		memset(c.address + 4, 0, sizeof(c.address) - 4);
	}
	return c;
}

static void site_record(struct ring_reader *r, const struct site_record *rec)
{
	struct frames *f;
	uint32_t i;

	if (rec->span_count > SITE_SPANS_MAX || rec->unknown_count > SITE_UNKNOWN_MAX) {
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
		return;
	}
	check_losses(r, rec->losses, rec->ts_ns);
	f = frames_of(r, rec->conn_id ? rec->conn_id : thread_key(rec->tid));
	if (f) {
		f->has_site = true;
		f->site = (struct runtime_site){
			.work = rec->work,
			.caller = rec->caller,
			.pooled = rec->flags & SITE_POOLED,
			.cut = rec->flags & SITE_CUT,
			.nobody = rec->flags & SITE_NOBODY,
			.span_count = rec->span_count,
			.client = client_from(rec),
		};
		for (i = 0; i < rec->span_count; i++)
			f->site.spans[i] = (struct runtime_span){
				.frame = rec->spans[i].frame,
				.args = rec->spans[i].args,
				.code = rec->spans[i].code,
				.rule = rec->spans[i].rule,
			};
	}
	codes_unknown(r, rec->pid, rec->unknown, rec->unknown_count);
}

static void route_record(struct ring_reader *r, const struct route_record *rec)
{
	struct frames *f;

	if (rec->root_path_len > ROOT_PATH_MAX || rec->unknown_count > SITE_UNKNOWN_MAX) {
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
		return;
	}
	check_losses(r, rec->losses, rec->ts_ns);
	f = frames_of(r, rec->conn_id ? rec->conn_id : thread_key(rec->tid));
	if (f) {
		memcpy(f->root_path, rec->root_path, sizeof(f->root_path));
		f->has_route = true;
		f->route = (struct runtime_route){
			.scope = rec->scope,
			.route = rec->route,
			.route_context = rec->route_context,
			.endpoint = rec->endpoint,
			.router = rec->router,
			.root_path = f->root_path,
			.root_path_len = rec->root_path_len,
		};
	}
	codes_unknown(r, rec->pid, rec->unknown, rec->unknown_count);
}

static void context_record(struct ring_reader *r, const struct context_record *rec)
{
	static const enum context_event_kind kinds[] = {
		[CONTEXT_COPIED] = CONTEXT_EVENT_COPIED,
		[CONTEXT_SUBMITTED] = CONTEXT_EVENT_SUBMITTED,
		[CONTEXT_BORN] = CONTEXT_EVENT_BORN,
		[CONTEXT_UNKNOWN] = CONTEXT_EVENT_UNKNOWN,
	};
	struct frames *f;

	if (rec->what < CONTEXT_COPIED || rec->what > CONTEXT_UNKNOWN) {
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
		return;
	}
	check_losses(r, rec->losses, rec->ts_ns);
	f = frames_take(r, thread_key(rec->tid));
	if (r->sink->context)
		r->sink->context(r->sink->ctx, &(struct context_event){
						       .kind = kinds[rec->what],
						       .ts_ns = rec->ts_ns,
						       .pid = rec->pid,
						       .tid = rec->tid,
						       .context = rec->context,
						       .object = rec->object,
						       .turn = rec->turn,
						       .site = frames_site(f),
						       .root_of = rec->root_of,
						       .bound = rec->bound,
					       });
	free(f);
}

static void native_span_record(struct ring_reader *r, const struct native_span_record *rec)
{
	const struct native_span_event ev = {
		.ts_ns = rec->ts_ns,
		.pid = rec->pid,
		.tid = rec->tid,
		.rule = rec->rule,
		.left = rec->left,
		.context = rec->context,
		.stack = rec->stack,
		.turn = rec->turn,
	};

	check_losses(r, rec->losses, rec->ts_ns);
	if (r->sink->native_span)
		r->sink->native_span(r->sink->ctx, &ev);
}

/* Bit by bit, so that neither side's numbers depend on the other's. */
static uint32_t request_flags(uint8_t flags)
{
	return (flags & REQUEST_SERVER ? REQUEST_EVENT_SERVER : 0u) |
	       (flags & REQUEST_SAMPLED ? REQUEST_EVENT_SAMPLED : 0u) |
	       (flags & REQUEST_REMOTE ? REQUEST_EVENT_REMOTE : 0u) |
	       (flags & REQUEST_JOINED ? REQUEST_EVENT_JOINED : 0u) |
	       (flags & REQUEST_BOUND ? REQUEST_EVENT_BOUND : 0u) |
	       (flags & REQUEST_FIXED ? REQUEST_EVENT_FIXED : 0u) |
	       (flags & REQUEST_INJECTED ? REQUEST_EVENT_INJECTED : 0u) |
	       (flags & REQUEST_OWN ? REQUEST_EVENT_OWN : 0u);
}

static void request_record(struct ring_reader *r, const struct request_record *rec)
{
	struct request_event ev = {
		.ts_ns = rec->ts_ns,
		.conn_id = rec->conn_id,
		.pid = rec->pid,
		.tid = rec->tid,
		.flags = request_flags(rec->flags),
		.added = rec->added,
		.tcp_seq = rec->tcp_seq,
		.tcp_peer_seq = rec->tcp_peer_seq,
		.trace_flags = rec->trace_flags,
	};

	memcpy(ev.trace_id, rec->trace_id, sizeof(ev.trace_id));
	memcpy(ev.span_id, rec->span_id, sizeof(ev.span_id));
	memcpy(ev.parent_span_id, rec->parent_span_id, sizeof(ev.parent_span_id));
	check_losses(r, rec->losses, rec->ts_ns);
	if (ev.flags & REQUEST_EVENT_INJECTED)
		stats_add(r->stats, STATS_INJECTED, 1);
	if (r->sink->request)
		r->sink->request(r->sink->ctx, &ev);
}

static void io_record(struct ring_reader *r, const struct io_record *rec, size_t size)
{
	struct io_event ev = {
		.ts_ns = rec->ts_ns,
		.conn_id = rec->conn_id,
		.pid = rec->pid,
		.tid = rec->tid,
		.dir = rec->flags & IO_RECORD_SEND ? IO_SEND : IO_RECV,
		.flags = (rec->flags & IO_RECORD_NONBLOCK ? IO_NONBLOCK : 0u) |
			 (rec->flags & IO_RECORD_SAME_CALL ? IO_SAME_CALL : 0u) |
			 (rec->flags & IO_RECORD_LOST ? IO_LOST : 0u) |
			 (rec->flags & IO_RECORD_RUNTIME ? IO_RUNTIME : 0u),
		.captured = rec->captured,
		.data = (const uint8_t *)(rec + 1),
		.tcp_seq = rec->tcp_seq,
		.tcp_peer_seq = rec->tcp_peer_seq,
		.turn = rec->turn,
		.context = rec->context,
	};
	bool late = rec->flags & IO_RECORD_LATE;
	struct frames *f;

	if (rec->result < 0)
		ev.error = rec->result;
	else
		ev.length = (uint32_t)rec->result;
	if (ev.captured > size - sizeof(*rec) || ev.captured > ev.length) {
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
		return;
	}
	check_losses(r, rec->losses, rec->ts_ns);
	f = rec->flags & IO_RECORD_LOST
		    ? NULL
		    : frames_take(r, late ? rec->conn_id : thread_key(rec->tid));
	ev.site = frames_site(f);
	ev.route = f && f->has_route ? &f->route : NULL;
	r->sink->io(r->sink->ctx, &ev);
	free(f);
}

/* ::ffff:a.b.c.d is IPv4 on the wire. */
static void unmap_v4(struct conn_info *info)
{
	if (!is_v4_mapped(info->peer))
		return;
	info->family = CONN_INET;
	memmove(info->peer, info->peer + 12, 4);
	memmove(info->local, info->local + 12, 4);
}

static void unix_path(struct conn_info *info, const struct conn_record *rec)
{
	size_t len = rec->path_len < sizeof(rec->path) ? rec->path_len : sizeof(rec->path);

	if (!len)
		return;
	/* An abstract name begins with a NUL and is as long as it says; a path ends at its NUL. */
	if (rec->path[0] == '\0') {
		info->path[0] = '@';
		len = len < sizeof(info->path) ? len : sizeof(info->path) - 1;
		memcpy(info->path + 1, rec->path + 1, len - 1);
		return;
	}
	snprintf(info->path, sizeof(info->path), "%.*s", (int)len, (const char *)rec->path);
}

/* The kernel's names of the two ends stand where addresses do in other families. */
static void unix_ends(struct conn_info *info)
{
	memcpy(&info->socket, info->local, sizeof(info->socket));
	memcpy(&info->peer_socket, info->peer, sizeof(info->peer_socket));
	memset(info->local, 0, sizeof(info->local));
	memset(info->peer, 0, sizeof(info->peer));
}

static int conn_info_from(const struct conn_record *rec, struct conn_info *ret)
{
	*ret = (struct conn_info){
		.ts_ns = rec->ts_ns,
		.conn_id = rec->conn_id,
		.pid = rec->pid,
		.tid = rec->tid,
		.flags = (rec->flags & CONN_RECORD_FRESH ? CONN_FRESH : 0u) |
			 (rec->flags & CONN_RECORD_ACTIVE ? CONN_ACTIVE : 0u) |
			 (rec->flags & CONN_RECORD_PASSIVE ? CONN_PASSIVE : 0u),
		.local_port = rec->local_port,
		.peer_port = rec->peer_port,
		.turn = rec->turn,
		.connect_turn = rec->connect_turn,
		.connect_context = rec->connect_context,
	};
	memcpy(ret->local, rec->local, sizeof(ret->local));
	memcpy(ret->peer, rec->peer, sizeof(ret->peer));
	switch (rec->family) {
	case AF_INET:
		ret->family = CONN_INET;
		return 0;
	case AF_INET6:
		ret->family = CONN_INET6;
		unmap_v4(ret);
		return 0;
	case AF_UNIX:
		ret->family = CONN_UNIX;
		unix_ends(ret);
		unix_path(ret, rec);
		return 0;
	default:
		return -EINVAL;
	}
}

static void conn_record(struct ring_reader *r, const struct conn_record *rec)
{
	struct connect_failure f = { .end_ns = rec->end_ns,
				     .error = rec->error ? rec->error : -ECANCELED };

	if (conn_info_from(rec, &f.conn)) {
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
		return;
	}
	check_losses(r, rec->losses, rec->ts_ns);
	if (f.error > 0) /* sk_err is positive */
		f.error = -f.error;
	if (rec->type == RECORD_CONN_OPEN)
		r->sink->conn_open(r->sink->ctx, &f.conn);
	else
		r->sink->connect_failed(r->sink->ctx, &f);
}

static void task_record(struct ring_reader *r, const struct task_record *rec)
{
	const struct probe_sink *s = r->sink;

	check_losses(r, rec->losses, rec->ts_ns);
	switch (rec->type) {
	case RECORD_CONN_CLOSE:
		free(frames_take(r, rec->conn_id));
		s->conn_close(s->ctx, rec->conn_id, rec->ts_ns);
		break;
	case RECORD_THREAD_START:
		s->thread_start(s->ctx, rec->pid, rec->tid, rec->parent, rec->ts_ns);
		break;
	case RECORD_THREAD_EXIT:
		free(frames_take(r, thread_key(rec->tid)));
		s->thread_exit(s->ctx, rec->pid, rec->tid, rec->ts_ns);
		break;
	case RECORD_PROCESS_FORK:
		s->process_fork(s->ctx, rec->pid, rec->parent);
		break;
	case RECORD_RELEASE:
		inject_release(r->inject, rec->conn_id);
		break;
	case RECORD_PROCESS_EXEC:
		hooks_forget(r->hooks, rec->pid);
		inject_execs(r->inject, rec->pid);
		s->process_exec(s->ctx, rec->pid);
		break;
	case RECORD_PROCESS_EXIT:
		hooks_forget(r->hooks, rec->pid);
		s->process_exit(s->ctx, rec->pid, rec->ts_ns);
		break;
	case RECORD_PROCESS_CGROUP:
		s->process_cgroup(s->ctx, rec->pid);
		break;
	case RECORD_LISTEN:
		s->listen(s->ctx, rec->pid, (uint16_t)rec->parent);
		break;
	default:
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
	}
}

void ring_record(struct ring_reader *r, const void *data, size_t size)
{
	uint8_t type = size ? *(const uint8_t *)data : 0;

	stats_add(r->stats, STATS_EVENTS, 1);
	if (type == RECORD_IO && size >= sizeof(struct io_record))
		io_record(r, data, size);
	else if ((type == RECORD_CONN_OPEN || type == RECORD_CONNECT_FAILED) &&
		 size >= sizeof(struct conn_record))
		conn_record(r, data);
	else if (type == RECORD_SITE && size >= sizeof(struct site_record))
		site_record(r, data);
	else if (type == RECORD_ROUTE && size >= sizeof(struct route_record))
		route_record(r, data);
	else if (type == RECORD_CONTEXT && size >= sizeof(struct context_record))
		context_record(r, data);
	else if (type == RECORD_NATIVE_SPAN && size >= sizeof(struct native_span_record))
		native_span_record(r, data);
	else if (type == RECORD_REQUEST && size >= sizeof(struct request_record))
		request_record(r, data);
	else if (size >= sizeof(struct task_record))
		task_record(r, data);
	else
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
}
