/* Secrets in URLs and queries. */
#include "check.h"
#include "trace/redact.h"

static const char *query(const char *text, size_t max)
{
	static struct buf out;

	buf_reset(&out);
	redact_query(&out, slice_str(text), max);
	return buf_cstr(&out);
}

static const char *url(const char *text, size_t max)
{
	static struct buf out;

	buf_reset(&out);
	redact_url(&out, slice_str(text), max);
	return buf_cstr(&out);
}

int main(void)
{
	static const char *const secret[] = {
		"sig",
		"Signature",
		"AWSAccessKeyId",
		"X-Amz-Credential",
		"x-amz-anything",
		"X-Goog-Signature",
		"token",
		"access_token",
		"refreshToken",
		"password",
		"PASSWORD",
		"client_secret",
		"api_key",
		"apikey",
		"api-key",
		"code",
		"user%5Bpassword%5D",
		"to%6ben",
		"p%61ssword",
		"jwt",
	};
	static const char *const plain[] = { "q",  "page",   "signal", "sort",  "country_code",
					     "id", "x-amaz", "",       "design" };
	char deep[400];
	size_t i;

	for (i = 0; i < sizeof(secret) / sizeof(secret[0]); i++)
		check_count(redact_is_secret_key(slice_str(secret[i])), __FILE__, __LINE__,
			    secret[i]);
	for (i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		check_count(!redact_is_secret_key(slice_str(plain[i])), __FILE__, __LINE__,
			    plain[i]);

	CHECK_STR(query("", 99), "");
	CHECK_STR(query("a=1&b=2", 99), "a=1&b=2");
	CHECK_STR(query("a=1&token=xyz&b=2", 99), "a=1&token=REDACTED&b=2");
	CHECK_STR(query("token=xyz", 99), "token=REDACTED");
	CHECK_STR(query("token=", 99), "token=REDACTED");
	CHECK_STR(query("token", 99), "token");
	CHECK_STR(query("token=a=b&&x", 99), "token=REDACTED&&x");
	CHECK_STR(query("a=1;password=x;b=2", 99), "a=1;password=REDACTED;b=2");
	CHECK_STR(query("a=1&token=xyz", 8), "a=1&toke");
	CHECK_STR(query("token=xyz", 8), "token=RE");
	CHECK_STR(query("a=12345", 4), "a=12");

	CHECK_STR(url("/a/b?x=1&sig=2", 99), "/a/b?x=1&sig=REDACTED");
	CHECK_STR(url("http://u:p@h:1/a?token=1", 99),
		  "http://REDACTED:REDACTED@h:1/a?token=REDACTED");
	CHECK_STR(url("https://u@h/", 99), "https://REDACTED@h/");
	CHECK_STR(url("http://h/a@b", 99), "http://h/a@b");
	CHECK_STR(url("http://h", 99), "http://h");
	CHECK_STR(url("http://u:p@h?a@b", 99), "http://REDACTED:REDACTED@h?a@b");
	CHECK_STR(url("http://a@b@h/", 99), "http://REDACTED@h/");
	CHECK_STR(url("/x?u=http://u:p@h/", 99), "/x?u=http://u:p@h/");
	CHECK_STR(url("://x", 99), "://x");
	CHECK_STR(url("h:443", 99), "h:443");
	CHECK_STR(url("", 99), "");
	CHECK_STR(url("/abcdef", 4), "/abc");
	CHECK_STR(url("http://u:secret@h/", 12), "http://REDAC");

	memset(deep, 'a', sizeof(deep) - 1);
	deep[sizeof(deep) - 1] = '\0';
	memcpy(deep + sizeof(deep) - 9, "token=xx", 8);
	CHECK(strstr(query(deep, 1000), "token=REDACTED") != NULL);
	return check_result();
}
