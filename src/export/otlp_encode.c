/*
 * Fills protobuf-c's structs from borrowed spans and packs them once. Invariant: the sizes of all
 * arrays are known before the first pointer into one is taken, so nothing moves while the message
 * is built; text is pointed at where it lies, and only text that is not UTF-8 is copied.
 */
#include "export/otlp_encode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "export/otlp_encode_text.h"
#include "otlp_trace.pb-c.h"
#include "trace/resource.h"

/* An array that only grows, its content not kept. */
struct scratch {
	void *data;
	size_t bytes;
};

/* The spans of one resource. */
struct group {
	const struct resource *resource;
	size_t first, count; /* in encoder.spans / encoder.span_refs */
	Otlp__ResourceSpans resource_spans;
	Otlp__ResourceSpans *resource_spans_ref;
	Otlp__Resource resource_message;
	Otlp__ScopeSpans scope_spans;
	Otlp__ScopeSpans *scope_spans_ref;
};

/* Attributes with the messages they consist of, and the pointers protobuf-c wants. */
struct attr_slots {
	Otlp__KeyValue *pairs;
	Otlp__AnyValue *values;
	Otlp__KeyValue **refs;
	size_t used;
};

struct otlp_encoder {
	struct scratch groups, group_refs, group_of, spans, span_refs, statuses, pairs, values,
		refs;
	struct attr_slots attrs;
	struct buf clean; /* replaced text; all it may need is reserved when it is first used */
	const struct span_batch *batch;
	bool failed;
};

struct totals {
	size_t groups, attrs;
};

struct otlp_encoder *otlp_encoder_new(void)
{
	return calloc(1, sizeof(struct otlp_encoder));
}

void otlp_encoder_free(struct otlp_encoder *e)
{
	if (!e)
		return;
	free(e->groups.data);
	free(e->group_refs.data);
	free(e->group_of.data);
	free(e->spans.data);
	free(e->span_refs.data);
	free(e->statuses.data);
	free(e->pairs.data);
	free(e->values.data);
	free(e->refs.data);
	buf_free(&e->clean);
	free(e);
}

static void *scratch_array(struct scratch *s, size_t count, size_t size)
{
	size_t need;
	void *data;

	if (__builtin_mul_overflow(count, size, &need))
		return NULL;
	if (need <= s->bytes)
		return s->data;
	data = malloc(need);
	if (!data)
		return NULL;
	free(s->data);
	s->data = data;
	s->bytes = need;
	return data;
}

/* protobuf-c reads through these pointers only, but declares them writable. */
static ProtobufCBinaryData bytes_of(const void *data, size_t len)
{
	return (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)data };
}

/* The most that all text of the batch can become when it is replaced. */
static size_t clean_bound(const struct span_batch *batch)
{
	size_t bytes = 0, i, j;

	for (i = 0; i < batch->count; i++) {
		const struct span *s = batch->spans[i];

		bytes += s->name_len + s->trace_state_len;
		for (j = 0; j < s->attr_count; j++)
			bytes += strlen(s->attrs[j].key) +
				 (s->attrs[j].type == ATTR_STRING ? s->attrs[j].len : 0);
		for (j = 0; s->resource && j < s->resource->attr_count; j++)
			bytes += strlen(s->resource->attrs[j].key) +
				 strlen(s->resource->attrs[j].value);
	}
	return bytes * UTF8_REPLACEMENT_BYTES;
}

static ProtobufCBinaryData text_of(struct otlp_encoder *e, struct slice text)
{
	size_t start;

	if (utf8_valid(text))
		return bytes_of(text.data, text.len);
	if (!e->clean.len && !buf_reserve(&e->clean, clean_bound(e->batch))) {
		e->failed = true;
		return bytes_of(NULL, 0);
	}
	start = e->clean.len;
	utf8_append_clean(&e->clean, text);
	return bytes_of(e->clean.data + start, e->clean.len - start);
}

/* The next free attribute, its key set. */
static Otlp__AnyValue *next_attr(struct otlp_encoder *e, const char *key)
{
	size_t i = e->attrs.used++;

	e->attrs.values[i] = (Otlp__AnyValue)OTLP__ANY_VALUE__INIT;
	e->attrs.pairs[i] = (Otlp__KeyValue)OTLP__KEY_VALUE__INIT;
	e->attrs.pairs[i].key = text_of(e, slice_str(key));
	e->attrs.pairs[i].value = &e->attrs.values[i];
	e->attrs.refs[i] = &e->attrs.pairs[i];
	return &e->attrs.values[i];
}

static void set_text(struct otlp_encoder *e, Otlp__AnyValue *value, struct slice text)
{
	value->value_case = OTLP__ANY_VALUE__VALUE_STRING_VALUE;
	value->string_value = text_of(e, text);
}

