/*
 * The lines of tools/replay's format that tell of a runtime: definitions of what its addresses
 * stand for, and the options of events that carry its contexts, frames and routes.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "replay_script.h"

static uint64_t number(const char *text)
{
	return strtoull(text, NULL, 0);
}

/* A copy of a word that lives as long as the script. */
static char *keep(struct script *s, const char *word)
{
	char *copy = strdup(word);

	if (!copy || s->line_count == sizeof(s->lines) / sizeof(s->lines[0])) {
		fprintf(stderr, "replay: too many definitions\n");
		exit(2);
	}
	s->lines[s->line_count++] = copy;
	return copy;
}

/* FUNCTION FILE LINE, as far as they are there. */
static void define_code(struct script *s, struct script_code *c, char **words, size_t n)
{
	if (n > 0)
		c->function = keep(s, words[0]);
	if (n > 1)
		c->file = keep(s, words[1]);
	if (n > 2)
		c->line = (uint32_t)number(words[2]);
}

static void define_rule(struct script *s, char **words, size_t n)
{
	struct span_rule *r = &s->rules[s->rule_count++];
	struct span_attribute *list = calloc(n, sizeof(*list));
	size_t i;

	if (!list)
		exit(2);
	*r = (struct span_rule){ .name = keep(s, words[0]), .attributes = list };
	for (i = 1; i < n; i++) {
		char *key = keep(s, words[i]), *eq = strchr(key, '=');

		if (!eq)
			continue;
		*eq = '\0';
		list[r->attribute_count++] = (struct span_attribute){ key, eq + 1 };
	}
}

bool script_define(struct script *s, char **words, size_t n)
{
	if (strcmp(words[0], "no-code") == 0) {
		s->no_code = true;
	} else if (strcmp(words[0], "no-route") == 0) {
		s->no_route = true;
	} else if (strcmp(words[0], "keep-errors") == 0) {
		s->keep_errors = true;
	} else if (strcmp(words[0], "tell-trust") == 0) {
		s->tell_trust = true;
	} else if (strcmp(words[0], "keep-slow") == 0 && n > 1) {
		s->keep_slow_ns = number(words[1]);
	} else if (strcmp(words[0], "silent") == 0 && n > 1) {
		s->silent_pid = (uint32_t)number(words[1]);
	} else if (strcmp(words[0], "code") == 0 && n > 2 &&
		   s->code_count < SCRIPT_MAX_DEFINITIONS) {
		struct script_code *c = &s->codes[s->code_count++];

		*c = (struct script_code){ .number = number(words[1]) };
		define_code(s, c, words + 2, n - 2);
	} else if (strcmp(words[0], "route") == 0 && n > 2 &&
		   s->route_count < SCRIPT_MAX_DEFINITIONS) {
		struct script_code *c = &s->routes[s->route_count++];

		*c = (struct script_code){ .number = number(words[1]) };
		if (strcmp(words[2], "-") != 0)
			c->route = keep(s, words[2]);
		define_code(s, c, words + 3, n - 3);
	} else if (strcmp(words[0], "span") == 0 && n > 1 &&
		   s->rule_count < SCRIPT_MAX_DEFINITIONS) {
		define_rule(s, words + 1, n - 1);
	} else {
		return false;
	}
	return true;
}

void script_undefine(struct script *s)
{
	size_t i;

	for (i = 0; i < s->line_count; i++)
		free(s->lines[i]);
	for (i = 0; i < s->rule_count; i++) {
		union {
			const struct span_attribute *list;
			void *memory;
		} own = { .list = s->rules[i].attributes };

		free(own.memory);
	}
	s->line_count = s->rule_count = s->code_count = s->route_count = 0;
	s->keep_errors = s->tell_trust = false;
	s->keep_slow_ns = s->silent_pid = 0;
	s->no_code = s->no_route = s->nosplit = s->has_ratio = false;
}

const struct script_code *script_find(const struct script_code *list, size_t count, uint64_t wanted)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (list[i].number == wanted)
			return &list[i];
	}
	return NULL;
}

/* RULE:FRAME:ARGS[:CODE] */
static void add_span(struct runtime_site *site, const char *text)
{
	struct runtime_span *f = &site->spans[site->span_count];
	char *end;

	if (site->span_count == RUNTIME_SPANS_MAX)
		return;
	f->rule = (uint32_t)strtoul(text, &end, 0);
	f->frame = *end ? strtoull(end + 1, &end, 0) : 0;
	f->args = *end ? strtoull(end + 1, &end, 0) : 0;
	f->code = *end ? strtoull(end + 1, &end, 0) : 0;
	site->span_count++;
}

/* 10.0.0.1:80, ::1:80 */
static void set_client(struct runtime_client *c, const char *text)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN] = "";

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return;
	memcpy(host, text, (size_t)(colon - text));
	c->port = (uint16_t)number(colon + 1);
	c->v6 = strchr(host, ':');
	c->known = inet_pton(c->v6 ? AF_INET6 : AF_INET, host, c->address) == 1;
}

static bool site_option(struct runtime_site *site, const char *w)
{
	if (strncmp(w, "work=", 5) == 0)
		site->work = number(w + 5);
	else if (strncmp(w, "caller=", 7) == 0)
		site->caller = number(w + 7);
	else if (strncmp(w, "span=", 5) == 0)
		add_span(site, w + 5);
	else if (strncmp(w, "client=", 7) == 0)
		set_client(&site->client, w + 7);
	else if (strcmp(w, "pooled") == 0)
		site->pooled = true;
	else if (strcmp(w, "cut") == 0)
		site->cut = true;
	else if (strcmp(w, "nobody") == 0)
		site->nobody = true;
	else
		return strcmp(w, "site") == 0;
	return true;
}

bool script_runtime_option(struct script_event *e, const char *w)
{
	if (site_option(&e->site, w))
		e->has_site = true;
	else if (strncmp(w, "ctx=", 4) == 0)
		e->io.context = e->context.context = e->native.context = e->conn.connect_context =
			number(w + 4);
	else if (strncmp(w, "object=", 7) == 0)
		e->context.object = number(w + 7);
	else if (strncmp(w, "route=", 6) == 0)
		e->route = number(w + 6);
	else if (strncmp(w, "rule=", 5) == 0)
		e->native.rule = (uint32_t)number(w + 5);
	else if (strncmp(w, "stack=", 6) == 0)
		e->native.stack = number(w + 6);
	else
		return false;
	return true;
}
