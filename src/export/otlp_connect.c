/*
 * Options of the user to options of libcurl. Nothing is connected here. Invariant: an otlp_connect
 * that exists has a URL that parses, header lines without control characters, and certificate files
 * that could be read.
 */
#include "export/otlp_connect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/options.h"
#include "export/otlp_encode.h"

struct otlp_connect {
	const struct otlp_variant *variant;
	struct curl_slist *headers;
	char *url, *display;
	char *ca, *key, *certificate; /* paths, NULL: none */
	long timeout_ms;
	bool tls, loopback;
};

static char *error_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static char *error_text(const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	return text;
}

static char *copy_path(const char *path, const char *variable, char **ret_error)
{
	char *copy;

	if (!path || *ret_error)
		return NULL;
	if (access(path, R_OK) < 0) {
		*ret_error = error_text(
			"%s: %s can't be read: %s; name a PEM file that the agent may read",
			variable, path, strerror(errno));
		return NULL;
	}
	copy = strdup(path);
	if (!copy)
		*ret_error = strdup("otlp exporter: out of memory");
	return copy;
}

static bool is_loopback(const char *host)
{
	return strcasecmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
	       strcmp(host, "[::1]") == 0;
}

/* Puts the variant's path behind the endpoint's own. */
static bool append_path(CURLU *url, const char *path)
{
	char *own = NULL, *whole = NULL;
	size_t len;
	bool ok;

	if (!path[0])
		return true;
	if (curl_url_get(url, CURLUPART_PATH, &own, 0) != CURLUE_OK)
		return false;
	len = strlen(own);
	while (len && own[len - 1] == '/')
		len--;
	ok = asprintf(&whole, "%.*s%s", (int)len, own, path) >= 0 &&
	     curl_url_set(url, CURLUPART_PATH, whole, 0) == CURLUE_OK;
	free(whole);
	curl_free(own);
	return ok;
}

/* The endpoint without what may be secret in it, and without the variant's path. */
static char *display_of(const char *endpoint)
{
	CURLU *url = curl_url();
	char *text = NULL, *copy;

	if (url && curl_url_set(url, CURLUPART_URL, endpoint, 0) == CURLUE_OK) {
		curl_url_set(url, CURLUPART_USER, NULL, 0);
		curl_url_set(url, CURLUPART_PASSWORD, NULL, 0);
		curl_url_set(url, CURLUPART_QUERY, NULL, 0);
		curl_url_get(url, CURLUPART_URL, &text, 0);
	}
	copy = text ? strdup(text) : NULL;
	if (copy && *copy && copy[strlen(copy) - 1] == '/')
		copy[strlen(copy) - 1] = '\0';
	curl_free(text);
	curl_url_cleanup(url);
	return copy;
}

static bool set_url(struct otlp_connect *c, const char *endpoint, char **ret_error)
{
	char *scheme = NULL, *host = NULL, *whole = NULL;
	CURLU *url = curl_url();

	if (url && curl_url_set(url, CURLUPART_URL, endpoint, 0) == CURLUE_OK &&
	    curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
	    curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
	    append_path(url, c->variant->path) &&
	    curl_url_get(url, CURLUPART_URL, &whole, 0) == CURLUE_OK) {
		c->tls = strcmp(scheme, "https") == 0;
		c->loopback = is_loopback(host);
		c->url = strdup(whole);
		c->display = display_of(endpoint);
	}
	if (!c->url || !c->display)
		*ret_error = error_text(
			"OTEL_EXPORTER_OTLP_ENDPOINT: '%s' is not a URL that spans can be sent to; "
			"it looks like http://localhost:%s or https://…",
			endpoint, c->variant->port);
	curl_free(whole);
	curl_free(scheme);
	curl_free(host);
	curl_url_cleanup(url);
	return !*ret_error;
}

static bool header_valid(const struct key_value *h)
{
	const char *p;

	for (p = h->key; *p; p++) {
		if (*p <= ' ' || *p >= 0x7f || *p == ':')
			return false;
	}
	for (p = h->value; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	}
	return h->key[0] != '\0';
}

static bool add_user_header(struct otlp_connect *c, const struct key_value *h, char **ret_error)
{
	char *line = NULL;
	bool ok;

	if (!header_valid(h)) {
		*ret_error = error_text(
			"OTEL_EXPORTER_OTLP_HEADERS: the header '%s' has a character that HTTP "
			"does "
			"not allow; write name=value, percent-encoded, separated by commas",
			h->key);
		return false;
	}
	/* A ';' is how libcurl takes a header without a value. */
	ok = asprintf(&line, h->value[0] ? "%s: %s" : "%s;%s", h->key, h->value) >= 0 &&
	     otlp_header_add(&c->headers, line);
	free(line);
	return ok;
}

