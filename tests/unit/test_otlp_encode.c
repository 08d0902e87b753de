/*
 * The OTLP encoder against its own decoder (protobuf-c): every field, grouping, odd bytes, limits.
 * The same bytes are read by the official Python classes in tests/e2e/test_export.py. Needs neither
 * network nor root.
 */
#include "export/otlp_encode.h"
#include "export/otlp_encode_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "otlp_trace.pb-c.h"
#include "trace/resource.h"

#define CHECK(cond)                                                                \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			exit(1);                                                   \
		}                                                                  \
	} while (0)

enum { BATCH_SPANS = 512 };

static struct span *make_span(struct resource *r, uint8_t seed)
{
	struct span *s = span_new(SPAN_SERVER);

	CHECK(s);
	memset(s->trace_id, seed, sizeof(s->trace_id));
	memset(s->span_id, seed + 1, sizeof(s->span_id));
	s->start_ns = 1000;
	s->end_ns = 2500;
	s->trace_flags = 1;
	s->resource = resource_get(r);
	span_set_name(s, slice_str("GET /items/{id}"));
	return s;
}

static Otlp__ExportTraceServiceRequest *encode(struct otlp_encoder *e, struct span *const *spans,
					       size_t count)
{
	struct span_batch batch = { spans, count, 1700000000000000000 };
	Otlp__ExportTraceServiceRequest *request;
	struct buf out = { 0 };

	CHECK(otlp_encode(e, &batch, &out));
	request = otlp__export_trace_service_request__unpack(NULL, out.len, out.data);
	CHECK(request);
	buf_free(&out);
	return request;
}

static bool bytes_eq(ProtobufCBinaryData b, const void *data, size_t len)
{
	return b.len == len && memcmp(b.data, data, len) == 0;
}

static bool text_eq(ProtobufCBinaryData b, const char *text)
{
	return bytes_eq(b, text, strlen(text));
}

static void test_fields(void)
{
	struct otlp_encoder *e = otlp_encoder_new();
	struct resource *r = resource_new(7);
	struct span *s = make_span(r, 0x11);
	Otlp__ExportTraceServiceRequest *request;
	const Otlp__ResourceSpans *rs;
	const Otlp__Span *got;

	resource_set(r, "service.name", "gateway");
	resource_set_int(r, "process.pid", 7);
	s->has_parent = s->remote_parent = true;
	memset(s->parent_span_id, 0x99, sizeof(s->parent_span_id));
	span_set_trace_state(s, slice_str("a=1,b=2"));
	span_add_str(s, "url.path", slice_str("/items/7"));
	span_add_int(s, "http.response.status_code", 500);
	span_add_int(s, "zero", 0);
	span_add_bool(s, "flag", false);
	span_add_str(s, "empty", slice_of("", 0));
	span_set_error(s, slice_str("500"));
	s->dropped_attr_count = 3;
	request = encode(e, &s, 1);
	CHECK(request->n_resource_spans == 1);
	rs = request->resource_spans[0];
	CHECK(rs->resource->n_attributes == 2);
	CHECK(text_eq(rs->resource->attributes[0]->value->string_value, "gateway"));
	CHECK(rs->resource->attributes[1]->value->int_value == 7);
	CHECK(text_eq(rs->scope_spans[0]->scope->name, "spanloom"));
	CHECK(text_eq(rs->scope_spans[0]->scope->version, SPANLOOM_VERSION));
	got = rs->scope_spans[0]->spans[0];
	CHECK(bytes_eq(got->trace_id, s->trace_id, 16) && bytes_eq(got->span_id, s->span_id, 8));
	CHECK(bytes_eq(got->parent_span_id, s->parent_span_id, 8));
	CHECK(text_eq(got->trace_state, "a=1,b=2") && text_eq(got->name, "GET /items/{id}"));
	CHECK(got->kind == 2 && got->status && got->status->code == 2);
	CHECK(got->start_time_unix_nano == 1700000000000001000 &&
	      got->end_time_unix_nano == 1700000000000002500);
	CHECK(got->flags == 0x301 && got->dropped_attributes_count == 3 && got->n_attributes == 6);
	CHECK(text_eq(got->attributes[0]->key, "url.path"));
	CHECK(got->attributes[1]->value->int_value == 500);
	CHECK(got->attributes[2]->value->value_case == OTLP__ANY_VALUE__VALUE_INT_VALUE);
	CHECK(got->attributes[3]->value->value_case == OTLP__ANY_VALUE__VALUE_BOOL_VALUE);
	CHECK(got->attributes[4]->value->value_case == OTLP__ANY_VALUE__VALUE_STRING_VALUE);
	CHECK(text_eq(got->attributes[5]->key, "error.type"));
	otlp__export_trace_service_request__free_unpacked(request, NULL);
	span_free(s);
	resource_put(r);
	otlp_encoder_free(e);
}