static void set_int(Otlp__AnyValue *value, int64_t integer)
{
	value->value_case = OTLP__ANY_VALUE__VALUE_INT_VALUE;
	value->int_value = integer;
}

static void fill_span_attrs(struct otlp_encoder *e, const struct span *s, Otlp__Span *out)
{
	uint32_t i;

	out->n_attributes = s->attr_count;
	out->attributes = e->attrs.refs + e->attrs.used;
	for (i = 0; i < s->attr_count; i++) {
		const struct attr *a = &s->attrs[i];
		Otlp__AnyValue *value = next_attr(e, a->key);

		switch (a->type) {
		case ATTR_STRING:
			set_text(e, value, span_attr_str(s, a));
			break;
		case ATTR_INT:
			set_int(value, a->integer);
			break;
		case ATTR_BOOL:
			value->value_case = OTLP__ANY_VALUE__VALUE_BOOL_VALUE;
			value->bool_value = a->integer != 0;
			break;
		}
	}
}

/* A server span's parent is the caller's, by a header or joined on the host. */
uint32_t otlp_span_flags(const struct span *s)
{
	bool remote = s->has_parent && (s->remote_parent || s->kind == SPAN_SERVER);

	return s->trace_flags | OTLP_FLAG_HAS_IS_REMOTE | (remote ? OTLP_FLAG_IS_REMOTE : 0);
}

static void fill_span(struct otlp_encoder *e, const struct span *s, Otlp__Span *out,
		      Otlp__Status *status)
{
	*out = (Otlp__Span)OTLP__SPAN__INIT;
	out->trace_id = bytes_of(s->trace_id, TRACE_ID_BYTES);
	out->span_id = bytes_of(s->span_id, SPAN_ID_BYTES);
	if (s->has_parent)
		out->parent_span_id = bytes_of(s->parent_span_id, SPAN_ID_BYTES);
	out->trace_state = text_of(e, span_trace_state(s));
	out->name = text_of(e, span_name(s));
	out->kind = s->kind;
	out->start_time_unix_nano = s->start_ns + (uint64_t)e->batch->unix_offset_ns;
	out->end_time_unix_nano = s->end_ns + (uint64_t)e->batch->unix_offset_ns;
	out->dropped_attributes_count = s->dropped_attr_count;
	out->flags = otlp_span_flags(s);
	if (s->status != SPAN_STATUS_UNSET) {
		*status = (Otlp__Status)OTLP__STATUS__INIT;
		status->code = s->status;
		out->status = status;
	}
	fill_span_attrs(e, s, out);
}

static void fill_resource(struct otlp_encoder *e, const struct resource *r, Otlp__Resource *out)
{
	size_t i;

	*out = (Otlp__Resource)OTLP__RESOURCE__INIT;
	out->attributes = e->attrs.refs + e->attrs.used;
	/* Every resource has a service.name; this is the specification's for one that is not known.
	 */
	if (!r || !resource_find(r, "service.name"))
		set_text(e, next_attr(e, "service.name"), slice_str("unknown_service"));
	for (i = 0; r && i < r->attr_count; i++) {
		const struct resource_attr *a = &r->attrs[i];
		Otlp__AnyValue *value = next_attr(e, a->key);

		if (a->is_int)
			set_int(value, strtoll(a->value, NULL, 10));
		else
			set_text(e, value, slice_str(a->value));
	}
	out->n_attributes = (size_t)(e->attrs.refs + e->attrs.used - out->attributes);
}

/* Gives every span its group, by resource, in order of first appearance, and counts. */
static bool group_spans(struct otlp_encoder *e, const struct span_batch *batch, struct totals *ret)
{
	struct group *groups = scratch_array(&e->groups, batch->count, sizeof(*groups));
	struct group **group_of = scratch_array(&e->group_of, batch->count, sizeof(struct group *));
	struct hash by_resource = { 0 };
	struct group *last = NULL;
	bool ok = groups && group_of;
	size_t i;

	*ret = (struct totals){ 0, 0 };
	for (i = 0; ok && i < batch->count; i++) {
		const struct resource *r = batch->spans[i]->resource;

		if (!last || last->resource != r)
			last = hash_get(&by_resource, (uintptr_t)r);
		if (!last) {
			last = &groups[ret->groups++];
			*last = (struct group){ .resource = r };
			ret->attrs += 1 + (r ? r->attr_count : 0);
			ok = hash_put(&by_resource, (uintptr_t)r, last);
		}
		last->count++;
		group_of[i] = last;
		ret->attrs += batch->spans[i]->attr_count;
	}
	hash_free(&by_resource);
	return ok;
}

