/* Builds the attributes of HTTP spans. Nothing is invented: what the head does not say is left out.
 */
#include "protocols/http1_span.h"

#include <inttypes.h>
#include <stdio.h>

#include "trace/redact.h"

enum { PORT_HTTP = 80, PORT_HTTPS = 443 };

struct authority {
	struct slice host;
	int port; /* 0: none */
};

/* Who the request was meant for and came from, proxies considered. */
struct origin {
	struct authority server;
	struct slice client, scheme;
};

static struct slice cut(struct slice s, size_t max)
{
	if (s.len <= max)
		return s;
	/* Not within a UTF-8 character. */
	while (max && (s.data[max] & 0xc0) == 0x80)
		max--;
	return slice_of(s.data, max);
}

static int parse_port(struct slice s)
{
	int port = 0;
	size_t i;

	if (!s.len || s.len > 5)
		return 0;
	for (i = 0; i < s.len; i++) {
		if (s.data[i] < '0' || s.data[i] > '9')
			return 0;
		port = port * 10 + (s.data[i] - '0');
	}
	return port <= UINT16_MAX ? port : 0;
}

static struct slice without_user_info(struct slice s)
{
	const uint8_t *at = s.len ? memrchr(s.data, '@', s.len) : NULL;

	return at ? slice_of(at + 1, s.len - (size_t)(at + 1 - s.data)) : s;
}

/* "host", "host:port", "[v6]", "[v6]:port", a bare IPv6 address. */
static struct authority parse_authority(struct slice text)
{
	struct slice s = without_user_info(text);
	struct authority a = { .host = s };
	const uint8_t *end, *colon;

	if (!s.len)
		return a;
	if (s.data[0] == '[' && (end = memchr(s.data, ']', s.len))) {
		size_t used = (size_t)(end - s.data) + 1;

		a.host = slice_of(s.data + 1, used - 2);
		if (used < s.len && s.data[used] == ':')
			a.port = parse_port(slice_of(s.data + used + 1, s.len - used - 1));
		return a;
	}
	colon = memrchr(s.data, ':', s.len);
	if (colon && memchr(s.data, ':', s.len) == colon) {
		a.host.len = (size_t)(colon - s.data);
		a.port = parse_port(slice_of(colon + 1, s.len - a.host.len - 1));
	}
	return a;
}

static struct slice unquote(struct slice s)
{
	s = http1_trim(s);
	if (s.len >= 2 && s.data[0] == '"' && s.data[s.len - 1] == '"')
		return slice_of(s.data + 1, s.len - 2);
	return s;
}

static struct slice first_item(struct slice list)
{
	struct slice item = { 0 };

	http1_list_next(&list, &item);
	return item;
}

/* An obfuscated or unknown node of RFC 7239, 6 is no address. */
static struct slice node_address(struct slice node)
{
	if (!node.len || node.data[0] == '_' || slice_caseeq(node, "unknown"))
		return slice_of(NULL, 0);
	return parse_authority(node).host;
}

/* The first element of Forwarded (RFC 7239): for, host and proto of the first proxy. */
static void read_forwarded(struct slice value, struct origin *o)
{
	struct slice element = first_item(value);

	while (element.len) {
		const uint8_t *semi = memchr(element.data, ';', element.len), *eq;
		size_t n = semi ? (size_t)(semi - element.data) : element.len;
		struct slice pair = http1_trim(slice_of(element.data, n)), name, text;

		n += semi != NULL;
		element = slice_of(element.data + n, element.len - n);
		eq = pair.len ? memchr(pair.data, '=', pair.len) : NULL;
		if (!eq)
			continue;
		name = slice_of(pair.data, (size_t)(eq - pair.data));
		text = unquote(slice_of(eq + 1, pair.len - name.len - 1));
		if (slice_caseeq(name, "for"))
			o->client = node_address(text);
		else if (slice_caseeq(name, "host"))
			o->server = parse_authority(text);
		else if (slice_caseeq(name, "proto"))
			o->scheme = text;
	}
}

static void read_x_forwarded(const struct http1_fields *f, struct origin *o)
{
	if (!o->client.len)
		o->client = node_address(first_item(f->forwarded_for));
	if (!o->server.host.len)
		o->server = parse_authority(first_item(f->forwarded_host));
	if (!o->scheme.len)
		o->scheme = first_item(f->forwarded_proto);
}

