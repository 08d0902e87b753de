/*
 * The bytes of a transfer as requests are looked for in them: its first ones, and those of a head,
 * which are handed to the scan (request_head.bpf.c) buffer by buffer.
 */
#include "connection.bpf.h"
#include "request_head.bpf.h"

/* False: they are not known. */
static __always_inline bool pieces_of(const struct transfer *t, struct pieces *p)
{
	struct user_msghdr msg;

	p->left = t->result;
	p->vector = p->addr = p->count = p->len = 0;
	switch (t->buffers) {
	case BUFFERS_ONE:
		p->addr = t->base;
		p->len = t->result;
		return true;
	case BUFFERS_VECTOR:
		p->vector = t->base;
		p->count = t->len;
		return true;
	case BUFFERS_MESSAGE:
		if (bpf_probe_read_user(&msg, sizeof(msg), (const void *)t->base))
			return false;
		p->vector = msg.msg_iov;
		p->count = msg.msg_iovlen;
		return true;
	}
	return false;
}

/* Goes to the next buffer where the current one is empty. False: it can't be read. */
static __always_inline bool pieces_next(struct pieces *p)
{
	struct iovec iov;

	if (p->len)
		return true;
	if (!p->count || bpf_probe_read_user(&iov, sizeof(iov), (const void *)p->vector))
		return false;
	p->count--;
	p->vector += sizeof(iov);
	p->addr = iov.iov_base;
	p->len = iov.iov_len < p->left ? iov.iov_len : p->left;
	return true;
}

__noinline int transfer_begins(const struct transfer *t, struct first_bytes *ret)
{
	enum { BUFFERS_LOOKED_AT = 4 };
	u64 bytes[2] = {}, n;
	struct pieces p;
	int i;

	if (!t || !ret || !pieces_of(t, &p))
		return 0;
	for (i = 0; i < BUFFERS_LOOKED_AT && !p.len; i++) {
		if (!pieces_next(&p))
			return 0;
	}
	n = p.len < sizeof(bytes) ? p.len : sizeof(bytes);
	barrier_var(n); /* what is compared is what is used */
	if (n > sizeof(bytes) || bpf_probe_read_user(bytes, n, (const void *)p.addr))
		return 0;
	ret->words[0] = bytes[0];
	ret->words[1] = bytes[1];
	return n;
}

/* The next bytes of the head. True: there is no more to do. */
static __always_inline bool head_step(struct head_scan *s)
{
	struct pieces *p = &s->pieces;
	bool again = p->verdict == HEAD_AGAIN;
	u32 n = 0;

	if (!again) {
		if (!p->left || s->found.bytes > HEAD_BYTES_MAX)
			return true;
		if (!pieces_next(p)) {
			p->verdict = HEAD_BAD;
			return true;
		}
		n = p->len < HEAD_CHUNK ? p->len : HEAD_CHUNK;
		p->addr += n;
		p->len -= n;
		p->left -= n;
	}
	if (n || again)
		p->verdict = request_scan(p->addr - n, n);
	return p->verdict != HEAD_MORE && p->verdict != HEAD_AGAIN;
}

__noinline int head_read(const struct transfer *t)
{
	struct head_scan *s = head_scratch();
	int i;

	if (!t || !s || !pieces_of(t, &s->pieces))
		return HEAD_BAD;
	s->pieces.verdict = HEAD_MORE;
	for (i = 0; i < HEAD_PIECES; i++) {
		if (head_step(s))
			break;
	}
	if (s->found.bytes > HEAD_BYTES_MAX || s->pieces.verdict == HEAD_AGAIN ||
	    (s->pieces.verdict == HEAD_MORE && s->pieces.left))
		return HEAD_BAD;
	return s->pieces.verdict;
}

__noinline int head_resume(u64 conn_id)
{
	const struct head_part *part = bpf_map_lookup_elem(&heads, &conn_id);
	struct head_scan *s = head_scratch();

	if (!part || !s)
		return 0;
	s->found = part->found;
	return !bpf_probe_read_kernel(s->data, sizeof(part->line), part->line);
}

__noinline int head_pause(u64 conn_id)
{
	const struct head_scan *s = head_scratch();

	return s && !bpf_map_update_elem(&heads, &conn_id, &s->found, BPF_ANY);
}

__noinline int head_forget(u64 conn_id)
{
	return bpf_map_delete_elem(&heads, &conn_id);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
