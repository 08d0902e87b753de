/*
 * Reads dicts of a live CPython and what is kept in them or beside them: attributes of instances
 * and classes, slots, modules. It keeps nothing. Layouts: Objects/dictobject.c and pycore_dict.h,
 * 3.9 to 3.14 (enum python_keys and python_values name the forms). A dict may change while it is
 * read; then a key is missed or a value is old, and the caller's own checks have to notice.
 */
#include "runtimes/python_object.h"

#include <string.h>

enum {
	DICT_USED = 16,
	DICT_HEAD = 64,
	KEYS_HEAD = 40,
	/* struct _dictkeysobject, 3.9 and 3.10 */
	OLD_SIZE = 8,
	OLD_ENTRY_COUNT = 32,
	OLD_INDICES = 40,
	/* 3.11 on */
	NEW_LOG2_INDEX_BYTES = 9,
	NEW_KIND = 10,
	NEW_ENTRY_COUNT = 24,
	NEW_INDICES = 32,
	LOG2_INDEX_BYTES_MAX = 24,
	KIND_GENERAL = 0,
	KIND_SPLIT = 2,
	ENTRY_HASHED = 24, /* hash, key, value */
	ENTRY_SHORT = 16,  /* key, value */
	CHUNK = 128,       /* entries read at once; python_read_many()'s limit */
	ENTRIES_MAX = 65536,
	VALUES_HEAD = 8, /* 3.13 on: capacity, size, embedded, valid; then the values */
	VALUES_VALID = 3,
	STR_LENGTH = 16,
	STR_STATE = 32,
	STR_READ_MAX = 128, /* head and characters of a key that is compared */
	STATE_ASCII_COMPACT = 0x60,
	/* managed dicts: where an instance has them, before itself */
	MANAGED_DICT = 24,
	MANAGED_VALUES_3_11 = 32,
	/* tp_flags */
	FLAG_INLINE_VALUES = 1 << 2,
	FLAG_MANAGED_DICT = 1 << 4,
	FLAG_HEAP_TYPE = 1 << 9,
	/* PyTypeObject, relative to tp_dict, the same in all versions */
	TYPE_MRO_FROM_DICT = 80,
	/* PyMemberDescrObject, PyMemberDef (descrobject.h) */
	DESCR_MEMBER = 40,
	MEMBER_TYPE = 8,
	MEMBER_OFFSET = 16,
	MEMBER_OBJECT = 6,
	MEMBER_OBJECT_EX = 16,
	SLOT_OFFSET_MAX = 4096,
	MODULE_DICT = 16, /* md_dict */
};

/* Where the entries of a dict are. */
struct view {
	uint64_t entries;
	uint64_t values; /* of split ones, else 0: the entries have them */
	size_t count;
	size_t entry_bytes;
	size_t key_at;
};

static uint64_t u64_at(const uint8_t *data, size_t at)
{
	uint64_t v;

	memcpy(&v, data + at, sizeof(v));
	return v;
}

static bool view_keys(const struct python *p, uint64_t keys, struct view *ret)
{
	uint8_t head[KEYS_HEAD];
	uint64_t count, size, width;

	if (!keys || !python_read(p, keys, head, sizeof(head)))
		return false;
	if (p->layout.keys == PYTHON_KEYS_OLD) {
		size = u64_at(head, OLD_SIZE);
		count = u64_at(head, OLD_ENTRY_COUNT);
		width = size <= 0xff ? 1 : size <= 0xffff ? 2 : 4;
		if (size > 1UL << LOG2_INDEX_BYTES_MAX)
			return false;
		ret->entries = keys + OLD_INDICES + size * width;
		ret->entry_bytes = ENTRY_HASHED;
	} else {
		if (head[NEW_LOG2_INDEX_BYTES] > LOG2_INDEX_BYTES_MAX ||
		    head[NEW_KIND] > KIND_SPLIT)
			return false;
		count = u64_at(head, NEW_ENTRY_COUNT);
		ret->entries = keys + NEW_INDICES + (1UL << head[NEW_LOG2_INDEX_BYTES]);
		ret->entry_bytes = head[NEW_KIND] == KIND_GENERAL ? ENTRY_HASHED : ENTRY_SHORT;
	}
	if (count > ENTRIES_MAX)
		return false;
	ret->count = count;
	ret->key_at = ret->entry_bytes - ENTRY_SHORT;
	ret->values = 0;
	return true;
}

