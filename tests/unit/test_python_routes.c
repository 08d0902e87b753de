/*
 * Templates of routes from live interpreters: python_routes.py answers one request for each way a
 * route can come about and keeps the scopes; from what the kernel side would report of them the
 * template has to come out that stands beside it. Also what has to be known before the first
 * request: the keys of a scope, and where a server's answering frame has it.
 */
#include "python_child.h"
#include "runtimes/python_object.h"

static const struct runtime_options no_rules;
static unsigned int cases;

static uint64_t address(const char *field)
{
	return strtoull(field, NULL, 16);
}

static void check_case(struct python *p, const char **f)
{
	struct runtime_route route = { .scope = address(f[1]),
				       .route = address(f[2]),
				       .endpoint = address(f[3]),
				       .router = address(f[4]),
				       .route_context = address(f[5]),
				       .root_path = f[6],
				       .root_path_len = (uint32_t)strlen(f[6]) };
	struct runtime_code endpoint;
	struct slice template;
	char text[512], name[128];

	python_route(&p->base, &route, &template, &endpoint);
	snprintf(text, sizeof(text), "%.*s", (int)template.len, template.data);
	CHECK_STR(text, f[7]);
	if (f[8][0]) {
		const char *dot;

		snprintf(text, sizeof(text), "%.*s", (int)endpoint.function.len,
			 endpoint.function.data);
		dot = strrchr(text, '.');
		CHECK_STR(dot ? dot + 1 : text, f[8]);
		CHECK(strncmp(text, "__main__.", 9) == 0);
		CHECK(endpoint.line > 0);
	}
	snprintf(name, sizeof(name), "%s", f[9]);
	cases++;
}

static void check_aiohttp(struct python *p, const char **f)
{
	struct runtime_route route = { .route = address(f[2]) };
	struct runtime_code endpoint;
	struct slice template;
	char text[512];

	CHECK(python_route(&p->base, &route, &template, &endpoint));
	snprintf(text, sizeof(text), "%.*s", (int)template.len, template.data);
	CHECK_STR(text, f[3]);
	snprintf(text, sizeof(text), "%.*s", (int)endpoint.function.len, endpoint.function.data);
	CHECK(!f[4][0] || strstr(text, f[4]));
	cases++;
}

/* The kernel side compares with these addresses. */
static void check_key(const struct python *p, const char **f)
{
	const struct {
		const char *name;
		uint64_t at;
	} keys[] = { { "route", p->layout.key_route },
		     { "root_path", p->layout.key_root_path },
		     { "endpoint", p->layout.key_endpoint },
		     { "router", p->layout.key_router },
		     { "fastapi", p->layout.key_fastapi },
		     { "effective_route_context", p->layout.key_route_context } };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (strcmp(keys[i].name, f[2]) == 0)
			CHECK(keys[i].at == address(f[1]));
}

static uint64_t value_number(const struct python *p, uint64_t object, uint32_t i)
{
	switch (p->layout.values) {
	case PYTHON_VALUES_BEFORE:
		return python_pointer(p, python_pointer(p, object - 32) + 8UL * i);
	case PYTHON_VALUES_TAGGED:
		return python_pointer(p, python_pointer(p, object - 24) + 1 + 8UL * i);
	case PYTHON_VALUES_INLINE:
		return python_pointer(p, object + p->layout.values_offset + 8UL * i);
	default:
		object = python_pointer(p, object + p->layout.dict_offset);
		return python_pointer(p,
				      python_pointer(p, object + p->layout.dict_values) + 8UL * i);
	}
}

/* What the kernel side does with a frame's first local. */
static void check_answer(struct python *p, const char **f)
{
	struct code_class class_ = { 0 };

	CHECK(python_classify(&p->base, address(f[2]), &class_));
	CHECK(class_.kind == CODE_ANSWER_SELF);
	CHECK(value_number(p, address(f[1]), class_.arg) == address(f[3]));
}

