/*
 * OTLP/HTTP with binary protobuf: https://opentelemetry.io/docs/specs/otlp/#otlphttp. The endpoint
 * is used as it is; 429, 502, 503 and 504 are tried again, every other failure is final.
 */
#include "export/otlp_answer.h"

#include "config/options.h"
#include "export/otlp_encode.h"

static bool http_headers(const struct options *options, struct curl_slist **list)
{
	return otlp_header_add(list, "Content-Type: application/x-protobuf") &&
	       (!options->otlp_gzip || otlp_header_add(list, "Content-Encoding: gzip"));
}

static void http_frame(struct slice message, bool gzip, struct buf *out)
{
	(void)gzip; /* said by the header */
	buf_append(out, message.data, message.len);
}

static bool is_json(const char *content_type)
{
	return strncasecmp(content_type, "application/json", strlen("application/json")) == 0;
}

static bool is_protobuf(const char *content_type)
{
	return strncasecmp(content_type, "application/x-protobuf",
			   strlen("application/x-protobuf")) == 0;
}

static void http_judge(const struct otlp_answer *answer, struct otlp_verdict *ret)
{
	long status = answer->http_status;
	enum otlp_outcome outcome = OTLP_REFUSED;
	char why[OTLP_TEXT_BYTES / 2] = "";
	uint64_t unused;

	if (otlp_judge_transfer(answer, ret))
		return;
	if (status >= 200 && status < 300) {
		otlp_judge_response(answer->body, is_json(answer->content_type), ret);
		return;
	}
	if (status == 429 || status == 502 || status == 503 || status == 504)
		outcome = OTLP_BUSY;
	if (is_protobuf(answer->content_type))
		otlp_rpc_status(answer->body, why, sizeof(why), &unused);
	otlp_verdict_set(ret, outcome, "it answers HTTP %ld%s%s", status, why[0] ? ": " : "", why);
	if (answer->retry_after_s > 0)
		ret->retry_after_ms = (uint64_t)answer->retry_after_s * 1000;
}

const struct otlp_variant otlp_http_variant = {
	.path = "",
	.speaks = "OTLP/HTTP",
	.port = "4318",
	.http2 = false,
	.headers = http_headers,
	.frame = http_frame,
	.judge = http_judge,
};
