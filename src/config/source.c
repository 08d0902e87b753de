/*
 * Where options come from: the command line, the environment, a file. Collects texts into the
 * settings by the option table and never interprets them. A source never replaces what a higher one
 * has set, so they are read from the highest down.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "config/internal.h"

int settings_no_memory(char **ret_error)
{
	return fail(ret_error, -ENOMEM, "out of memory while reading the options");
}

const char *setting_text(const struct setting *settings, enum option_id id)
{
	const struct setting *s = &settings[id];

	return s->count ? s->values[s->count - 1].text : NULL;
}

static void setting_clear(struct setting *s)
{
	while (s->count) {
		s->count--;
		free(s->values[s->count].where);
		free(s->values[s->count].text);
	}
	free(s->values);
	s->values = NULL;
}

void settings_free(struct setting *settings)
{
	for (int i = 0; i < OPTION_COUNT; i++)
		setting_clear(&settings[i]);
}

static int setting_append(struct setting *s, const char *where, const char *text, size_t len)
{
	struct setting_value *grown = realloc(s->values, (s->count + 1) * sizeof(*grown));
	struct setting_value value;

	if (!grown)
		return -ENOMEM;
	s->values = grown;
	value.where = strdup(where);
	value.text = strndup(text, len);
	if (!value.where || !value.text) {
		free(value.where);
		free(value.text);
		return -ENOMEM;
	}
	grown[s->count++] = value;
	return 0;
}

/* Members of a list without the blanks around them; empty ones are left out. */
static int append_members(struct setting *s, const char *where, const char *text,
			  const char *separator)
{
	for (;;) {
		size_t len = strcspn(text, separator), begin = strspn(text, " \t"), end = len;

		while (end > begin && (text[end - 1] == ' ' || text[end - 1] == '\t'))
			end--;
		if (begin < end && setting_append(s, where, text + begin, end - begin))
			return -ENOMEM;
		if (!text[len])
			return 0;
		text += len + 1;
	}
}

/* `text` is not empty. */
static int setting_add(struct setting *settings, enum option_id id, enum source source,
		       const char *where, const char *text)
{
	const struct option_row *row = &option_rows[id];
	struct setting *s = &settings[id];

	if (s->source > source)
		return 0;
	if (!(row->flags & ROW_LIST))
		setting_clear(s);
	s->source = source;
	s->env_index = -1;
	if (row->flags & ROW_COMMA || (row->flags & ROW_ENV_COMMA && source == SOURCE_ENV))
		return append_members(s, where, text, ",");
	if (row->flags & ROW_ENV_SEMICOLON && source == SOURCE_ENV)
		return append_members(s, where, text, ";");
	return setting_append(s, where, text, strlen(text));
}

static int find_flag(const char *name, size_t len)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const char *flag = option_rows[i].flag;

		if (flag && strlen(flag) == len && memcmp(flag, name, len) == 0)
			return i;
	}
	return -1;
}

/* One argument; `next` is the one behind it or NULL. *ret_used: how many were taken. */
static int parse_argument(struct setting *settings, const char *arg, const char *next,
			  int *ret_used, char **ret_error)
{
	const struct option_row *row;
	const char *equals, *text;
	char where[64];
	int id;

	*ret_used = 1;
	if (strcmp(arg, "-h") == 0)
		arg = "--help";
	else if (strcmp(arg, "-V") == 0)
		arg = "--version";
	if (strncmp(arg, "--", 2) != 0 || !arg[2])
		return fail(ret_error, -EINVAL,
			    "unexpected argument '%s'; options begin with '--' and take "
			    "their value as --name=value, see spanloom --help",
			    arg);
	equals = strchrnul(arg, '=');
	id = find_flag(arg + 2, (size_t)(equals - arg) - 2);
	if (id < 0)
		return fail(ret_error, -EINVAL, "unknown option %.*s; see spanloom --help",
			    (int)(equals - arg), arg);
	row = &option_rows[id];
	snprintf(where, sizeof(where), "--%s", row->flag);
	if (*equals) {
		text = equals + 1;
	} else if (row->implied) {
		text = row->implied;
	} else {
		text = next ? next : "";
		*ret_used = 2;
	}
	if (!*text)
		return fail(ret_error, -EINVAL, "%s needs a value: %s %s", where, where, row->arg);
	return setting_add(settings, (enum option_id)id, SOURCE_FLAG, where, text)
		       ? settings_no_memory(ret_error)
		       : 0;
}

int settings_from_argv(struct setting *settings, int argc, char *const *argv, char **ret_error)
{
	int used;

	for (int i = 1; i < argc; i += used) {
		int err = parse_argument(settings, argv[i], i + 1 < argc ? argv[i + 1] : NULL,
					 &used, ret_error);

		if (err)
			return err;
	}
	return 0;
}

static const char *find_env(char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; env && *env; env++) {
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return *env + len + 1;
	}
	return NULL;
}