static bool view_dict(const struct python *p, uint64_t dict, struct view *ret)
{
	uint8_t head[DICT_HEAD];
	uint64_t values;

	if (p->layout.dict_values + 8 > DICT_HEAD || p->layout.dict_keys + 8 > DICT_HEAD)
		return false;
	if (!dict || !python_read(p, dict, head, p->layout.dict_values + 8U))
		return false;
	if (u64_at(head, PYTHON_OBJECT_TYPE) != p->dict_type && !python_is(p, dict, PYTHON_DICT))
		return false;
	if (!view_keys(p, u64_at(head, p->layout.dict_keys), ret))
		return false;
	values = u64_at(head, p->layout.dict_values);
	if (values)
		ret->values = values + (p->layout.values == PYTHON_VALUES_INLINE ? VALUES_HEAD : 0);
	return true;
}

/* Up to CHUNK entries from `first` on; how many. */
static size_t view_read(const struct python *p, const struct view *v, size_t first, uint64_t *keys,
			uint64_t *values)
{
	uint8_t entries[CHUNK * ENTRY_HASHED];
	size_t n = v->count - first < CHUNK ? v->count - first : CHUNK;

	if (!python_read(p, v->entries + first * v->entry_bytes, entries, n * v->entry_bytes))
		return 0;
	for (size_t i = 0; i < n; i++) {
		keys[i] = u64_at(entries, i * v->entry_bytes + v->key_at);
		values[i] = u64_at(entries, i * v->entry_bytes + v->key_at + 8);
	}
	if (v->values && !python_read(p, v->values + first * 8, values, n * 8))
		return 0;
	return n;
}

static bool is_key(const struct python *p, const uint8_t *head, const char *key, size_t length)
{
	return u64_at(head, STR_LENGTH) == length &&
	       u64_at(head, PYTHON_OBJECT_TYPE) == p->str_type &&
	       (head[STR_STATE] & STATE_ASCII_COMPACT) == STATE_ASCII_COMPACT &&
	       memcmp(head + p->offsets.str_ascii, key, length) == 0;
}

/* One chunk by the keys' text; the entry's number in it, or -1. */
static int chunk_find(const struct python *p, const uint64_t *keys, size_t n, const char *key)
{
	uint8_t heads[CHUNK * STR_READ_MAX];
	size_t length = strlen(key), bytes = p->offsets.str_ascii + length;

	if (bytes > STR_READ_MAX)
		return -1;
	python_read_many(p, keys, n, heads, bytes);
	for (size_t i = 0; i < n; i++)
		if (is_key(p, heads + i * bytes, key, length))
			return (int)i;
	return -1;
}

/*
 * The number of the entry with this key, and its value (may be 0: deleted, or not set in this
 * instance); -1: none. Names are interned mostly, so the address that was found last is looked for
 * first, which is cheaper by far than to read all keys.
 */
static int view_find(const struct python *p, const struct view *v, struct python_name *name,
		     uint64_t *ret_value)
{
	uint64_t keys[CHUNK], values[CHUNK];

	for (int by_text = name->key == 0; by_text < 2; by_text++) {
		for (size_t first = 0, n; first < v->count; first += n) {
			int found = -1;

			n = view_read(p, v, first, keys, values);
			if (!n)
				return -1;
			for (size_t i = 0; !by_text && i < n; i++)
				if (keys[i] == name->key)
					found = (int)i;
			if (by_text)
				found = chunk_find(p, keys, n, name->text);
			if (found < 0)
				continue;
			name->key = keys[found];
			*ret_value = values[found];
			return (int)first + found;
		}
	}
	return -1;
}

uint64_t python_dict_find(const struct python *p, uint64_t dict, struct python_name *name)
{
	uint64_t value = 0;
	struct view v;

	return view_dict(p, dict, &v) && view_find(p, &v, name, &value) >= 0 ? value : 0;
}

uint64_t python_dict_get(const struct python *p, uint64_t dict, const char *key)
{
	return python_dict_find(p, dict, &(struct python_name){ .text = key });
}

