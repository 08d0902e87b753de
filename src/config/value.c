/*
 * Texts of options to values. A parser takes the whole text or refuses it; it never logs and knows
 * no source. Numbers are plain decimal digits: no sign where none makes sense, no white space, no
 * hexadecimal.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "config/internal.h"

static void *field(const struct option_row *row, struct options *o)
{
	return (char *)o + row->offset;
}

static bool parse_digits(const char *text, size_t len, uint64_t *ret)
{
	uint64_t n = 0;
	size_t i;

	if (len == 0)
		return false;
	for (i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]) || __builtin_mul_overflow(n, 10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(text[i] - '0'), &n))
			return false;
	}
	*ret = n;
	return true;
}

static bool parse_number(const struct option_row *row, const char *text, uint64_t *ret)
{
	uint64_t n;

	if (!parse_digits(text, strlen(text), &n) || n < (uint64_t)row->min ||
	    n > (uint64_t)row->max)
		return false;
	*ret = n;
	return true;
}

/* Takes `rule`'s text over, also on failure. */
static int add_rule(struct options *o, struct select_rule rule)
{
	struct select_rule *grown = realloc(o->rules, (o->rule_count + 1) * sizeof(*grown));

	if (!grown) {
		free(rule.text);
		return -ENOMEM;
	}
	o->rules = grown;
	grown[o->rule_count++] = rule;
	return 0;
}

int parse_pid(const struct option_row *row, const char *text, struct options *o)
{
	uint64_t pid;

	if (!parse_number(row, text, &pid))
		return -EINVAL;
	return add_rule(o, (struct select_rule){ .kind = SELECT_PID, .pid = (uint32_t)pid });
}

int parse_port(const struct option_row *row, const char *text, struct options *o)
{
	size_t len = strcspn(text, "-");
	uint64_t low, high;

	if (!parse_digits(text, len, &low))
		return -EINVAL;
	high = low;
	if (text[len] && !parse_digits(text + len + 1, strlen(text + len + 1), &high))
		return -EINVAL;
	if (low < (uint64_t)row->min || high > (uint64_t)row->max || low > high)
		return -EINVAL;
	return add_rule(o, (struct select_rule){ .kind = SELECT_PORT,
						 .port_low = (uint16_t)low,
						 .port_high = (uint16_t)high });
}

int parse_rule_text(const struct option_row *row, const char *text, struct options *o)
{
	struct select_rule rule = { .kind = row == &option_rows[OPT_EXE] ? SELECT_EXE
									 : SELECT_CGROUP };

	rule.text = strdup(text);
	return rule.text ? add_rule(o, rule) : -ENOMEM;
}

int parse_string(const struct option_row *row, const char *text, struct options *o)
{
	char **to = field(row, o), *copy = strdup(text);

	if (!copy)
		return -ENOMEM;
	free(*to);
	*to = copy;
	return 0;
}

int parse_uint32(const struct option_row *row, const char *text, struct options *o)
{
	uint64_t n;

	if (!parse_number(row, text, &n))
		return -EINVAL;
	*(uint32_t *)field(row, o) = (uint32_t)n;
	return 0;
}

int parse_uint64(const struct option_row *row, const char *text, struct options *o)
{
	uint64_t n;

	if (!parse_number(row, text, &n))
		return -EINVAL;
	*(uint64_t *)field(row, o) = n;
	return 0;
}

/* OpenTelemetry, "Environment Variable Specification", timeout: zero means no limit. */
int parse_timeout(const struct option_row *row, const char *text, struct options *o)
{
	uint64_t n;

	if (!parse_number(row, text, &n))
		return -EINVAL;
	*(uint64_t *)field(row, o) = n ? n : OPTIONS_NO_TIMEOUT_MS;
	return 0;
}

int parse_int(const struct option_row *row, const char *text, struct options *o)
{
	bool negative = *text == '-';
	uint64_t n;
	int64_t value;

	if (!parse_digits(text + negative, strlen(text + negative), &n) || n > INT32_MAX)
		return -EINVAL;
	value = negative ? -(int64_t)n : (int64_t)n;
	if (value < row->min || value > row->max)
		return -EINVAL;
	*(int *)field(row, o) = (int)value;
	return 0;
}

/* "8388608", "8192K", "8M", "8MiB": powers of 1024. */
int parse_bytes(const struct option_row *row, const char *text, struct options *o)
{
	static const struct choice units[] = { { "", 0 },     { "k", 10 },   { "m", 20 },
					       { "g", 30 },   { "kib", 10 }, { "mib", 20 },
					       { "gib", 30 }, { NULL, 0 } };
	size_t len = strspn(text, "0123456789");
	uint64_t n;
	int shift;

	if (!parse_digits(text, len, &n) || !choice_find(units, text + len, &shift) ||
	    n > UINT32_MAX)
		return -EINVAL;
	n <<= shift;
	if (n < (uint64_t)row->min || n > (uint64_t)row->max)
		return -EINVAL;
	if (row->flags & ROW_POWER_OF_TWO && n & (n - 1))
		return -EINVAL;
	*(uint32_t *)field(row, o) = (uint32_t)n;
	return 0;
}

