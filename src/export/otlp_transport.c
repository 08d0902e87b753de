/*
 * libcurl's multi_socket interface in the agent's epoll loop. libcurl says which sockets to watch
 * and when its next timer is due; we tell it what happened and collect finished transfers.
 * Invariant: a slot that is busy has its easy handle in the multi handle, and done is only called
 * from outside of libcurl's callbacks.
 */
#include "export/otlp_transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "config/options.h"
#include "export/otlp_connect.h"
#include "export/otlp_sockets.h"

enum {
	TRANSPORT_SLOTS = 2,             /* requests in flight */
	TRANSPORT_MAX_ANSWER = 64 << 10, /* bytes of headers and body together */
	TRANSPORT_MAX_FIELD = 8 << 10    /* bytes of one gRPC trailer that is kept */
};

struct slot {
	struct otlp_transport *transport;
	CURL *easy;
	bool busy, too_large;
	void *tag;
	size_t received; /* header and body bytes */
	struct buf body, message, details;
	int grpc_status;
	char error[CURL_ERROR_SIZE];
};

struct otlp_transport {
	const struct otlp_variant *variant;
	struct otlp_sockets sockets;
	otlp_done done;
	void *ctx;
	CURLM *multi;
	struct otlp_connect *connect;
	struct slot slots[TRANSPORT_SLOTS];
	unsigned int in_flight;
	uint64_t now_ns, deadline_ns; /* libcurl's timer; UINT64_MAX: none */
};

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
	struct otlp_transport *t = ctx;
	uint32_t events = 0;

	(void)easy, (void)socket_ctx;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EPOLLOUT;
	return otlp_sockets_want(&t->sockets, fd, events) < 0 && events ? -1 : 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	struct otlp_transport *t = ctx;

	(void)multi;
	t->deadline_ns = timeout_ms < 0 ? UINT64_MAX : t->now_ns + (uint64_t)timeout_ms * 1000000;
	return 0;
}

/* Counts what has arrived; false when that is more than an answer may have. */
static bool receive(struct slot *s, size_t bytes)
{
	s->received += bytes;
	s->too_large = s->received > TRANSPORT_MAX_ANSWER;
	return !s->too_large;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
	struct slot *s = ctx;

	if (!receive(s, size * count))
		return 0;
	buf_append(&s->body, data, size * count);
	return s->body.failed ? 0 : size * count;
}

/* The value when `line` is the field `name`, which is lower case and ends with its colon. */
static bool field_value(struct slice line, const char *name, struct slice *ret)
{
	size_t n = strlen(name);

	if (line.len < n || strncasecmp((const char *)line.data, name, n) != 0)
		return false;
	line = slice_of(line.data + n, line.len - n);
	while (line.len && (line.data[0] == ' ' || line.data[0] == '\t'))
		line = slice_of(line.data + 1, line.len - 1);
	while (line.len && strchr("\r\n \t", line.data[line.len - 1]))
		line.len--;
	*ret = line;
	return true;
}

static void keep_field(struct buf *out, struct slice value)
{
	buf_reset(out);
	if (value.len <= TRANSPORT_MAX_FIELD)
		buf_append(out, value.data, value.len);
}

static int status_number(struct slice value)
{
	int number = 0;
	size_t i;

	for (i = 0; i < value.len; i++) {
		if (value.data[i] < '0' || value.data[i] > '9' || number > 1000)
			return -1;
		number = number * 10 + value.data[i] - '0';
	}
	return value.len ? number : -1;
}

/* Header lines and, behind the body, trailer lines. */
static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
	struct slot *s = ctx;
	struct slice line = slice_of(data, size * count), value;

	if (!s->received)
		otlp_connect_keep(s->transport->connect, s->easy, true);
	if (!receive(s, line.len))
		return 0;
	if (field_value(line, "http/",
			&value)) /* a status line: what an interim answer said is void */
		s->grpc_status = -1;
	else if (field_value(line, "grpc-status:", &value))
		s->grpc_status = status_number(value);
	else if (field_value(line, "grpc-message:", &value))
		keep_field(&s->message, value);
	else if (field_value(line, "grpc-status-details-bin:", &value))
		keep_field(&s->details, value);
	return line.len;
}

static bool slot_open(struct otlp_transport *t, struct slot *s)
{
	s->transport = t;
	s->easy = otlp_connect_handle(t->connect);
	if (!s->easy)
		return false;
	curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
	curl_easy_setopt(s->easy, CURLOPT_ERRORBUFFER, s->error);
	curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(s->easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(s->easy, CURLOPT_HEADERDATA, s);
	return true;
}

struct otlp_transport *otlp_transport_new(const struct options *options,
					  const struct otlp_variant *variant,
					  const struct exporter_loop *loop, otlp_done done,
					  void *ctx, char **ret_error)
{
	struct otlp_transport *t = calloc(1, sizeof(*t));
	bool ok;
	size_t i;

	if (!t)
		goto no_memory;
	*t = (struct otlp_transport){
		.variant = variant, .sockets.loop = *loop, .done = done, .ctx = ctx
	};
	t->deadline_ns = UINT64_MAX;
	t->connect = otlp_connect_new(options, variant, ret_error);
	if (!t->connect) {
		otlp_transport_free(t);
		return NULL;
	}
	t->multi = curl_multi_init();
	ok = t->multi &&
	     curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, on_socket) == CURLM_OK &&
	     curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, t) == CURLM_OK &&
	     curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, on_timer) == CURLM_OK &&
	     curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, t) == CURLM_OK &&
	     curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)TRANSPORT_SLOTS) == CURLM_OK;
	for (i = 0; ok && i < TRANSPORT_SLOTS; i++)
		ok = slot_open(t, &t->slots[i]);
	if (ok)
		return t;
	otlp_transport_free(t);
