/*
 * What is known of Redis commands: which arguments are keys (and may be shown), and which commands
 * change how the connection must be read. Commands that are not in the table show no argument.
 */
#ifndef PROTOCOLS_REDIS_COMMANDS_H
#define PROTOCOLS_REDIS_COMMANDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

enum { REDIS_NAME_MAX_BYTES = 32 };

enum redis_keys {
	REDIS_KEYS_NONE,
	REDIS_KEYS_RANGE,   /* first, last (negative: from the end), step */
	REDIS_KEYS_COUNTED, /* argument `first` says how many follow it */
	REDIS_KEYS_STREAMS, /* the first half of what follows STREAMS */
};

/* What a command means for the connection. */
enum redis_effect {
	REDIS_PLAIN,
	REDIS_MULTI,
	REDIS_EXEC,
	REDIS_DISCARD,
	REDIS_SELECT,
	REDIS_SUBSCRIBE,   /* one confirmation for each argument */
	REDIS_UNSUBSCRIBE, /* likewise; without arguments one for each subscription */
	REDIS_MONITOR,
	REDIS_RESET,
	REDIS_HELLO,
	REDIS_CLIENT,
	REDIS_SYNC,
};

struct redis_command {
	const char *name;
	uint8_t keys; /* enum redis_keys */
	int8_t first, last, step;
	uint8_t effect;   /* enum redis_effect */
	bool subcommand;  /* the first argument is a word of the command */
	bool destination; /* argument 1 is a key, too */
	bool procedure;   /* argument 1 names a stored procedure */
};

/* `name` in upper case. NULL when it is not in the table. */
const struct redis_command *redis_command_find(struct slice name);
/* The table's entry `i`, in order; NULL behind the last. */
const struct redis_command *redis_command_at(size_t i);
/* [A-Za-z0-9_.-]{1,32} */
bool redis_command_name_ok(struct slice name);
/* Upper case into `out` (REDIS_NAME_MAX_BYTES); for names that are ok. */
struct slice redis_command_upper(struct slice name, char *out);

#endif