static void check_line(struct python *p, const char **f)
{
	struct code_class class_ = { 0 };
	uint64_t held;

	if (strcmp(f[0], "case") == 0) {
		check_case(p, f);
	} else if (strcmp(f[0], "aiohttp") == 0) {
		check_aiohttp(p, f);
	} else if (strcmp(f[0], "key") == 0) {
		check_key(p, f);
	} else if (strcmp(f[0], "answer") == 0) {
		check_answer(p, f);
	} else if (strcmp(f[0], "local") == 0) {
		CHECK(python_classify(&p->base, address(f[1]), &class_));
		CHECK(class_.kind == CODE_ANSWER_LOCAL && class_.arg == 1);
	} else if (strcmp(f[0], "match") == 0) {
		CHECK(python_classify(&p->base, address(f[1]), &class_));
		CHECK(class_.kind == CODE_ANSWER_MATCH && (class_.arg & 255) == 1);
		held = value_number(p, address(f[2]), class_.arg >> 8 & 255);
		CHECK(python_type_named(p, held, "MatchInfoError"));
		CHECK(python_type_named(p, python_pointer(p, held + (class_.arg >> 16)),
					"SystemRoute"));
	} else {
		CHECK(strcmp(f[0], "wrong") != 0);
	}
}

static void check_python(const char *python)
{
	const char *fields[CHILD_FIELDS];
	unsigned int failed = checks_failed;
	struct python *p;
	struct python_child c;
	char *line = malloc(CHILD_LINE), *all = NULL;
	size_t size;
	FILE *kept = open_memstream(&all, &size);

	if (!line || !kept || !python_child_start(&c, python, "tests/unit/python_routes.py")) {
		CHECK(false);
		return;
	}
	CHECK(!python_child_line(&c, line, fields));
	p = python_child_open(&c, &no_rules);
	if (!p)
		goto out;
	CHECK(p->layout.key_route && p->layout.key_router);
	CHECK(write(c.input, "\n", 1) == 1);
	/* all of it first: it is read while nothing changes */
	while (fgets(line, CHILD_LINE, c.lines) && strcmp(line, "ready\n") != 0)
		fputs(line, kept);
	fflush(kept);
	python_code_learn(p);
	cases = 0;
	for (char *at = all, *one; (one = strsep(&at, "\n")) != NULL && *one;) {
		for (int i = 0; i < CHILD_FIELDS; i++)
			fields[i] = one ? strsep(&one, "\t") : "";
		check_line(p, fields);
		if (checks_failed != failed)
			printf("  %s: %s %s %s %s %s\n", python, fields[0], fields[7], fields[9],
			       fields[2], fields[3]);
		failed = checks_failed;
	}
	CHECK(cases > 80);
out:
	python_child_end(&c);
	fclose(kept);
	free(all);
	free(line);
}

static bool has_packages(const char *python)
{
	char command[1024];

	snprintf(command, sizeof(command), "%s -c 'import fastapi, uvicorn, aiohttp' 2>/dev/null",
		 python);
	return system(command) == 0;
}

static int checked;

static void check_if_equipped(const char *python)
{
	if (!has_packages(python))
		return;
	check_python(python);
	checked++;
}

int main(int argc, char **argv)
{
	const char *patterns[] = { "venv/bin/python3", "venvs/*/bin/python3" };
	char folder[512], pattern[1024];
	glob_t g;

	(void)argc;
	/* settings of the scripts' processes */
	setenv("PROXY_PATH", "/proxy", 1);
	setenv("NESTED_PATH", "/a/b/", 1);
	setenv("OPTIONS", "/rooted", 1);
	snprintf(folder, sizeof(folder), "%s", argv[0]);
	for (int up = 0; up < 2; up++) /* BUILD/unit/test_python_routes */
		if (strrchr(folder, '/'))
			*strrchr(folder, '/') = '\0';
	for (size_t i = 0; i < 2 && !getenv("SPANLOOM_TEST_PYTHONS"); i++) {
		snprintf(pattern, sizeof(pattern), "%s/%s", folder, patterns[i]);
		if (glob(pattern, 0, NULL, &g))
			continue;
		for (size_t j = 0; j < g.gl_pathc; j++)
			check_if_equipped(g.gl_pathv[j]);
		globfree(&g);
	}
	if (getenv("SPANLOOM_TEST_PYTHONS"))
		python_child_each(check_if_equipped);
	if (!checked) {
		printf("skipped: no interpreter with FastAPI below %s\n", folder);
		CHECK(!getenv("CI"));
	}
	return check_result();
}