static bool set_headers(struct otlp_connect *c, const struct options *options, char **ret_error)
{
	bool ok = c->variant->headers(options, &c->headers) &&
		  otlp_header_add(&c->headers, "User-Agent: spanloom/" SPANLOOM_VERSION) &&
		  otlp_header_add(&c->headers,
				  "Expect:"); /* no 100-continue: it costs a round trip */
	size_t i;

	for (i = 0; ok && i < options->otlp_header_count; i++)
		ok = add_user_header(c, &options->otlp_headers[i], ret_error);
	if (!ok && !*ret_error)
		*ret_error = strdup("otlp exporter: out of memory");
	return ok;
}

struct otlp_connect *otlp_connect_new(const struct options *options,
				      const struct otlp_variant *variant, char **ret_error)
{
	struct otlp_connect *c = calloc(1, sizeof(*c));
	char *error = NULL;

	if (!c || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(c);
		*ret_error = strdup("otlp exporter: out of memory");
		return NULL;
	}
	c->variant = variant;
	c->timeout_ms =
		(long)(options->otlp_timeout_ms < INT32_MAX ? options->otlp_timeout_ms : INT32_MAX);
	if (set_url(c, options->otlp_endpoint, &error) && set_headers(c, options, &error)) {
		c->ca = copy_path(options->otlp_certificate, "OTEL_EXPORTER_OTLP_CERTIFICATE",
				  &error);
		c->key = copy_path(options->otlp_client_key, "OTEL_EXPORTER_OTLP_CLIENT_KEY",
				   &error);
		c->certificate = copy_path(options->otlp_client_certificate,
					   "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &error);
	}
	if (!error)
		return c;
	otlp_connect_free(c);
	*ret_error = error;
	return NULL;
}

void otlp_connect_free(struct otlp_connect *c)
{
	if (!c)
		return;
	curl_slist_free_all(c->headers);
	free(c->url);
	free(c->display);
	free(c->ca);
	free(c->key);
	free(c->certificate);
	free(c);
	curl_global_cleanup();
}

const char *otlp_connect_display(const struct otlp_connect *c)
{
	return c->display;
}

static void set_tls(const struct otlp_connect *c, CURL *easy)
{
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (c->ca) {
		/* The user's authority in the place of the system's, not beside them. */
		curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	if (c->certificate)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, c->certificate);
	if (c->key)
		curl_easy_setopt(easy, CURLOPT_SSLKEY, c->key);
}

/*
 * libcurl 7.87 to 7.88 (Debian 12) put a second layer of HTTP/2 on a connection with prior
 * knowledge that they use again, and every request on it fails (curl issue 10634, mended in 8.0):
 * there each request has its own connection.
 */
static bool reuse_is_broken(void)
{
	unsigned int version = curl_version_info(CURLVERSION_NOW)->version_num;

	return version >= 0x075700 && version < 0x080000;
}

static void set_http2(const struct otlp_connect *c, CURL *easy)
{
	curl_easy_setopt(
		easy, CURLOPT_HTTP_VERSION,
		(long)(c->tls ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
	if (!c->tls && reuse_is_broken()) {
		curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
		return;
	}
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L); /* one connection for all requests */
}

void otlp_connect_keep(const struct otlp_connect *c, CURL *easy, bool keep)
{
	if (!c->variant->http2 || (!c->tls && reuse_is_broken()))
		return;
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, keep ? 0L : 1L);
}

CURL *otlp_connect_handle(const struct otlp_connect *c)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		return NULL;
	if (c->variant->http2)
		set_http2(c, easy);
	else
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_POST, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, c->headers);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, c->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	/* Never wait for a name lookup that hangs. */
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	/* A proxy would look for a collector on its own host. */
	if (c->loopback)
		curl_easy_setopt(easy, CURLOPT_PROXY, "");
	else if (c->variant->http2)
		curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
	if (c->tls)
		set_tls(c, easy);
	if (curl_easy_setopt(easy, CURLOPT_URL, c->url) != CURLE_OK) {
		curl_easy_cleanup(easy);
		return NULL;
	}
	return easy;
}