int settings_from_env(struct setting *settings, char *const *env, char **ret_error)
{
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_rows[i];

		for (int k = 0; k < OPTION_MAX_ENV && row->env[k]; k++) {
			const char *text = find_env(env, row->env[k]);

			/* OpenTelemetry: an empty value is an unset one. */
			if (!text || !*text || settings[i].source > SOURCE_ENV)
				continue;
			if (setting_add(settings, (enum option_id)i, SOURCE_ENV, row->env[k], text))
				return settings_no_memory(ret_error);
			settings[i].env_index = k;
			break;
		}
	}
	return 0;
}

static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t\r\n");
	end = text + strlen(text);
	while (end > text && strchr(" \t\r\n", end[-1]))
		*--end = 0;
	return text;
}

/* A '#' at the start of the line or behind white space. */
static void cut_comment(char *line)
{
	for (char *p = strchr(line, '#'); p; p = strchr(p + 1, '#')) {
		if (p == line || p[-1] == ' ' || p[-1] == '\t') {
			*p = 0;
			return;
		}
	}
}

/* A file of lines, and what is done with each: `line` is not empty and may be changed. */
struct line_file {
	struct setting *settings;
	const char *path;
	enum option_id id; /* parse_list_line() */
	int (*parse)(const struct line_file *file, unsigned int number, char *line,
		     char **ret_error);
};

static int parse_line(const struct line_file *file, unsigned int number, char *line,
		      char **ret_error)
{
	struct setting *settings = file->settings;
	const char *path = file->path;
	char *equals, *key, *text, *where;
	int id, err;

	equals = strchr(line, '=');
	if (!equals)
		return fail(ret_error, -EINVAL, "%s:%u: not of the form key = value", path, number);
	*equals = 0;
	key = trim(line);
	text = trim(equals + 1);
	id = find_flag(key, strlen(key));
	if (id < 0 || option_rows[id].flags & ROW_NOT_IN_FILE)
		return fail(ret_error, -EINVAL,
			    "%s:%u: unknown key '%s'; keys are the long options of spanloom --help",
			    path, number, key);
	if (!*text)
		return fail(ret_error, -EINVAL, "%s:%u: %s needs a value", path, number, key);
	if (settings[id].source == SOURCE_FILE && !(option_rows[id].flags & ROW_LIST))
		return fail(ret_error, -EINVAL, "%s:%u: %s is given a second time", path, number,
			    key);
	if (asprintf(&where, "%s:%u: %s", path, number, key) < 0)
		return settings_no_memory(ret_error);
	err = setting_add(settings, (enum option_id)id, SOURCE_FILE, where, text);
	free(where);
	return err ? settings_no_memory(ret_error) : 0;
}

static int parse_list_line(const struct line_file *file, unsigned int number, char *line,
			   char **ret_error)
{
	char *where;
	int err;

	if (asprintf(&where, "%s:%u", file->path, number) < 0)
		return settings_no_memory(ret_error);
	err = setting_append(&file->settings[file->id], where, line, strlen(line));
	free(where);
	return err ? settings_no_memory(ret_error) : 0;
}

/* Line by line; the text ends with a NUL and is changed. */
static int parse_lines(const struct line_file *file, char *text, size_t len, char **ret_error)
{
	unsigned int number = 0;
	char *line, *next;
	int err = 0;

	for (line = text; !err && line < text + len; line = next) {
		char *end = memchr(line, '\n', (size_t)(text + len - line));

		end = end ? end : text + len;
		next = end + 1;
		*end = 0;
		number++;
		if (strlen(line) != (size_t)(end - line))
			return fail(ret_error, -EINVAL, "%s:%u: a NUL byte, not a text file",
				    file->path, number);
		cut_comment(line);
		line = trim(line);
		if (*line)
			err = file->parse(file, number, line, ret_error);
	}
	return err;
}

/* `where`: what named the file; `what`: what it should be. */
static int read_lines(const struct line_file *lines, const char *where, const char *what,
		      char **ret_error)
{
	FILE *file = fopen(lines->path, "re");
	char *text = malloc(OPTIONS_FILE_MAX_BYTES + 2);
	size_t len = 0;
	int err;

	errno = file ? 0 : errno;
	if (file && text)
		len = fread(text, 1, OPTIONS_FILE_MAX_BYTES + 1, file);
	if (!text) {
		err = settings_no_memory(ret_error);
	} else if (!file || ferror(file)) {
		err = fail(ret_error, -EINVAL, "%s=%s: cannot read the %s file: %s", where,
			   lines->path, what, strerror(errno));
	} else if (len > OPTIONS_FILE_MAX_BYTES) {
		err = fail(ret_error, -EINVAL, "%s: more than %d bytes, not a %s file", lines->path,
			   OPTIONS_FILE_MAX_BYTES, what);
	} else {
		text[len] = 0;
		err = parse_lines(lines, text, len, ret_error);
	}
	free(text);
	if (file)
		fclose(file);
	return err;
}

int settings_from_file(struct setting *settings, const char *path, const char *where,
		       char **ret_error)
{
	const struct line_file file = { .settings = settings, .path = path, .parse = parse_line };

	return read_lines(&file, where, "configuration", ret_error);
}

int settings_from_list(struct setting *settings, enum option_id id, const char *path,
		       const char *where, char **ret_error)
{
	const struct line_file file = {
		.settings = settings, .path = path, .id = id, .parse = parse_list_line
	};

	return read_lines(&file, where, "list", ret_error);
}
