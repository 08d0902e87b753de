/*
 * Custom spans among the options: what a SPEC means, which are refused and with which words, where
 * they may come from (flags, environment, configuration file, a file of their own), and what is
 * switched off with --python, --route and --code.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/options.h"
#include "check.h"

static struct options parsed;
static char *parse_error;

/* Arguments and environment, each ended by NULL. */
static int parse(char *const *args, char *const *env)
{
	static char program[] = "spanloom", port[] = "--port=1";
	char *argv[16] = { program, port };
	int argc = 2, err;

	options_free(&parsed);
	free(parse_error);
	parse_error = NULL;
	while (*args)
		argv[argc++] = *args++;
	err = options_parse(argc, argv, env, &parsed, &parse_error);
	return err;
}

static int parse_spec(const char *spec)
{
	char *arg = strdup(spec), flag[] = "--span";
	char *args[] = { flag, arg, NULL }, *env[] = { NULL };
	int err = parse(args, env);

	free(arg);
	return err;
}

static bool refused(const char *spec)
{
	char words[512];

	snprintf(words, sizeof(words), "--span=%s: must be WHERE:FUNCTION", spec);
	if (parse_spec(spec) == -EINVAL && parse_error && strstr(parse_error, words))
		return true;
	printf("%s: got the message: %s\n", spec, parse_error ? parse_error : "none");
	return false;
}

static bool is(enum span_option_kind kind, const char *where, const char *function,
	       const char *name)
{
	const struct span_option *s = parsed.spans;

	return parsed.span_count == 1 && s->kind == kind && strcmp(s->where, where) == 0 &&
	       strcmp(s->function, function) == 0 && strcmp(s->name, name) == 0;
}

static void test_python_specs(void)
{
	const struct span_option *s;

	CHECK(parse_spec(
		      "app.services.a2a_client:call_agent=a2a.call,agent.type=gateway,x=a%2Cb") ==
	      0);
	CHECK(is(SPAN_OPTION_PYTHON, "app.services.a2a_client", "call_agent", "a2a.call"));
	s = parsed.spans;
	CHECK(s && s->attribute_count == 2);
	CHECK_STR(s->attributes[0].key, "agent.type");
	CHECK_STR(s->attributes[0].value, "gateway");
	CHECK_STR(s->attributes[1].value, "a,b");

	CHECK(parse_spec("app:Client.call") == 0);
	CHECK(is(SPAN_OPTION_PYTHON, "app", "Client.call", "Client.call"));
	CHECK(parse_spec("app/a.py:make.<locals>.f=") == 0);
	CHECK(is(SPAN_OPTION_PYTHON, "app/a.py", "make.<locals>.f", "make.<locals>.f"));
	CHECK(parse_spec("app:f=k=v") == 0 && is(SPAN_OPTION_PYTHON, "app", "f", "f"));
	CHECK(parsed.spans && parsed.spans->attribute_count == 1);
	CHECK(parse_spec("app:f=,k=v") == 0 && parsed.spans->attribute_count == 1);
	CHECK(parse_spec("app:f= a b , k = v ") == 0 && is(SPAN_OPTION_PYTHON, "app", "f", "a b"));
	CHECK(parse_spec("__main__:f=a%2Cb") == 0);
	CHECK(is(SPAN_OPTION_PYTHON, "__main__", "f", "a,b"));
}

static void test_native_specs(void)
{
	CHECK(parse_spec("libz.so:deflate=compress") == 0);
	CHECK(is(SPAN_OPTION_NATIVE, "libz.so", "deflate", "compress"));
	CHECK(parse_spec("libc.so.6:qsort") == 0);
	CHECK(is(SPAN_OPTION_NATIVE, "libc.so.6", "qsort", "qsort"));
	CHECK(parse_spec("/usr/bin/app:main.(*Server).serve=serve") == 0);
	CHECK(is(SPAN_OPTION_NATIVE, "/usr/bin/app", "main.(*Server).serve", "serve"));
}

static void test_refused(void)
{
	CHECK(refused("app"));
	CHECK(refused("app="));
	CHECK(refused(":f"));
	CHECK(refused("app:"));
	CHECK(refused("app:=name"));
	CHECK(refused("a b:f"));
	CHECK(refused("a..b:f"));
	CHECK(refused("1a:f"));
	CHECK(refused("app.some:f."));
	CHECK(refused("app:f g"));
	CHECK(refused("app:f=name,key"));
	CHECK(refused("app:f=name,=v"));
	CHECK(refused("app:f=%zz"));
	CHECK(refused("/usr/bin/:f"));
	CHECK(refused("libz.so:"));
}

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return;
	fputs(text, file);
	fclose(file);
}

static void test_sources(void)
{
	char path[] = "/tmp/spanloom-span-XXXXXX", arg[64], config[64];
	char one[] = "--span=a:b", two[] = "--span=c:d=e,f=g",
	     env[] = "SPANLOOM_SPAN=a:b=x,k=v; c:d ";
	char *none[] = { NULL }, *envs[] = { env, NULL };
	int fd = mkstemp(path);

	if (fd >= 0)
		close(fd);
	snprintf(arg, sizeof(arg), "--span-file=%s", path);
	snprintf(config, sizeof(config), "--config=%s", path);
	CHECK(parse((char *[]){ one, two, NULL }, none) == 0 && parsed.span_count == 2);
	CHECK(parse(none, envs) == 0 && parsed.span_count == 2);
	CHECK(parsed.span_count == 2 && parsed.spans[0].attribute_count == 1 &&
	      strcmp(parsed.spans[1].function, "d") == 0);

	write_file(path, "# rules\n\na:b=c # the call\n  libz.so:deflate\n");
	CHECK(parse((char *[]){ two, arg, NULL }, none) == 0 && parsed.span_count == 3);
	CHECK(parsed.span_count == 3 && strcmp(parsed.spans[1].name, "c") == 0);
	CHECK(parse((char *[]){ arg, NULL }, envs) == 0 && parsed.span_count == 4);
	write_file(path, "a:b\nnonsense\n");
	CHECK(parse((char *[]){ arg, NULL }, none) == -EINVAL);
	CHECK(parse_error && strstr(parse_error, path) &&
	      strstr(parse_error, ":2=nonsense: must be"));

	write_file(path, "span = a:b=c\nspan=d:e\npython = false\nroute=false\ncode=FALSE\n");
	CHECK(parse((char *[]){ config, NULL }, none) == 0 && parsed.span_count == 2);
	CHECK(!parsed.python && !parsed.route && !parsed.code);
	unlink(path);
	CHECK(parse((char *[]){ arg, NULL }, none) == -EINVAL);
	CHECK(parse_error && strstr(parse_error, "cannot read the list file: No such file"));
}

static void test_switches(void)
{
	char python[] = "--python=false", wrong[] = "--code=no";
	char route[] = "SPANLOOM_ROUTE=false";
	char *none[] = { NULL };

	CHECK(parse(none, none) == 0 && parsed.python && parsed.route && parsed.code);
	CHECK(parse((char *[]){ python, NULL }, (char *[]){ route, NULL }) == 0);
	CHECK(!parsed.python && !parsed.route && parsed.code);
	CHECK(parse((char *[]){ wrong, NULL }, none) == -EINVAL);
	CHECK(parse_error && strstr(parse_error, "--code=no: must be true or false"));
}

int main(void)
{
	test_python_specs();
	test_native_specs();
	test_refused();
	test_sources();
	test_switches();
	options_free(&parsed);
	free(parse_error);
	return check_result();
}
