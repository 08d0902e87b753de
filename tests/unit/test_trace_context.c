/* traceparent as W3C Trace Context, level 2 says: what is valid, what is ignored. */
#include "check.h"
#include "trace/trace_context.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static bool parses(const char *text)
{
	struct trace_context tc;

	return trace_context_parse(slice_str(text), &tc);
}

int main(void)
{
	static const uint8_t span[SPAN_ID_BYTES] = {
		0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31
	};
	struct trace_context tc = { .flags = 0x77 };

	CHECK(trace_context_parse(slice_str("00-" TRACE "-" SPAN "-01"), &tc));
	CHECK(tc.flags == 1 && tc.trace_id[0] == 0x0a && tc.trace_id[15] == 0x9c);
	CHECK(memcmp(tc.span_id, span, sizeof(span)) == 0);
	CHECK(trace_context_parse(slice_str("00-" TRACE "-" SPAN "-03"), &tc) && tc.flags == 3);
	CHECK(parses("00-" TRACE "-" SPAN "-00"));
	CHECK(parses("00-" TRACE "-" SPAN "-ff"));
	/* Versions to come. */
	CHECK(parses("cc-" TRACE "-" SPAN "-01"));
	CHECK(parses("01-" TRACE "-" SPAN "-01-what-ever"));
	CHECK(!parses("01-" TRACE "-" SPAN "-01what"));
	CHECK(!parses("ff-" TRACE "-" SPAN "-01"));
	CHECK(!parses("00-" TRACE "-" SPAN "-01-extra"));
	CHECK(!parses("00-" TRACE "-" SPAN "-01 "));
	CHECK(!parses("0X-" TRACE "-" SPAN "-01"));
	CHECK(!parses("00-" TRACE "-" SPAN "-0"));
	CHECK(!parses("00-" TRACE "-" SPAN "-.0"));
	CHECK(!parses("00-" TRACE "-" SPAN "-1F"));
	CHECK(!parses("00-0AF7651916cd43dd8448eb211c80319c-" SPAN "-01"));
	CHECK(!parses("00-00000000000000000000000000000000-" SPAN "-01"));
	CHECK(!parses("00-" TRACE "-0000000000000000-01"));
	CHECK(!parses("00-" TRACE "0-b7ad6b716920333-01"));
	CHECK(!parses("00_" TRACE "-" SPAN "-01"));
	CHECK(!parses(""));
	tc = (struct trace_context){ .flags = 0x77 };
	CHECK(!trace_context_parse(slice_str("00-" TRACE "-" SPAN "-0g"), &tc) && tc.flags == 0x77);
	return check_result();
}