static void test_flags(void)
{
	struct span *s = make_span(NULL, 0x11);

	s->trace_flags = 1;
	CHECK(otlp_span_flags(s) == 0x101);
	s->has_parent = true;
	CHECK(otlp_span_flags(s) == 0x301); /* joined */
	s->kind = SPAN_CLIENT;
	CHECK(otlp_span_flags(s) == 0x101);
	s->remote_parent = true;
	CHECK(otlp_span_flags(s) == 0x301);
	span_free(s);
}

/* Spans of three resources and of none, mixed. */
static void test_groups(void)
{
	struct otlp_encoder *e = otlp_encoder_new();
	struct resource *r[3];
	struct span *spans[BATCH_SPANS];
	Otlp__ExportTraceServiceRequest *request;
	size_t i, j, total = 0;
	char name[32];

	for (i = 0; i < 3; i++) {
		r[i] = resource_new((uint32_t)i);
		snprintf(name, sizeof(name), "service-%zu", i);
		resource_set(r[i], "service.name", name);
	}
	for (i = 0; i < BATCH_SPANS; i++) {
		spans[i] = make_span(i % 4 == 3 ? NULL : r[i % 4], (uint8_t)i);
		spans[i]->start_ns = i;
		span_add_int(spans[i], "i", (int64_t)i);
	}
	request = encode(e, spans, BATCH_SPANS);
	CHECK(request->n_resource_spans == 4);
	for (i = 0; i < 4; i++) {
		const Otlp__ResourceSpans *rs = request->resource_spans[i];
		const Otlp__ScopeSpans *ss = rs->scope_spans[0];

		snprintf(name, sizeof(name), "service-%zu", i);
		CHECK(rs->n_scope_spans == 1 && rs->resource->n_attributes == 1);
		CHECK(text_eq(rs->resource->attributes[0]->value->string_value,
			      i == 3 ? "unknown_service" : name));
		for (j = 0; j < ss->n_spans; j++)
			CHECK(ss->spans[j]->attributes[0]->value->int_value ==
			      (int64_t)(j * 4 + i));
		total += ss->n_spans;
	}
	CHECK(total == BATCH_SPANS);
	otlp__export_trace_service_request__free_unpacked(request, NULL);
	for (i = 0; i < BATCH_SPANS; i++)
		span_free(spans[i]);
	for (i = 0; i < 3; i++)
		resource_put(r[i]);
	otlp_encoder_free(e);
}

