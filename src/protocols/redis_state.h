/*
 * What the parts of the Redis protocol share: the state of a connection. redis_request.c reads
 * commands, redis_reply.c answers, redis_batch.c says which commands share a span and what it says;
 * redis.c is the protocol's table. Invariant: answers are counted (answered) against the answers
 * that are due (due), in the order of the commands.
 */
#ifndef PROTOCOLS_REDIS_STATE_H
#define PROTOCOLS_REDIS_STATE_H

#include "trace/net_attrs.h"
#include "protocols/redis_commands.h"
#include "protocols/resp_parse.h"
#include "trace/connection.h"

enum {
	REDIS_MAX_IN_FLIGHT = 4096,         /* spans without their whole answer */
	REDIS_MAX_SPECIALS = 1024,          /* answers in flight that need more than counting */
	REDIS_TEXT_MAX_BYTES = 2048,        /* db.query.text */
	REDIS_COMMAND_TEXT_MAX_BYTES = 512, /* of which each command */
	REDIS_ARG_MAX_BYTES = 256,          /* of a key or another argument that is looked at */
	REDIS_ERROR_MAX_BYTES = 64,         /* db.response.status_code */
	REDIS_WORD_MAX_BYTES = 24, /* the first element of a push, the longest being punsubscribe */
	REDIS_PORT = 6379,
};

enum reply_mode { REPLY_ON, REPLY_OFF, REPLY_SKIP };

/* A short text of its own. */
struct redis_word {
	uint8_t len;
	char text[REDIS_NAME_MAX_BYTES];
};

/* Which commands a span stands for: one name, or several. */
struct redis_names {
	uint32_t count;
	bool mixed;
	struct redis_word name;
};

/* The commands that share the newest span, while more may join. */
struct redis_batch {
	struct exchange *ex; /* NULL: none is open */
	uint64_t last_chunk; /* of the request stream: where its last whole command ended */
	uint64_t context;    /* of the runtime, in which it began; 0: none */
	struct redis_names all, inside; /* inside: between MULTI and EXEC */
	bool multi_first, multi_open,
		multi_only; /* begins with MULTI; EXEC not seen; nothing behind EXEC */
	bool text_full, has_procedure;
	bool cut; /* more of it was sent than was captured: how many commands it has isn't known */
	size_t command_start; /* in text */
	struct buf text;      /* db.query.text */
	char procedure[REDIS_ARG_MAX_BYTES];
	uint16_t procedure_len;
};

/* The command that is being read. */
struct redis_request {
	bool begun, named, passing; /* passing: an argument's rest is being passed over */
	bool unframed, at_start;
	uint64_t chunk;
	int64_t argc, index;
	struct redis_word name;
	const struct redis_command *command;
	int64_t keys_from,
		keys_to; /* REDIS_KEYS_COUNTED, _STREAMS: known once their argument was read */
	struct redis_word word; /* the subcommand, in upper case */
	enum reply_mode reply;  /* CLIENT REPLY */
	int64_t number;         /* SELECT, HELLO */
};

/* The value that is being read from the answering side. */
struct redis_reply {
	bool begun, passing, unframed;
	uint8_t type;
	uint8_t first_byte; /* of a simple string */
	struct resp_walk walk;
	struct resp_header header;             /* passing: whose data it is */
	uint64_t element;                      /* at depth 1 */
	struct redis_word first;               /* the first element, when it is a string */
	int64_t last_number;                   /* the last integer at depth 1 */
	struct redis_word error, nested_error; /* the codes */
	bool has_error, has_nested_error;
};

/* An answer that means something for the connection. */
struct redis_special {
	uint64_t number; /* the how manieth answer it is */
	uint32_t count; /* confirmations to come; 0 for REDIS_UNSUBSCRIBE: one for each subscription
			 */
	uint8_t effect; /* enum redis_effect */
	int32_t db;     /* REDIS_SELECT: the one before */
};

struct redis_state {
	struct redis_request request;
	struct redis_reply reply;
	struct redis_batch batch;
	uint64_t due, answered;
	struct buf specials; /* of struct redis_special, from special_first on */
	size_t special_first;
	enum reply_mode mode;
	bool lost; /* answers can't be told apart: what is in flight ends when the next command
		      begins */
	bool monitor, resp3;
	bool started;   /* db is set */
	bool by_inline; /* a line of text made it look like Redis: proven by an answer only */
	bool proven;
	int32_t db;                          /* -1: not known */
	uint32_t channels, patterns, shards; /* subscriptions */
	int error;                           /* of a client's send */
	struct net_text net;
};

/* exchange.scratch: [0] the number of the answer that ends it, exclusive; [1] when its last command
 * ended */
enum { EX_DUE, EX_COMMAND_NS };

static inline enum io_dir redis_reply_dir(const struct connection *c)
{
	return connection_request_dir(c) == IO_SEND ? IO_RECV : IO_SEND;
}

ssize_t redis_request_step(struct connection *c, const uint8_t *data, size_t len);
ssize_t redis_reply_step(struct connection *c, const uint8_t *data, size_t len);
/* Passes over what is here of this event, and what was not captured of it. */
ssize_t redis_pass_event(struct connection *c, enum io_dir dir, size_t len);
enum protocol_match redis_match(const struct connection *c, enum io_dir dir, const uint8_t *data,
				size_t len, size_t total);

/* redis_batch.c: a command begins: it joins the open batch or opens one. False when it can't be
 * followed. */
bool redis_batch_begin(struct connection *c);
void redis_batch_name(struct redis_state *st, struct slice name);
/* An argument of it: shown as it stands, or as '?'. */
void redis_batch_arg(struct redis_state *st, bool shown, struct slice text);
/* The command is whole. */
void redis_batch_command_done(struct connection *c);
/* Its exchange is over. */
void redis_finish(struct connection *c, struct exchange *ex, uint64_t end_ns);
/* The next command or the end shows that it is over: it ends with its last answer byte, or is
 * dropped. */
void redis_settle(struct connection *c, struct exchange *ex);
void redis_settle_all(struct connection *c);
/* It was another protocol after all: what is in flight is dropped, the connection with it. */
ssize_t redis_disown(struct connection *c);
/* Spans whose answers are all there, or that get none. */
void redis_finish_unanswered(struct connection *c);

struct redis_special *redis_special_first(struct redis_state *st);
void redis_special_push(struct redis_state *st, struct redis_special special);
void redis_special_pop(struct redis_state *st);

#endif