static bool reserve(struct otlp_encoder *e, const struct span_batch *batch, const struct totals *n)
{
	e->attrs.pairs = scratch_array(&e->pairs, n->attrs, sizeof(*e->attrs.pairs));
	e->attrs.values = scratch_array(&e->values, n->attrs, sizeof(*e->attrs.values));
	e->attrs.refs = scratch_array(&e->refs, n->attrs, sizeof(*e->attrs.refs));
	e->attrs.used = 0;
	return e->attrs.pairs && e->attrs.values && e->attrs.refs &&
	       scratch_array(&e->spans, batch->count, sizeof(Otlp__Span)) &&
	       scratch_array(&e->span_refs, batch->count, sizeof(Otlp__Span *)) &&
	       scratch_array(&e->statuses, batch->count, sizeof(Otlp__Status)) &&
	       scratch_array(&e->group_refs, n->groups, sizeof(Otlp__ResourceSpans *));
}

static void fill_groups(struct otlp_encoder *e, size_t count, Otlp__InstrumentationScope *scope)
{
	struct group *groups = e->groups.data;
	Otlp__ResourceSpans **refs = e->group_refs.data;
	size_t first = 0, i;

	for (i = 0; i < count; i++) {
		struct group *g = &groups[i];

		g->first = first;
		first += g->count;
		g->scope_spans = (Otlp__ScopeSpans)OTLP__SCOPE_SPANS__INIT;
		g->scope_spans.scope = scope;
		g->scope_spans.spans = (Otlp__Span **)e->span_refs.data + g->first;
		g->scope_spans.n_spans = g->count;
		g->scope_spans_ref = &g->scope_spans;
		fill_resource(e, g->resource, &g->resource_message);
		g->resource_spans = (Otlp__ResourceSpans)OTLP__RESOURCE_SPANS__INIT;
		g->resource_spans.resource = &g->resource_message;
		g->resource_spans.scope_spans = &g->scope_spans_ref;
		g->resource_spans.n_scope_spans = 1;
		refs[i] = &g->resource_spans;
		g->count = 0; /* counts again while the spans are placed */
	}
}

static void fill_spans(struct otlp_encoder *e, const struct span_batch *batch)
{
	struct group **group_of = e->group_of.data;
	Otlp__Span *spans = e->spans.data;
	Otlp__Span **refs = e->span_refs.data;
	Otlp__Status *statuses = e->statuses.data;
	size_t i;

	for (i = 0; i < batch->count; i++) {
		struct group *g = group_of[i];

		fill_span(e, batch->spans[i], &spans[i], &statuses[i]);
		refs[g->first + g->count++] = &spans[i];
	}
}

bool otlp_encode(struct otlp_encoder *e, const struct span_batch *batch, struct buf *out)
{
	Otlp__InstrumentationScope scope = OTLP__INSTRUMENTATION_SCOPE__INIT;
	Otlp__ExportTraceServiceRequest request = OTLP__EXPORT_TRACE_SERVICE_REQUEST__INIT;
	struct totals n;
	size_t size;

	if (!batch->count)
		return true;
	e->batch = batch;
	e->failed = false;
	buf_reset(&e->clean);
	if (!group_spans(e, batch, &n) || !reserve(e, batch, &n))
		return false;
	scope.name = bytes_of(OTLP_SCOPE_NAME, strlen(OTLP_SCOPE_NAME));
	scope.version = bytes_of(SPANLOOM_VERSION, strlen(SPANLOOM_VERSION));
	fill_groups(e, n.groups, &scope);
	fill_spans(e, batch);
	request.resource_spans = e->group_refs.data;
	request.n_resource_spans = n.groups;
	if (e->failed)
		return false;
	size = protobuf_c_message_get_packed_size(&request.base);
	if (!buf_reserve(out, size))
		return false;
	out->len += protobuf_c_message_pack(&request.base, out->data + out->len);
	return true;
}

bool otlp_decode_response(const uint8_t *data, size_t len, struct otlp_response *ret)
{
	Otlp__ExportTraceServiceResponse *response =
		otlp__export_trace_service_response__unpack(NULL, len, data);
	const Otlp__ExportTracePartialSuccess *partial;
	size_t i, used = 0;

	if (!response)
		return false;
	*ret = (struct otlp_response){ 0 };
	partial = response->partial_success;
	if (partial) {
		ret->rejected_spans =
			partial->rejected_spans > 0 ? (uint64_t)partial->rejected_spans : 0;
		for (i = 0; i < partial->error_message.len && used < sizeof(ret->message) - 1;
		     i++) {
			uint8_t c = partial->error_message.data[i];

			ret->message[used++] = c >= 0x20 && c < 0x7f ? (char)c : '?';
		}
	}
	protobuf_c_message_free_unpacked(&response->base, NULL);
	return true;
}