static void test_bytes(void)
{
	static const struct {
		const char *in, *out;
		size_t in_len;
	} cases[] = {
		{ "plain", "plain", 5 },
		{ "\xff", "\xef\xbf\xbd", 1 },
		{ "a\xc3", "a\xef\xbf\xbd", 2 },
		{ "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd", 2 },
		{ "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 3 },
		{ "\xf0\x9f\x98", "\xef\xbf\xbd", 3 },
		{ "\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80!", 5 },
		{ "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 4 },
		{ "\xef\xbf\xbd", "\xef\xbf\xbd", 3 },
		{ "12345678\xc3\xa9 abcdefgh\x80", "12345678\xc3\xa9 abcdefgh\xef\xbf\xbd", 20 },
	};
	struct otlp_encoder *e = otlp_encoder_new();
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct span *s = make_span(NULL, 1);
		Otlp__ExportTraceServiceRequest *request;
		const Otlp__Span *got;

		span_set_name(s, slice_of(cases[i].in, cases[i].in_len));
		span_add_str(s, "v", slice_of(cases[i].in, cases[i].in_len));
		span_set_trace_state(s, slice_of(cases[i].in, cases[i].in_len));
		request = encode(e, &s, 1);
		got = request->resource_spans[0]->scope_spans[0]->spans[0];
		CHECK(text_eq(got->name, cases[i].out));
		CHECK(text_eq(got->attributes[0]->value->string_value, cases[i].out));
		CHECK(text_eq(got->trace_state, cases[i].out));
		otlp__export_trace_service_request__free_unpacked(request, NULL);
		span_free(s);
	}
	otlp_encoder_free(e);
}

/* A NUL inside a value is text like any other. */
static void test_nul(void)
{
	struct otlp_encoder *e = otlp_encoder_new();
	struct span *s = make_span(NULL, 1);
	Otlp__ExportTraceServiceRequest *request;

	span_add_str(s, "v", slice_of("a\0b", 3));
	request = encode(e, &s, 1);
	CHECK(bytes_eq(request->resource_spans[0]
			       ->scope_spans[0]
			       ->spans[0]
			       ->attributes[0]
			       ->value->string_value,
		       "a\0b", 3));
	otlp__export_trace_service_request__free_unpacked(request, NULL);
	span_free(s);
	otlp_encoder_free(e);
}

static void test_response(void)
{
	static const uint8_t partial[] = { 0x0a, 0x09, 0x08, 0x05, 0x12, 0x05,
					   'b',  'a',  'd',  '\n', '!' };
	struct otlp_response response;

	CHECK(otlp_decode_response(NULL, 0, &response) && response.rejected_spans == 0);
	CHECK(otlp_decode_response(partial, sizeof(partial), &response));
	CHECK(response.rejected_spans == 5 && strcmp(response.message, "bad?!") == 0);
	CHECK(!otlp_decode_response((const uint8_t *)"<html>", 6, &response));
}

/* Printed, not asserted: sanitizers make it several times slower than it is. */
static void show_cost(void)
{
	enum { ROUNDS = 20, ATTRS = 14 };
	static const char *const keys[ATTRS] = { "k.a", "k.b", "k.c", "k.d", "k.e", "k.f", "k.g",
						 "k.h", "k.i", "k.j", "k.k", "k.l", "k.m", "k.n" };
	struct otlp_encoder *e = otlp_encoder_new();
	struct resource *r = resource_new(1);
	struct span *spans[BATCH_SPANS];
	struct buf out = { 0 };
	struct timespec a, b;
	size_t i, j;

	for (i = 0; i < BATCH_SPANS; i++) {
		spans[i] = make_span(r, (uint8_t)i);
		for (j = 0; j < ATTRS; j++)
			span_add_str(spans[i], keys[j], slice_str("a value of usual length"));
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (i = 0; i < ROUNDS; i++) {
		buf_reset(&out);
		CHECK(otlp_encode(e, &(struct span_batch){ spans, BATCH_SPANS, 0 }, &out));
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.2f us a span, %zu bytes a span\n",
	       ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) /
		       ROUNDS / BATCH_SPANS,
	       out.len / BATCH_SPANS);
	for (i = 0; i < BATCH_SPANS; i++)
		span_free(spans[i]);
	buf_free(&out);
	resource_put(r);
	otlp_encoder_free(e);
}

int main(void)
{
	test_fields();
	test_flags();
	test_groups();
	test_bytes();
	test_nul();
	test_response();
	show_cost();
	return 0;
}
