/*
 * Reads plain objects of a live CPython: memory, str, tuple, list, types. It owns nothing and keeps
 * nothing. It refuses what is not of the expected kind, and lengths no such object has. Layouts:
 * CPython's Include/cpython (unicodeobject.h, tupleobject.h, listobject.h, object.h), 3.9 to 3.14;
 * what differs between versions comes from the table of offsets.
 */
#include "runtimes/python_object.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

enum {
	ADDRESS_MIN = 4096,
	ADDRESS_BITS = 56, /* arm64 with 52-bit and x86-64 with 57-bit addresses, user half */
	READ_MANY_MAX = 128,
	STR_LENGTH = 16,
	STR_STATE = 32,
	STR_HEAD = 40,
	STR_FIRST = 160, /* with the characters of most */
	LIST_ITEMS = 24,
	TUPLE_ITEMS = 24,
	TUPLE_ITEMS_3_14 = 32, /* behind ob_hash */
	ITEMS_MAX = 65536,
	TUPLE_MAX = 4096,
	METHODS_MAX = 256,
	TYPE_NAME_STEP = 32,
};

/* struct _PyUnicodeObject_state: interned 2 bits, kind 3, compact 1, ascii 1. */
#define STATE_INTERNED(state) ((state)&3)
#define STATE_KIND(state) ((state) >> 2 & 7)
#define STATE_COMPACT(state) ((state) >> 5 & 1)
#define STATE_ASCII(state) ((state) >> 6 & 1)

/* PyMethodDef. */
struct method_def {
	uint64_t name, function;
	uint64_t flags; /* an int and its padding */
	uint64_t doc;
};

static bool address_ok(uint64_t address, size_t bytes)
{
	return address >= ADDRESS_MIN && address >> ADDRESS_BITS == 0 && bytes < 1UL << 32;
}