/* Splits "scheme://authority/rest"; false for the other forms of a target. */
static bool split_absolute(struct slice target, struct slice *ret_scheme,
			   struct slice *ret_authority, struct slice *ret_rest)
{
	const uint8_t *sep, *p, *end = target.data + target.len;

	if (!target.len || target.data[0] == '/' || target.data[0] == '*')
		return false;
	sep = memmem(target.data, target.len, "://", 3);
	if (!sep || memchr(target.data, '/', (size_t)(sep - target.data)))
		return false;
	for (p = sep + 3; p < end && *p != '/' && *p != '?' && *p != '#'; p++)
		;
	*ret_scheme = slice_of(target.data, (size_t)(sep - target.data));
	*ret_authority = slice_of(sep + 3, (size_t)(p - sep - 3));
	*ret_rest = slice_of(p, (size_t)(end - p));
	return true;
}

static int default_port(struct slice scheme)
{
	return slice_caseeq(scheme, "https")  ? PORT_HTTPS
	       : slice_caseeq(scheme, "http") ? PORT_HTTP
					      : 0;
}

static bool known_method(struct slice m)
{
	static const char *const methods[] = { "GET",   "POST",    "PUT",   "HEAD",    "DELETE",
					       "PATCH", "OPTIONS", "TRACE", "CONNECT", "QUERY" };
	size_t i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (slice_eq(m, methods[i]))
			return true;
	}
	return false;
}

static void add_method(struct span *s, struct slice method)
{
	if (known_method(method)) {
		span_set_name(s, method);
		span_add_str(s, "http.request.method", method);
		return;
	}
	span_set_name(s, slice_str("HTTP"));
	span_add_str(s, "http.request.method", slice_str("_OTHER"));
	span_add_str(s, "http.request.method_original", method);
}

/* "1.0", "1.1": a digit stands for itself. */
static void add_version(struct span *s, int minor)
{
	char version[] = "1.0";

	if (minor < 0)
		return; /* the line was cut off before it */
	version[2] = (char)('0' + minor);
	span_add_str(s, "network.protocol.version", slice_str(version));
}

static void add_server(struct span *s, struct authority a)
{
	if (!a.host.len)
		return;
	span_add_str(s, "server.address", cut(a.host, HTTP1_HOST_MAX_BYTES));
	if (a.port)
		span_add_int(s, "server.port", a.port);
}

/* The request as the server sees it: `rest` is the target from its path on. */
static void add_server_side(struct span *s, struct slice rest, const struct origin *o,
			    const struct net_text *net, struct buf *work)
{
	const uint8_t *question = rest.len ? memchr(rest.data, '?', rest.len) : NULL;
	size_t path = question ? (size_t)(question - rest.data) : rest.len;
	struct slice client = o->client.len ? o->client : net_peer(net);

	span_add_str(s, "url.path", cut(slice_of(rest.data, path), HTTP1_PATH_MAX_BYTES));
	if (question && path + 1 < rest.len) {
		buf_reset(work);
		redact_query(work, slice_of(question + 1, rest.len - path - 1),
			     HTTP1_QUERY_MAX_BYTES);
		span_add_str(s, "url.query", slice_of(work->data, work->len));
	}
	span_add_str(s, "url.scheme", cut(o->scheme, HTTP1_HOST_MAX_BYTES));
	add_server(s, o->server);
	if (client.len)
		span_add_str(s, "client.address", cut(client, HTTP1_HOST_MAX_BYTES));
}

/* A client's URL: the target when it is a whole one, else scheme, host and target. */
static void add_client_side(struct span *s, const struct http1_request_line *line,
			    struct slice host, const struct origin *o, bool absolute,
			    struct buf *work)
{
	buf_reset(work);
	host = cut(without_user_info(host), HTTP1_HOST_MAX_BYTES);
	if (absolute) {
		redact_url(work, line->target, HTTP1_URL_MAX_BYTES);
	} else if (slice_eq(line->method, "CONNECT")) {
		buf_append(work, host.data, host.len);
	} else {
		buf_append(work, o->scheme.data, o->scheme.len);
		buf_append_str(work, "://");
		buf_append(work, host.data, host.len);
		if (!slice_eq(line->target, "*"))
			redact_url(work, line->target, HTTP1_URL_MAX_BYTES - HTTP1_HOST_MAX_BYTES);
	}
	span_add_str(s, "url.full", slice_of(work->data, work->len));
	add_server(s, o->server);
}

