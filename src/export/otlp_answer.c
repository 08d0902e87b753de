/* What OTLP/HTTP and OTLP/gRPC answers have in common. Nothing of an answer is trusted or shown
 * unescaped. */
#include "export/otlp_answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "export/otlp_encode.h"
#include "grpc_status.pb-c.h"

enum { RETRY_MAX_MS = 10 * 60 * 1000 }; /* who asks for a longer rest than this does not get it */

bool otlp_header_add(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);

	if (!longer)
		return false;
	*list = longer;
	return true;
}

void otlp_verdict_set(struct otlp_verdict *v, enum otlp_outcome outcome, const char *fmt, ...)
{
	va_list ap;

	*v = (struct otlp_verdict){ .outcome = outcome };
	va_start(ap, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
}

void otlp_printable(struct slice text, char *ret, size_t size)
{
	size_t i;

	for (i = 0; i < text.len && i < size - 1; i++)
		ret[i] = text.data[i] >= 0x20 && text.data[i] < 0x7f ? (char)text.data[i] : '?';
	ret[i] = '\0';
}

bool otlp_judge_transfer(const struct otlp_answer *answer, struct otlp_verdict *ret)
{
	if (answer->too_large) {
		otlp_verdict_set(ret, OTLP_REFUSED,
				 "its answer does not end; it is no OTLP collector");
		return true;
	}
	if (!answer->error)
		return false;
	otlp_verdict_set(ret, OTLP_UNREACHABLE, "%s", answer->error);
	return true;
}

void otlp_judge_response(struct slice message, bool json, struct otlp_verdict *ret)
{
	struct otlp_response response = { 0 };

	if (!json && message.len && !otlp_decode_response(message.data, message.len, &response)) {
		otlp_verdict_set(ret, OTLP_REFUSED, "its answer is not OTLP");
		return;
	}
	otlp_verdict_set(ret, OTLP_ACCEPTED, "%s", response.message);
	ret->rejected_spans = response.rejected_spans;
}

static uint64_t delay_ms(const Rpc__Duration *d)
{
	if (!d || d->seconds < 0 || d->nanos < 0)
		return 0;
	if (d->seconds >= RETRY_MAX_MS / 1000)
		return RETRY_MAX_MS;
	return (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000;
}

bool otlp_rpc_status(struct slice data, char *ret, size_t size, uint64_t *ret_delay_ms)
{
	static const char retry_info[] = "type.googleapis.com/google.rpc.RetryInfo";
	Rpc__Status *status = rpc__status__unpack(NULL, data.len, data.data);
	size_t i;

	if (!status)
		return false;
	otlp_printable(slice_of(status->message.data, status->message.len), ret, size);
	*ret_delay_ms = UINT64_MAX;
	for (i = 0; i < status->n_details; i++) {
		const Rpc__Any *any = status->details[i];
		Rpc__RetryInfo *info = NULL;

		if (slice_eq(slice_of(any->type_url.data, any->type_url.len), retry_info))
			info = rpc__retry_info__unpack(NULL, any->value.len, any->value.data);
		if (!info)
			continue;
		*ret_delay_ms = delay_ms(info->retry_delay);
		rpc__retry_info__free_unpacked(info, NULL);
	}
	rpc__status__free_unpacked(status, NULL);
	return true;
}