bool python_read(const struct python *p, uint64_t address, void *ret, size_t bytes)
{
	struct iovec local = { .iov_base = ret, .iov_len = bytes };
	struct iovec remote = { .iov_base = (void *)(uintptr_t)address, .iov_len = bytes };

	if (!address_ok(address, bytes) || !python_budget_take(p, 1))
		return false;
	return process_vm_readv((pid_t)p->base.pid, &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

uint64_t python_pointer(const struct python *p, uint64_t address)
{
	uint64_t value = 0;

	return python_read(p, address, &value, sizeof(value)) ? value : 0;
}

void python_read_many(const struct python *p, const uint64_t *addresses, size_t count, void *ret,
		      size_t bytes)
{
	struct iovec remote[READ_MANY_MAX];
	struct iovec local = { .iov_base = ret, .iov_len = count * bytes };
	ssize_t got;

	memset(ret, 0, count * bytes);
	if (count > READ_MANY_MAX)
		count = READ_MANY_MAX;
	if (!python_budget_take(p, count))
		return;
	for (size_t i = 0; i < count; i++)
		remote[i] = (struct iovec){ .iov_base = (void *)(uintptr_t)addresses[i],
					    .iov_len = bytes };
	got = process_vm_readv((pid_t)p->base.pid, &local, 1, remote, count, 0);
	if (got == (ssize_t)(count * bytes))
		return;
	/* one that can't be read ends the call: the rest one by one */
	for (size_t i = got < 0 ? 0 : (size_t)got / bytes; i < count; i++)
		if (!python_read(p, addresses[i], (uint8_t *)ret + i * bytes, bytes))
			memset((uint8_t *)ret + i * bytes, 0, bytes);
}

uint64_t python_type(const struct python *p, uint64_t object)
{
	return object ? python_pointer(p, object + PYTHON_OBJECT_TYPE) : 0;
}

bool python_is(const struct python *p, uint64_t object, enum python_subclass kind)
{
	uint64_t type = python_type(p, object), flags = 0;

	if (!type)
		return false;
	if ((kind == PYTHON_STR && type == p->str_type) ||
	    (kind == PYTHON_DICT && type == p->dict_type) ||
	    (kind == PYTHON_TUPLE && type == p->tuple_type))
		return true;
	return python_read(p, type + p->offsets.type_flags, &flags, sizeof(flags)) &&
	       (flags & (uint32_t)kind);
}

/* --- str -------------------------------------------------------------------------------------- */

/* A str's head, and what stands behind it as far as it could be read at once. */
struct str_head {
	uint8_t bytes[STR_FIRST];
	size_t got;
};

static uint64_t head_u64(const struct str_head *h, size_t at)
{
	uint64_t v;

	memcpy(&v, h->bytes + at, sizeof(v));
	return v;
}

static uint32_t head_state(const struct str_head *h)
{
	uint32_t v;

	memcpy(&v, h->bytes + STR_STATE, sizeof(v));
	return v;
}

static bool str_head_read(const struct python *p, uint64_t object, struct str_head *ret)
{
	ret->got = STR_FIRST;
	if (!python_read(p, object, ret->bytes, STR_FIRST)) {
		ret->got = STR_HEAD;
		if (!python_read(p, object, ret->bytes, STR_HEAD))
			return false;
	}
	return (head_u64(ret, PYTHON_OBJECT_TYPE) == p->str_type ||
		python_is(p, object, PYTHON_STR));
}

static void append_utf8(struct buf *b, uint32_t c)
{
	if (c < 0x80) {
		buf_append_char(b, (char)c);
	} else if (c < 0x800) {
		buf_append_char(b, (char)(0xc0 | c >> 6));
		buf_append_char(b, (char)(0x80 | (c & 0x3f)));
	} else if (c >= 0xd800 && c < 0xe000) {
		buf_append_str(b, "\xef\xbf\xbd"); /* a lone surrogate has no UTF-8 */
	} else if (c < 0x10000) {
		buf_append_char(b, (char)(0xe0 | c >> 12));
		buf_append_char(b, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_append_char(b, (char)(0x80 | (c & 0x3f)));
	} else {
		buf_append_char(b, (char)(0xf0 | (c >> 18 & 7)));
		buf_append_char(b, (char)(0x80 | (c >> 12 & 0x3f)));
		buf_append_char(b, (char)(0x80 | (c >> 6 & 0x3f)));
		buf_append_char(b, (char)(0x80 | (c & 0x3f)));
	}
}

static void append_characters(struct buf *b, const uint8_t *data, size_t length, size_t width)
{
	for (size_t i = 0; i < length; i++) {
		uint32_t c = 0;

		memcpy(&c, data + i * width, width); /* little endian, as all we run on */
		append_utf8(b, c);
	}
}

bool python_str(const struct python *p, uint64_t object, struct buf *b, size_t limit)
{
	uint8_t data[PYTHON_TEXT_MAX * 4];
	struct str_head head;
	uint64_t length, at;
	uint32_t state, width;
	size_t before = b->len;

	if (!str_head_read(p, object, &head))
		return false;
	length = head_u64(&head, STR_LENGTH);
	state = head_state(&head);
	width = STATE_KIND(state);
	if (length > limit || length > PYTHON_TEXT_MAX || (width != 1 && width != 2 && width != 4))
		return false;
	if (!STATE_COMPACT(state))
		at = python_pointer(p, object + p->offsets.str_compact);
	else
		at = object + (STATE_ASCII(state) ? p->offsets.str_ascii : p->offsets.str_compact);
	at -= object;
	if (at < head.got && length * width <= head.got - at)
		memcpy(data, head.bytes + at, length * width);
	else if (length && !python_read(p, object + at, data, length * width))
		return false;
	append_characters(b, data, length, width);
	if (b->failed)
		return false;
	if (b->len > before &&
	    (b->len - before > limit || memchr(b->data + before, 0, b->len - before))) {
		b->len = before;
		return false;
	}
	return true;
}

bool python_str_equals(const struct python *p, uint64_t object, const char *text)
{
	char got[PYTHON_TEXT_MAX];
	struct str_head head;
	size_t length = strlen(text);
	uint32_t state;

	if (length >= sizeof(got) || !str_head_read(p, object, &head) ||
	    head_u64(&head, STR_LENGTH) != length)
		return false;
	state = head_state(&head);
	if (!STATE_COMPACT(state) || !STATE_ASCII(state))
		return false;
	if (p->offsets.str_ascii + length <= head.got)
		return memcmp(head.bytes + p->offsets.str_ascii, text, length) == 0;
	return python_read(p, object + p->offsets.str_ascii, got, length) &&
	       memcmp(got, text, length) == 0;
}

bool python_interned(const struct python *p, uint64_t str)
{
	struct str_head head;

	return str_head_read(p, str, &head) && STATE_INTERNED(head_state(&head));
}

char *python_text(const struct python *p, uint64_t str)
{
	struct buf b = { 0 };
	char *text = NULL;

	if (python_str(p, str, &b, PYTHON_TEXT_MAX))
		text = strdup(buf_cstr(&b));
	buf_free(&b);
	return text;
}

/* --- sequences -------------------------------------------------------------------------------- */

static size_t items_count(const struct python *p, uint64_t sequence, size_t limit)
{
	uint64_t count = python_pointer(p, sequence + PYTHON_OBJECT_SIZE);

	return count > limit ? limit : count;
}

size_t python_tuple_length(const struct python *p, uint64_t tuple)
{
	return python_is(p, tuple, PYTHON_TUPLE) ? items_count(p, tuple, TUPLE_MAX) : 0;
}

static uint64_t tuple_items(const struct python *p, uint64_t tuple)
{
	return tuple + (p->offsets.version >= 0x30e ? TUPLE_ITEMS_3_14 : TUPLE_ITEMS);
}

uint64_t python_tuple_item(const struct python *p, uint64_t tuple, size_t i)
{
	return i < python_tuple_length(p, tuple) ? python_pointer(p, tuple_items(p, tuple) + 8 * i)
						 : 0;
}

size_t python_sequence_length(const struct python *p, uint64_t sequence)
{
	if (python_is(p, sequence, PYTHON_LIST))
		return items_count(p, sequence, ITEMS_MAX);
	return python_tuple_length(p, sequence);
}

size_t python_sequence_items(const struct python *p, uint64_t sequence, size_t first, uint64_t *ret,
			     size_t count)
{
	size_t length = python_sequence_length(p, sequence);
	uint64_t items;

	if (first >= length)
		return 0;
	if (count > length - first)
		count = length - first;
	items = python_is(p, sequence, PYTHON_LIST) ? python_pointer(p, sequence + LIST_ITEMS)
						    : tuple_items(p, sequence);
	return python_read(p, items + 8 * first, ret, 8 * count) ? count : 0;
}

uint64_t python_sequence_item(const struct python *p, uint64_t sequence, size_t i)
{
	uint64_t item;

	return python_sequence_items(p, sequence, i, &item, 1) ? item : 0;
}

/* --- types ------------------------------------------------------------------------------------ */

/* A C string, cut at `bytes`; read in steps, since what follows it may not be mapped. */
static bool c_string(const struct python *p, uint64_t address, char *ret, size_t bytes)
{
	char text[TYPE_NAME_STEP];
	size_t used = 0;

	while (used + 1 < bytes) {
		size_t step = TYPE_NAME_STEP - address % TYPE_NAME_STEP, n;

		if (step > bytes - 1 - used)
			step = bytes - 1 - used;
		if (!python_read(p, address, text, step))
			return false;
		n = strnlen(text, step);
		memcpy(ret + used, text, n);
		used += n;
		ret[used] = '\0';
		if (n < step)
			return true;
		address += step;
	}
	return used > 0;
}

bool python_class_name(const struct python *p, uint64_t type, char *ret, size_t bytes)
{
	uint64_t name = type ? python_pointer(p, type + p->offsets.type_name) : 0;

	return name && bytes > 1 && c_string(p, name, ret, bytes);
}

bool python_type_name(const struct python *p, uint64_t object, char *ret, size_t bytes)
{
	return python_class_name(p, python_type(p, object), ret, bytes);
}

bool python_type_named(const struct python *p, uint64_t object, const char *name)
{
	char got[64];

	return python_type_name(p, object, got, sizeof(got)) && strcmp(got, name) == 0;
}

uint64_t python_c_method(const struct python *p, uint64_t type, const char *name)
{
	uint64_t defs = python_pointer(p, type + p->offsets.type_methods);
	struct method_def def;
	char got[64];

	for (size_t i = 0; defs && i < METHODS_MAX; i++) {
		if (!python_read(p, defs + i * sizeof(def), &def, sizeof(def)) || !def.name)
			return 0;
		if (c_string(p, def.name, got, sizeof(got)) && strcmp(got, name) == 0)
			return def.function;
	}
	return 0;
}
