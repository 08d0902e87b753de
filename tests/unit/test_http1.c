/* HTTP/1.x syntax: good, bad and cut input, every prefix of it up against a guard page. */
#include "check.h"
#include "guard.h"
#include "protocols/http1.h"
#include "protocols/http1_parse.h"
#include "trace/connection.h"

static ssize_t request_line(const char *text)
{
	struct http1_request_line line;

	return http1_request_line((const uint8_t *)text, strlen(text), &line);
}

static ssize_t status_line(const char *text, int *ret)
{
	struct http1_status_line line = { 0 };
	ssize_t used = http1_status_line((const uint8_t *)text, strlen(text), &line);

	*ret = line.status;
	return used;
}

static void test_start_lines(void)
{
	struct http1_request_line line;
	int status;

	CHECK(http1_request_line((const uint8_t *)"GET /a?b HTTP/1.1\r\n", 19, &line) == 19);
	CHECK(slice_eq(line.method, "GET") && slice_eq(line.target, "/a?b") && line.minor == 1);
	CHECK(request_line("M-SEARCH * HTTP/1.0\n") == 20);
	CHECK(request_line("GET / HTTP/1.1") == HTTP1_MORE);
	CHECK(request_line("GET / HTTP/1.1\r") == HTTP1_MORE);
	CHECK(request_line("GET / HTTP/2.0\r\n") == HTTP1_BAD);
	CHECK(request_line("PRI * HTTP/2.0\r\n") == HTTP1_BAD);
	CHECK(request_line("GET /\r\n") == HTTP1_BAD);
	CHECK(request_line("GET  / HTTP/1.1\r\n") == HTTP1_BAD);
	CHECK(request_line("GET / HTTP/1.1 x\r\n") == HTTP1_BAD);
	CHECK(request_line("G(T / HTTP/1.1\r\n") == HTTP1_BAD);
	CHECK(request_line(" GET / HTTP/1.1\r\n") == HTTP1_BAD);
	CHECK(request_line("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJK") == HTTP1_BAD);
	CHECK(request_line("") == HTTP1_MORE);
	CHECK(status_line("HTTP/1.1 200 OK\r\n", &status) == 17 && status == 200);
	CHECK(status_line("HTTP/1.0 404\r\n", &status) == 14 && status == 404);
	CHECK(status_line("HTTP/1.1 204 \n", &status) == 14 && status == 204);
	CHECK(status_line("HTTP/1.1 99 x\r\n", &status) == HTTP1_BAD);
	CHECK(status_line("HTTP/1.1 2000\r\n", &status) == HTTP1_BAD);
	CHECK(status_line("HTTP/2 200\r\n", &status) == HTTP1_BAD);
	CHECK(status_line("HTTP/1.1 2", &status) == HTTP1_MORE);
}

static void test_heads(void)
{
	static const char head[] = "A: 1\r\n B: folded\r\nHost:\t h \r\nno colon\r\n\r\n";
	struct slice rest = slice_of(head, sizeof(head) - 1), name, value;
	size_t scanned = 0, i;
	ssize_t n = 0;

	CHECK(http1_header_next(&rest, &name, &value) && slice_eq(name, "A") &&
	      slice_eq(value, "1"));
	CHECK(http1_header_next(&rest, &name, &value) && slice_eq(name, "Host") &&
	      slice_eq(value, "h"));
	CHECK(!http1_header_next(&rest, &name, &value));
	for (i = 0; i < sizeof(head) && n == HTTP1_MORE; i++)
		n = http1_head_length((const uint8_t *)head, i, &scanned);
	CHECK(n == (ssize_t)sizeof(head) - 1);
	scanned = 0;
	CHECK(http1_head_length((const uint8_t *)"a\n\nb", 4, &scanned) == 3);
	scanned = 0;
	CHECK(http1_head_length((const uint8_t *)"a\r\n\nb", 5, &scanned) == 4);
}

static bool length_is(const char *text, uint64_t expected)
{
	uint64_t n = 0;

	return http1_content_length(slice_str(text), &n) && n == expected;
}