bool choice_find(const struct choice *choices, const char *text, int *ret)
{
	for (; choices->name; choices++) {
		if (strcasecmp(choices->name, text) == 0) {
			*ret = choices->value;
			return true;
		}
	}
	return false;
}

/* For enum fields, all of them int-sized. */
int parse_choice(const struct option_row *row, const char *text, struct options *o)
{
	int value;

	if (!choice_find(row->choices, text, &value))
		return -EINVAL;
	memcpy(field(row, o), &value, sizeof(value));
	return 0;
}

int parse_bool(const struct option_row *row, const char *text, struct options *o)
{
	int value;

	if (!choice_find(row->choices, text, &value))
		return -EINVAL;
	*(bool *)field(row, o) = value;
	return 0;
}

int parse_gzip(const struct option_row *row, const char *text, struct options *o)
{
	int value;

	if (!choice_find(row->choices, text, &value))
		return -EINVAL;
	o->otlp_gzip = value;
	return 0;
}

int check_choice(const struct option_row *row, const char *text, struct options *o)
{
	int value;

	(void)o;
	return choice_find(row->choices, text, &value) ? 0 : -EINVAL;
}

/* RFC 9110, 5.6.2 and 5.5: what may stand in a field name and a field value. */
static bool header_valid(const struct key_value *header)
{
	const unsigned char *p = (const unsigned char *)header->key;

	for (; *p; p++) {
		if (!isalnum(*p) && !strchr("!#$%&'*+-.^_`|~", *p))
			return false;
	}
	for (p = (const unsigned char *)header->value; *p; p++) {
		if ((*p < ' ' && *p != '\t') || *p == 0x7f)
			return false;
	}
	return true;
}

int parse_headers(const struct option_row *row, const char *text, struct options *o)
{
	struct key_value *list;
	size_t count, i;
	int err;

	(void)row;
	err = key_value_parse(text, &list, &count);
	if (err)
		return err;
	for (i = 0; i < count; i++) {
		if (!header_valid(&list[i])) {
			key_value_free(list, count);
			return -EINVAL;
		}
	}
	key_value_free(o->otlp_headers, o->otlp_header_count);
	o->otlp_headers = list;
	o->otlp_header_count = count;
	return 0;
}

int parse_attributes(const struct option_row *row, const char *text, struct options *o)
{
	struct key_value *list;
	size_t count;
	int err;

	(void)row;
	err = key_value_parse(text, &list, &count);
	if (err)
		return err;
	key_value_free(o->resource_attributes, o->resource_attribute_count);
	o->resource_attributes = list;
	o->resource_attribute_count = count;
	return 0;
}

bool choices_parse(const struct choice *names, const char *text, unsigned int *ret)
{
	unsigned int set = 0, members = 0;
	bool none = false;

	for (;;) {
		size_t len = strcspn(text, ","), begin = strspn(text, " \t"), end = len;
		char name[16];
		int value;

		while (end > begin && (text[end - 1] == ' ' || text[end - 1] == '\t'))
			end--;
		if (end <= begin || end - begin >= sizeof(name))
			return false;
		memcpy(name, text + begin, end - begin);
		name[end - begin] = 0;
		if (!choice_find(names, name, &value))
			return false;
		none |= value == 0;
		set |= (unsigned int)value;
		members++;
		if (!text[len])
			break;
		text += len + 1;
	}
	if (none && members > 1)
		return false;
	*ret = set;
	return true;
}

bool exporters_parse(const char *text, unsigned int *ret)
{
	static const struct choice names[] = { { "none", 0 },
					       { "otlp", EXPORTER_OTLP },
					       { "console", EXPORTER_CONSOLE },
					       { NULL, 0 } };

	return choices_parse(names, text, ret);
}

int check_exporters(const struct option_row *row, const char *text, struct options *o)
{
	unsigned int set;

	(void)row;
	(void)o;
	return exporters_parse(text, &set) ? 0 : -EINVAL;
}

bool rate_parse(const char *text, double *ret)
{
	double value;
	char *end;

	if (!*text || text[strspn(text, "0123456789.eE+-")])
		return false;
	value = strtod(text, &end);
	if (*end || !isfinite(value) || value < 0 || value > 1)
		return false;
	*ret = value;
	return true;
}

int check_rate(const struct option_row *row, const char *text, struct options *o)
{
	double value;

	(void)row;
	(void)o;
	return rate_parse(text, &value) ? 0 : -EINVAL;
}
