/*
 * Prints the option table for people: --help on 80 columns, and the README's table. Knows nothing
 * of an option but its row.
 */
#include <string.h>

#include "config/internal.h"

enum { HELP_COLUMN = 28, HELP_WIDTH = 80 };

/* `*column`: where the line stands; breaks instead of a blank. */
static void print_wrapped(FILE *out, const char *text, int *column)
{
	while (*text) {
		int blank = *text == ' ';
		int len = blank + (int)strcspn(text + blank, " ");

		if (blank && *column + len > HELP_WIDTH) {
			fprintf(out, "\n%*s", HELP_COLUMN, "");
			*column = HELP_COLUMN;
			text++;
			len--;
		}
		fprintf(out, "%.*s", len, text);
		*column += len;
		text += len;
	}
}

static const char *row_default(const struct option_row *row)
{
	return row->shown_default ? row->shown_default : row->initial;
}

static void row_name(const struct option_row *row, char *buf, size_t bytes)
{
	if (!row->flag)
		snprintf(buf, bytes, "%s=%s", row->env[0], row->arg);
	else if (!row->arg)
		snprintf(buf, bytes, "--%s", row->flag);
	else if (row->implied)
		snprintf(buf, bytes, "--%s[=%s]", row->flag, row->arg);
	else
		snprintf(buf, bytes, "--%s %s", row->flag, row->arg);
}

static void print_row(FILE *out, const struct option_row *row)
{
	char name[80];
	int column;

	row_name(row, name, sizeof(name));
	column = fprintf(out, "  %-*s", HELP_COLUMN - 3, name);
	if (column >= HELP_COLUMN) {
		fprintf(out, "\n%*s", HELP_COLUMN, "");
	} else {
		fputc(' ', out);
	}
	column = HELP_COLUMN;
	print_wrapped(out, row->help, &column);
	if (row->flags & ROW_LIST)
		print_wrapped(out, "; repeatable", &column);
	if (row_default(row)) {
		print_wrapped(out, " (default: ", &column);
		print_wrapped(out, row_default(row), &column);
		print_wrapped(out, ")", &column);
	}
	for (int k = 0; row->flag && k < OPTION_MAX_ENV && row->env[k]; k++) {
		fprintf(out, "\n%*s%s", HELP_COLUMN, "", row->env[k]);
		if (row->flags & (ROW_COMMA | ROW_ENV_COMMA))
			fputs(" (comma list)", out);
		else if (row->flags & ROW_ENV_SEMICOLON)
			fputs(" (list with ';')", out);
	}
	fputc('\n', out);
}

void options_print_help(FILE *out)
{
	fputs("Usage: spanloom OPTION...\n"
	      "Traces the HTTP/1.1 and Redis traffic of running services, from outside.\n\n"
	      "Each value comes from the first of: the command line, the environment, the file\n"
	      "named by --config, the default. An empty variable is an unset one.\n",
	      out);
	for (int i = 0; i < OPTION_COUNT; i++) {
		if (option_rows[i].title)
			fprintf(out, "\n%s:\n", option_rows[i].title);
		print_row(out, &option_rows[i]);
	}
}

static void print_cell(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '|' || *text == '*')
			fputc('\\', out);
		fputc(*text, out);
	}
}

void options_print_markdown(FILE *out)
{
	fputs("| option | environment | default | meaning |\n|---|---|---|---|\n", out);
	for (int i = 0; i < OPTION_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		char name[80];

		row_name(row, name, sizeof(name));
		if (row->flag)
			fprintf(out, "| `%s` | ", name);
		else
			fputs("| | ", out);
		for (int k = 0; k < OPTION_MAX_ENV && row->env[k]; k++)
			fprintf(out, "%s`%s`", k ? " " : "", row->env[k]);
		fputs(" | ", out);
		if (row_default(row))
			print_cell(out, row_default(row));
		fputs(" | ", out);
		print_cell(out, row->help);
		fprintf(out, "%s |\n", row->flags & ROW_LIST ? "; repeatable" : "");
	}
}