static void test_framing(void)
{
	struct http1_fields f;
	uint64_t n = 0;

	CHECK(length_is("0", 0) && length_is("42", 42) && length_is("5, 5", 5) &&
	      length_is(" 7", 7));
	CHECK(!length_is("", 0) && !length_is("-1", 0) && !length_is("5, 6", 5) &&
	      !length_is("0x10", 16));
	CHECK(!length_is("99999999999999999999", 0) && !length_is("1 2", 12) &&
	      !length_is("+1", 1));
	CHECK(http1_chunk_size((const uint8_t *)"1aF\r\n", 5, &n) == 5 && n == 0x1af);
	CHECK(http1_chunk_size((const uint8_t *)"0;a=b\n", 6, &n) == 6 && n == 0);
	CHECK(http1_chunk_size((const uint8_t *)"\r\n", 2, &n) == HTTP1_BAD);
	CHECK(http1_chunk_size((const uint8_t *)"g\r\n", 3, &n) == HTTP1_BAD);
	CHECK(http1_chunk_size((const uint8_t *)"fffffffffffffffff\r\n", 19, &n) == HTTP1_BAD);
	CHECK(http1_chunk_size((const uint8_t *)"12", 2, &n) == HTTP1_MORE);
	http1_fields_read(slice_str("Content-Length: 5\r\ncontent-length: 6\r\n"), &f);
	CHECK(f.has_length && f.bad_length);
	http1_fields_read(slice_str("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
			  &f);
	CHECK(f.has_coding && !f.chunked);
	http1_fields_read(slice_str("TRANSFER-ENCODING: gzip, Chunked\r\nHOST: a\r\nhost: b\r\n"),
			  &f);
	CHECK(f.has_coding && f.chunked && slice_eq(f.host, "a"));
}

static enum protocol_match match(const char *text, size_t more)
{
	struct connection c = { 0 };

	return http1_protocol.match(&c, IO_RECV, (const uint8_t *)text, strlen(text),
				    strlen(text) + more);
}

static void test_match(void)
{
	CHECK(match("GET / HTTP/1.1\r\nHost: h\r\n", 0) == PROTOCOL_REQUEST);
	CHECK(match("HTTP/1.1 200 OK\r\n", 0) == PROTOCOL_RESPONSE);
	CHECK(match("G", 0) == PROTOCOL_MAYBE && match("HTTP/1", 0) == PROTOCOL_MAYBE);
	CHECK(match("GET "
		    "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		    900) == PROTOCOL_REQUEST);
	CHECK(match("EHLO host\r\n", 0) == PROTOCOL_NO &&
	      match("220 mail ready\r\n", 0) == PROTOCOL_NO);
	CHECK(match("get key\r\n", 0) == PROTOCOL_NO &&
	      match("PRI * HTTP/2.0\r\n\r\n", 0) == PROTOCOL_NO);
	CHECK(match("\x16\x03\x01", 0) == PROTOCOL_NO && match("*1\r\n$4\r\n", 0) == PROTOCOL_NO);
	CHECK(match("OPTIONS rtsp://h/ RTSP/1.0\r\n", 0) == PROTOCOL_NO);
}

/* Every prefix of some text, and with every byte changed, right before an unmapped page. */
static void test_guard(void)
{
	static const char *const texts[] = {
		("GET /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nForwarded: "
		 "for=\"[::1]\";host=x\r\n\r\n"),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\ntracestate: a=b\r\n\r\n",
		"1a;name=value\r\n",
	};
	struct http1_request_line request;
	struct http1_status_line status;
	struct http1_fields fields;
	size_t i, len, scanned;
	uint64_t n;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		for (len = 0; len <= strlen(texts[i]); len++) {
			const uint8_t *p = guard_copy(texts[i], len);

			scanned = 0;
			http1_head_length(p, len, &scanned);
			http1_request_line(p, len, &request);
			http1_status_line(p, len, &status);
			http1_chunk_size(p, len, &n);
			http1_fields_read(slice_of(p, len), &fields);
		}
	}
	CHECK(true);
}

int main(void)
{
	test_start_lines();
	test_heads();
	test_framing();
	test_match();
	test_guard();
	return check_result();
}
