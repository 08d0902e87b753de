/*
 * Spans made of arbitrary bytes must always encode to something that decodes again, with all text
 * valid UTF-8 and as many spans and attributes as went in; and arbitrary answers must be decoded
 * without harm.
 */
#include "export/otlp_encode.h"
#include "export/otlp_encode_text.h"

#include <stdlib.h>

#include "otlp_trace.pb-c.h"
#include "trace/resource.h"

enum { MAX_SPANS = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Takes up to `len` bytes off the input. */
static struct slice take(struct slice *in, size_t len)
{
	struct slice got = slice_of(in->data, len < in->len ? len : in->len);

	*in = slice_of(in->data + got.len, in->len - got.len);
	return got;
}

static uint8_t take_byte(struct slice *in)
{
	struct slice one = take(in, 1);

	return one.len ? one.data[0] : 0;
}

static struct span *take_span(struct slice *in, struct resource *r)
{
	struct span *s = span_new((enum span_kind)(1 + take_byte(in) % 3));
	unsigned int attrs = take_byte(in) % (SPAN_MAX_ATTRS + 4), i;

	if (!s)
		abort();
	s->resource = resource_get(r);
	s->has_parent = take_byte(in) & 1;
	s->start_ns = take_byte(in) * UINT64_C(0x0101010101010101);
	s->end_ns = s->start_ns + take_byte(in);
	span_set_name(s, take(in, take_byte(in)));
	span_set_trace_state(s, take(in, take_byte(in)));
	for (i = 0; i < attrs; i++) {
		if (take_byte(in) & 1)
			span_add_int(s, "int", (int64_t)s->start_ns);
		else
			span_add_str(s, "str", take(in, take_byte(in)));
	}
	return s;
}

static void check_text(ProtobufCBinaryData text)
{
	if (!utf8_valid(slice_of(text.data, text.len)))
		abort();
}

static size_t check_request(const Otlp__ExportTraceServiceRequest *request)
{
	size_t spans = 0, i, j, k;

	for (i = 0; i < request->n_resource_spans; i++) {
		const Otlp__ScopeSpans *scope = request->resource_spans[i]->scope_spans[0];

		for (j = 0; j < scope->n_spans; j++, spans++) {
			const Otlp__Span *s = scope->spans[j];

			check_text(s->name);
			check_text(s->trace_state);
			for (k = 0; k < s->n_attributes; k++) {
				const Otlp__AnyValue *v = s->attributes[k]->value;

				if (v->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE)
					check_text(v->string_value);
			}
		}
	}
	return spans;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct otlp_encoder *encoder;
	struct slice in = slice_of(data, size);
	struct resource *r = resource_new(1);
	struct span *spans[MAX_SPANS];
	struct span_batch batch = { .spans = spans, .unix_offset_ns = 1 };
	Otlp__ExportTraceServiceRequest *request;
	struct otlp_response response;
	struct buf out = { 0 };
	size_t i;

	if (!encoder)
		encoder = otlp_encoder_new();
	if (!encoder || !r)
		abort();
	otlp_decode_response(data, size, &response);
	while (in.len && batch.count < MAX_SPANS)
		spans[batch.count++] = take_span(&in, take_byte(&in) & 1 ? r : NULL);
	if (!otlp_encode(encoder, &batch, &out))
		abort();
	request = otlp__export_trace_service_request__unpack(NULL, out.len, out.data);
	if (!request || check_request(request) != batch.count)
		abort();
	otlp__export_trace_service_request__free_unpacked(request, NULL);
	for (i = 0; i < batch.count; i++)
		span_free(spans[i]);
	resource_put(r);
	buf_free(&out);
	return 0;
}
