/*
 * The OTLP endpoint, from the text a user gives to the URL that is used. Sources: OpenTelemetry
 * "OTLP Exporter Configuration" and RFC 3986. Refuses what would otherwise fail far from its cause:
 * other schemes, missing hosts, ports out of range, a path where gRPC takes none.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "config/internal.h"

#define OTLP_HTTP_PATH "/v1/traces"
#define OTLP_GRPC_PORT "4317"

struct url {
	bool tls;
	const char *authority; /* host, [host], with :port or without */
	size_t authority_len;
	bool has_port;
	const char *path; /* all behind the authority, with the query */
};

static bool parse_port_digits(const char *p, const char *end)
{
	unsigned long port = 0;

	if (p == end)
		return false;
	for (; p < end; p++) {
		if (!isdigit((unsigned char)*p))
			return false;
		port = port * 10 + (unsigned long)(*p - '0');
		if (port > 65535)
			return false;
	}
	return port > 0;
}

static bool parse_authority(struct url *u)
{
	const char *end = u->authority + u->authority_len, *host = u->authority, *host_end, *at;

	at = memrchr(host, '@', u->authority_len);
	if (at)
		host = at + 1;
	if (host < end && *host == '[') {
		host_end = memchr(host, ']', (size_t)(end - host));
		if (!host_end || host_end == host + 1)
			return false;
		host_end++;
	} else {
		host_end = memchr(host, ':', (size_t)(end - host));
		if (!host_end)
			host_end = end;
	}
	if (host_end == host)
		return false;
	u->has_port = host_end < end;
	return !u->has_port || (*host_end == ':' && parse_port_digits(host_end + 1, end));
}

static bool only_printable(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text <= ' ' || *text == 0x7f)
			return false;
	}
	return true;
}

/* `ret_scheme` false: there was none, and u->tls is untouched. */
static bool parse_url(const char *text, struct url *u, bool *ret_scheme)
{
	const char *sep = strstr(text, "://");

	*ret_scheme = sep != NULL;
	if (sep) {
		size_t len = (size_t)(sep - text);

		if (len == 4 && strncasecmp(text, "http", 4) == 0)
			u->tls = false;
		else if (len == 5 && strncasecmp(text, "https", 5) == 0)
			u->tls = true;
		else
			return false;
		text = sep + 3;
	}
	u->authority = text;
	u->authority_len = strcspn(text, "/?#");
	u->path = text + u->authority_len;
	return only_printable(text) && parse_authority(u);
}

static void append_http_path(struct buf *out, const struct url *u, enum endpoint_form form)
{
	size_t len = strcspn(u->path, "?#"), tail = strlen(OTLP_HTTP_PATH);
	bool complete = len >= tail && memcmp(u->path + len - tail, OTLP_HTTP_PATH, tail) == 0;

	if (form == ENDPOINT_VERBATIM || (form == ENDPOINT_FLAG && complete)) {
		if (len == 0)
			buf_append_char(out, '/');
		buf_append_str(out, u->path);
		return;
	}
	while (len && u->path[len - 1] == '/')
		len--;
	buf_append(out, u->path, len);
	buf_append_str(out, OTLP_HTTP_PATH);
	buf_append_str(out, u->path + strcspn(u->path, "?#"));
}

int endpoint_parse(const char *text, enum otlp_protocol protocol, enum endpoint_form form,
		   bool insecure, char **ret_url, const char **ret_why)
{
	struct url u = { .tls = !insecure };
	struct buf out = { 0 };
	bool has_scheme;

	if (!parse_url(text, &u, &has_scheme) || (!has_scheme && protocol != OTLP_GRPC)) {
		*ret_why = protocol == OTLP_GRPC
				   ? "http://HOST:PORT, https://HOST:PORT or HOST:PORT"
				   : "http://HOST:PORT/PATH or https://HOST:PORT/PATH";
		return -EINVAL;
	}
	if (protocol == OTLP_GRPC && *u.path && strcmp(u.path, "/") != 0) {
		*ret_why = "without a path for OTLP/gRPC; for OTLP/HTTP set "
			   "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf";
		return -EINVAL;
	}
	buf_append_str(&out, u.tls ? "https://" : "http://");
	buf_append(&out, u.authority, u.authority_len);
	/* A URL without a port means its scheme's; a bare host has no scheme, so it means OTLP's.
	 */
	if (!has_scheme && !u.has_port)
		buf_append_str(&out, ":" OTLP_GRPC_PORT);
	if (protocol == OTLP_HTTP_PROTOBUF)
		append_http_path(&out, &u, form);
	buf_append_char(&out, 0);
	if (out.failed) {
		buf_free(&out);
		return -ENOMEM;
	}
	*ret_url = (char *)out.data;
	return 0;
}