bool python_dict_each(const struct python *p, uint64_t dict, python_item_fn fn, void *ctx)
{
	uint64_t keys[CHUNK], values[CHUNK];
	struct view v;

	if (!view_dict(p, dict, &v))
		return false;
	for (size_t first = 0; first < v.count;) {
		size_t n = view_read(p, &v, first, keys, values);

		if (!n)
			return false;
		for (size_t i = 0; i < n; i++)
			if (keys[i] && values[i] && !fn(ctx, keys[i], values[i]))
				return true;
		first += n;
	}
	return true;
}

uint64_t python_dict_used(const struct python *p, uint64_t dict)
{
	return dict ? python_pointer(p, dict + DICT_USED) : 0;
}

/* --- attributes ------------------------------------------------------------------------------- */

int python_attr_index(const struct python *p, uint64_t type, const char *name)
{
	uint64_t value;
	struct view v;

	if (!python_is(p, type, PYTHON_TYPE) ||
	    !view_keys(p, python_pointer(p, type + p->offsets.type_cached_keys), &v))
		return -1;
	return view_find(p, &v, &(struct python_name){ .text = name }, &value);
}

int python_attr_count(const struct python *p, uint64_t type)
{
	struct view v;

	if (!python_is(p, type, PYTHON_TYPE) ||
	    !view_keys(p, python_pointer(p, type + p->offsets.type_cached_keys), &v))
		return -1;
	return (int)v.count;
}

/* 3.13: only objects without slots have inline values. 3.14: they stand behind the slots. */
static uint64_t inline_offset(const struct python *p, uint64_t type)
{
	uint64_t size = 0;

	if (p->offsets.version < 0x30e)
		return p->layout.values_offset;
	size = python_pointer(p, type + p->offsets.type_basicsize);
	return size < SLOT_OFFSET_MAX ? size + VALUES_HEAD : p->layout.values_offset;
}

/* Where the values of the instance are that its class's keys number; 0: it has a dict. */
static uint64_t instance_values(const struct python *p, uint64_t object, uint64_t type,
				uint64_t flags)
{
	uint64_t word, values;
	uint8_t head[VALUES_HEAD];

	switch (p->layout.values) {
	case PYTHON_VALUES_BEFORE:
		return flags & FLAG_MANAGED_DICT ? python_pointer(p, object - MANAGED_VALUES_3_11)
						 : 0;
	case PYTHON_VALUES_TAGGED:
		if (!(flags & FLAG_MANAGED_DICT))
			return 0;
		word = python_pointer(p, object - MANAGED_DICT);
		return word & 1 ? word + 1 : 0;
	case PYTHON_VALUES_INLINE:
		if (!(flags & FLAG_INLINE_VALUES))
			return 0;
		values = object + inline_offset(p, type);
		if (!python_read(p, values - VALUES_HEAD, head, sizeof(head)) ||
		    !head[VALUES_VALID])
			return 0;
		return values;
	default:
		return 0;
	}
}

static uint64_t instance_dict(const struct python *p, uint64_t object, uint64_t type,
			      uint64_t flags)
{
	int64_t offset;

	if (p->layout.values != PYTHON_VALUES_DICT && (flags & FLAG_MANAGED_DICT)) {
		uint64_t dict = python_pointer(p, object - MANAGED_DICT);

		return dict & 1 ? 0 : dict;
	}
	offset = (int64_t)python_pointer(p, type + p->offsets.type_dictoffset);
	if (offset <= 0 || offset > SLOT_OFFSET_MAX)
		return 0;
	return python_pointer(p, object + (uint64_t)offset);
}

/* The keys of the instance's attributes; *ret_values: where their values are, 0: in the view. */
static bool instance_view(const struct python *p, uint64_t object, uint64_t type, uint64_t flags,
			  struct view *ret, uint64_t *ret_values)
{
	uint64_t dict;

	*ret_values = instance_values(p, object, type, flags);
	if (*ret_values)
		return view_keys(p, python_pointer(p, type + p->offsets.type_cached_keys), ret);
	dict = instance_dict(p, object, type, flags);
	return dict && view_dict(p, dict, ret);
}