/* "host:port" of the end that serves, for requests without Host. */
static struct slice address_authority(struct connection *c, const struct net_text *net, char *out,
				      size_t cap)
{
	struct slice host = net_server(net, c);
	bool v6 = c->info.family == CONN_INET6;
	int n = snprintf(out, cap, "%s%.*s%s", v6 ? "[" : "", (int)host.len,
			 (const char *)host.data, v6 ? "]" : "");

	if (net_server_port(c))
		n += snprintf(out + n, cap - (size_t)n, ":%u", net_server_port(c));
	return slice_of(out, (size_t)n);
}

static void set_context(struct exchange *ex, const struct http1_fields *f, struct buf *work)
{
	unsigned int i;

	/* Two of them are none (W3C Trace Context, 3.2). */
	if (f->traceparent_count != 1)
		return;
	buf_reset(work);
	for (i = 0; i < f->tracestate_count; i++) {
		if (work->len + f->tracestate[i].len + 1 > HTTP1_TRACESTATE_MAX_BYTES)
			break;
		if (work->len && f->tracestate[i].len)
			buf_append_char(work, ',');
		buf_append(work, f->tracestate[i].data, f->tracestate[i].len);
	}
	exchange_set_context(ex, f->traceparent, slice_of(work->data, work->len));
}

void http1_span_request(struct exchange *ex, const struct http1_request_line *line,
			const struct http1_fields *fields, const struct net_text *net,
			struct buf *work)
{
	struct connection *c = ex->conn;
	bool server = c->role == ROLE_SERVER, connect = slice_eq(line->method, "CONNECT");
	struct slice host = fields->host, rest = line->target, authority, scheme;
	struct origin o = { 0 };
	char text[NET_ADDRESS_BYTES + 16];
	bool absolute;

	if (server) {
		read_forwarded(fields->forwarded, &o);
		read_x_forwarded(fields, &o);
	}
	absolute = split_absolute(line->target, &scheme, &authority, &rest);
	if (absolute) {
		host = authority;
		if (!o.scheme.len)
			o.scheme = scheme;
	} else if (connect) {
		host = line->target;
		rest = slice_of(line->target.data, 0);
	}
	if (!o.scheme.len)
		o.scheme = slice_str("http");
	if (!host.len)
		host = address_authority(c, net, text, sizeof(text));
	if (!o.server.host.len)
		o.server = parse_authority(host);
	if (!o.server.port && !(c->info.family == CONN_UNIX && !fields->host.len))
		o.server.port = default_port(o.scheme);

	add_method(ex->span, line->method);
	if (server)
		add_server_side(ex->span, rest, &o, net, work);
	else
		add_client_side(ex->span, line, host, &o, absolute, work);
	net_add_peer(ex->span, net, c);
	add_version(ex->span, line->minor);
	if (server && fields->user_agent.len)
		span_add_str(ex->span, "user_agent.original",
			     cut(fields->user_agent, HTTP1_USER_AGENT_MAX_BYTES));
	set_context(ex, fields, work);
}

void http1_span_unread_request(struct exchange *ex, const struct net_text *net)
{
	span_set_name(ex->span, slice_str("HTTP"));
	span_add_str(ex->span, "http.request.method", slice_str("_OTHER"));
	net_add_peer(ex->span, net, ex->conn);
}

void http1_span_route(struct exchange *ex)
{
	struct slice method = span_name(ex->span), route = slice_str(ex->route);
	struct buf name = { 0 };

	buf_append(&name, method.data, method.len);
	buf_append_char(&name, ' ');
	buf_append(&name, route.data, route.len);
	if (!name.failed)
		span_set_name(ex->span, slice_of(name.data, name.len));
	span_add_str(ex->span, "http.route", route);
	buf_free(&name);
}

void http1_span_status(struct span *s, int status)
{
	char text[16];

	span_add_int(s, "http.response.status_code", status);
	if (status >= (s->kind == SPAN_SERVER ? 500 : 400)) {
		snprintf(text, sizeof(text), "%d", status);
		span_set_error(s, slice_str(text));
	}
}