no_memory:
	*ret_error = strdup("otlp exporter: out of memory");
	return NULL;
}

void otlp_transport_free(struct otlp_transport *t)
{
	size_t i;

	if (!t)
		return;
	for (i = 0; i < TRANSPORT_SLOTS; i++) {
		struct slot *s = &t->slots[i];

		if (s->busy)
			curl_multi_remove_handle(t->multi, s->easy);
		curl_easy_cleanup(s->easy);
		buf_free(&s->body);
		buf_free(&s->message);
		buf_free(&s->details);
	}
	curl_multi_cleanup(t->multi);
	otlp_connect_free(t->connect);
	free(t);
}

const char *otlp_transport_url(const struct otlp_transport *t)
{
	return otlp_connect_display(t->connect);
}

bool otlp_transport_full(const struct otlp_transport *t)
{
	return t->in_flight == TRANSPORT_SLOTS;
}

unsigned int otlp_transport_in_flight(const struct otlp_transport *t)
{
	return t->in_flight;
}

bool otlp_transport_send(struct otlp_transport *t, struct slice body, void *tag, uint64_t now_ns)
{
	struct slot *s = t->slots;

	t->now_ns = now_ns;
	if (otlp_transport_full(t))
		return false;
	while (s->busy)
		s++;
	buf_reset(&s->body);
	buf_reset(&s->message);
	buf_reset(&s->details);
	s->tag = tag;
	s->received = 0;
	s->too_large = false;
	s->grpc_status = -1;
	s->error[0] = '\0';
	otlp_connect_keep(t->connect, s->easy, false);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDS, body.data);
	curl_easy_setopt(s->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
	if (curl_multi_add_handle(t->multi, s->easy) != CURLM_OK)
		return false;
	s->busy = true;
	t->in_flight++;
	return true;
}

static void finish(struct otlp_transport *t, struct slot *s, CURLcode code)
{
	struct otlp_answer answer = { .too_large = s->too_large, .grpc_status = s->grpc_status };
	curl_off_t retry_after = 0;
	long os_error = 0;
	char *type = NULL;

	curl_multi_remove_handle(t->multi, s->easy);
	s->busy = false;
	t->in_flight--;
	curl_easy_getinfo(s->easy, CURLINFO_OS_ERRNO, &os_error);
	if (code == CURLE_COULDNT_CONNECT && os_error)
		answer.error = strerror((int)os_error);
	else if (code != CURLE_OK)
		answer.error = s->error[0] ? s->error : curl_easy_strerror(code);
	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &answer.http_status);
	curl_easy_getinfo(s->easy, CURLINFO_RETRY_AFTER, &retry_after);
	curl_easy_getinfo(s->easy, CURLINFO_CONTENT_TYPE, &type);
	answer.retry_after_s = retry_after;
	answer.content_type = type ? type : "";
	answer.grpc_message = buf_cstr(&s->message);
	answer.grpc_details = buf_cstr(&s->details);
	answer.body = slice_of(s->body.data, s->body.len);
	t->done(t->ctx, s->tag, &answer, t->now_ns);
}

static void collect(struct otlp_transport *t)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(t->multi, &left))) {
		CURLcode code = message->data.result;
		char *slot = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &slot);
		finish(t, (struct slot *)(void *)slot, code);
	}
}

/* Bytes of the requests in flight that libcurl has passed on. */
static uint64_t sent_bytes(const struct otlp_transport *t)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < TRANSPORT_SLOTS; i++) {
		curl_off_t bytes = 0;

		if (t->slots[i].busy)
			curl_easy_getinfo(t->slots[i].easy, CURLINFO_SIZE_UPLOAD_T, &bytes);
		sum += (uint64_t)bytes;
	}
	return sum;
}

void otlp_transport_ready(struct otlp_transport *t, int fd, uint32_t events, uint64_t now_ns)
{
	unsigned int in_flight = t->in_flight;
	uint64_t before = sent_bytes(t);
	int what = 0, running;

	t->now_ns = now_ns;
	if (events & EPOLLIN)
		what |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		what |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		what |= CURL_CSELECT_ERR;
	curl_multi_socket_action(t->multi, fd, what, &running);
	collect(t);
	otlp_sockets_told(&t->sockets, fd, events,
			  sent_bytes(t) != before || t->in_flight != in_flight, now_ns);
}

void otlp_transport_tick(struct otlp_transport *t, uint64_t now_ns)
{
	int running;

	t->now_ns = now_ns;
	otlp_sockets_tick(&t->sockets, now_ns);
	if (now_ns < t->deadline_ns)
		return;
	t->deadline_ns = UINT64_MAX;
	curl_multi_socket_action(t->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	collect(t);
}

uint64_t otlp_transport_next_tick(const struct otlp_transport *t)
{
	uint64_t sockets_ns = otlp_sockets_next_tick(&t->sockets);

	return t->deadline_ns < sockets_ns ? t->deadline_ns : sockets_ns;
}