void python_attrs(const struct python *p, uint64_t object, struct python_name *names, size_t count,
		  uint64_t *ret)
{
	uint64_t type = python_type(p, object), flags, values;
	struct view v;
	bool viewed;

	memset(ret, 0, count * sizeof(*ret));
	if (!type || !python_read(p, type + p->offsets.type_flags, &flags, sizeof(flags)))
		return;
	viewed = instance_view(p, object, type, flags, &v, &values);
	for (size_t i = 0; i < count; i++) {
		int at = viewed ? view_find(p, &v, &names[i], &ret[i]) : -1;
		uint64_t offset;

		if (values)
			ret[i] = at < 0 ? 0 : python_pointer(p, values + 8 * (uint64_t)at);
		if (ret[i] || !(flags & FLAG_HEAP_TYPE))
			continue;
		offset = python_slot_offset(p, type, names[i].text);
		ret[i] = offset ? python_pointer(p, object + offset) : 0;
	}
}

uint64_t python_attr(const struct python *p, uint64_t object, const char *name)
{
	uint64_t value;

	python_attrs(p, object, &(struct python_name){ .text = name }, 1, &value);
	return value;
}

/* The entry `name` in the namespace of the class or of the first that it is derived from. */
static uint64_t class_entry(const struct python *p, uint64_t type, const char *name)
{
	uint64_t mro, dict, found;
	size_t n;

	if (!python_is(p, type, PYTHON_TYPE))
		return 0;
	mro = python_pointer(p, type + p->offsets.type_dict + TYPE_MRO_FROM_DICT);
	n = python_tuple_length(p, mro);
	for (size_t i = 0; i < n && i < PYTHON_MRO_MAX; i++) {
		uint64_t class_ = python_tuple_item(p, mro, i);

		/* builtin classes of 3.12 on have theirs elsewhere; nothing is looked for there */
		dict = class_ ? python_pointer(p, class_ + p->offsets.type_dict) : 0;
		found = dict ? python_dict_get(p, dict, name) : 0;
		if (found)
			return found;
	}
	return 0;
}

uint64_t python_slot_offset(const struct python *p, uint64_t type, const char *name)
{
	uint64_t descr = class_entry(p, type, name), member, offset;
	uint32_t kind;

	if (!descr || !python_type_named(p, descr, "member_descriptor"))
		return 0;
	member = python_pointer(p, descr + DESCR_MEMBER);
	if (!member || !python_read(p, member + MEMBER_TYPE, &kind, sizeof(kind)) ||
	    (kind != MEMBER_OBJECT && kind != MEMBER_OBJECT_EX))
		return 0;
	offset = python_pointer(p, member + MEMBER_OFFSET);
	return offset < SLOT_OFFSET_MAX ? offset : 0;
}

uint64_t python_class_get(const struct python *p, uint64_t type, const char *name)
{
	uint64_t found = class_entry(p, type, name);

	if (found &&
	    (python_type_named(p, found, "staticmethod") ||
	     python_type_named(p, found, "classmethod") || python_type_named(p, found, "property")))
		return python_pointer(p, found + PYTHON_WRAPPED);
	return found;
}

/* --- modules ---------------------------------------------------------------------------------- */

uint64_t python_modules(const struct python *p)
{
	return p->interp ? python_pointer(p, p->interp + p->offsets.interp_modules) : 0;
}

uint64_t python_module(const struct python *p, const char *name)
{
	return python_dict_get(p, python_modules(p), name);
}

/* Modules may be of a class derived from the module type, and sys.modules may hold anything. */
uint64_t python_module_dict(const struct python *p, uint64_t module)
{
	uint64_t words[MODULE_DICT / 8 + 1], type, mro; /* as far as md_dict */
	size_t n;

	if (!module || !python_read(p, module, words, sizeof(words)))
		return 0;
	type = words[PYTHON_OBJECT_TYPE / 8];
	if (type != p->module_type) {
		mro = python_pointer(p, type + p->offsets.type_dict + TYPE_MRO_FROM_DICT);
		n = python_tuple_length(p, mro);
		for (size_t i = 0;; i++) {
			if (i >= n || i >= PYTHON_MRO_MAX)
				return 0;
			if (python_tuple_item(p, mro, i) == p->module_type)
				break;
		}
	}
	return words[MODULE_DICT / 8];
}

uint64_t python_module_get(const struct python *p, uint64_t module, const char *name)
{
	uint64_t dict = python_module_dict(p, module);

	return dict ? python_dict_get(p, dict, name) : 0;
}
