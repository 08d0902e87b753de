#include "probe/ring.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "event.h"

/* Says that records are missing as soon as one tells of it. */
static void check_losses(struct ring_reader *r, uint32_t losses, uint64_t ts_ns)
{
	if (losses == r->losses)
		return;
	r->losses = losses;
	r->sink->lost(r->sink->ctx, ts_ns);
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
			 (rec->flags & IO_RECORD_LOST ? IO_LOST : 0u),
		.captured = rec->captured,
		.data = (const uint8_t *)(rec + 1),
		.tcp_seq = rec->tcp_seq,
		.tcp_peer_seq = rec->tcp_peer_seq,
		.turn = rec->turn,
	};

	if (rec->result < 0)
		ev.error = rec->result;
	else
		ev.length = (uint32_t)rec->result;
	if (ev.captured > size - sizeof(*rec) || ev.captured > ev.length) {
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
		return;
	}
	check_losses(r, rec->losses, rec->ts_ns);
	r->sink->io(r->sink->ctx, &ev);
}

/* ::ffff:a.b.c.d is IPv4 on the wire. */
static void unmap_v4(struct conn_info *info)
{
	static const uint8_t prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	if (memcmp(info->peer, prefix, sizeof(prefix)) != 0)
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
		s->conn_close(s->ctx, rec->conn_id, rec->ts_ns);
		break;
	case RECORD_THREAD_START:
		s->thread_start(s->ctx, rec->pid, rec->tid, rec->parent, rec->ts_ns);
		break;
	case RECORD_THREAD_EXIT:
		s->thread_exit(s->ctx, rec->pid, rec->tid, rec->ts_ns);
		break;
	case RECORD_PROCESS_FORK:
		s->process_fork(s->ctx, rec->pid, rec->parent);
		break;
	case RECORD_PROCESS_EXEC:
		s->process_exec(s->ctx, rec->pid);
		break;
	case RECORD_PROCESS_EXIT:
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
	else if (size >= sizeof(struct task_record))
		task_record(r, data);
	else
		stats_drop(r->stats, DROP_BAD_RECORD, 1);
}
