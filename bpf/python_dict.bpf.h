/*
 * Objects that the frames of a CPython process hold: the entries of a dict's keys, and the content
 * of a short str, by the layout of the process's version. Invariant: what an address leads to may
 * be anything, so every length is bounded and every read can fail.
 */
#ifndef SPANLOOM_PYTHON_DICT_BPF_H
#define SPANLOOM_PYTHON_DICT_BPF_H

#include "python.bpf.h"

enum { DICT_CHUNK = 4, DICT_ENTRY_BYTES_MAX = 24 };
enum { STR_LENGTH = 16, STR_STATE = 32 }; /* of PyASCIIObject, all versions */

/* The entries of a dict's keys. */
struct dict_entries {
	u64 at;
	u32 count, bytes; /* bytes of each: hash (not always), key, value */
};

static __noinline int dict_entries_of(const struct python_layout *l, u64 dict,
				      struct dict_entries *ret)
{
	enum { OLD_HEAD = 40, NEW_HEAD = 32 };
	u64 keys = user_word(dict + l->dict_keys), head[5] = {}, size;
	u64 bytes = l->keys == PYTHON_KEYS_OLD ? OLD_HEAD : NEW_HEAD;

	if (!keys || bpf_probe_read_user(head, bytes, (const void *)keys))
		return -1;
	if (l->keys == PYTHON_KEYS_OLD) {
		size = head[1];
		if (size > 0xffff)
			return -1;
		ret->at = keys + OLD_HEAD + size * (size > 0xff ? 2 : 1);
		ret->count = head[4];
		ret->bytes = DICT_ENTRY_BYTES_MAX;
	} else {
		/* The second word: log2_size, log2_index_bytes, kind. */
		ret->at = keys + NEW_HEAD + (1ull << (head[1] >> 8 & 31));
		ret->count = head[3];
		ret->bytes = head[1] >> 16 & 0xff ? 16 : DICT_ENTRY_BYTES_MAX;
	}
	return 0;
}

/*
 * Copies an ASCII str of at most `max` bytes (a constant); its length. -1: it isn't one, or is too
 * long. The characters lie behind the head, which has one word more up to 3.11.
 */
static __always_inline int python_ascii(const struct python_layout *l, u64 str, u8 *to, u64 max)
{
	enum { HEAD = 40, HEAD_OLD = 48, ASCII = 1 << 6 };
	u64 data = str + (l->values <= PYTHON_VALUES_BEFORE ? HEAD_OLD : HEAD), head[3] = {};
	u64 length;

	if (bpf_probe_read_user(head, sizeof(head), (const void *)(str + STR_LENGTH)) ||
	    !(head[(STR_STATE - STR_LENGTH) / 8] & ASCII))
		return -1;
	length = head[0];
	barrier_var(length); /* what is compared is what is used */
	if (length > max)
		return -1;
	if (length && bpf_probe_read_user(to, length, (const void *)data))
		return -1;
	return length;
}

#endif
