/*
 * The command table, sorted by name for the binary search (a unit test checks the order). Key
 * positions are those that Redis' own COMMAND INFO reports.
 */
#include "protocols/redis_commands.h"

#define PLAIN(n)            \
	{                   \
		.name = (n) \
	}
#define EFFECT(n, e)                             \
	{                                        \
		.name = (n), .effect = REDIS_##e \
	}
#define KEYS(n, f, l, s)                                                                      \
	{                                                                                     \
		.name = (n), .keys = REDIS_KEYS_RANGE, .first = (f), .last = (l), .step = (s) \
	}
#define KEY(n) KEYS(n, 1, 1, 1)

/* clang-format off */
static const struct redis_command commands[] = {
	PLAIN("ACL"), KEY("APPEND"), PLAIN("ASKING"), PLAIN("AUTH"), KEY("BF.ADD"),
	KEY("BF.EXISTS"), KEY("BF.RESERVE"), PLAIN("BGREWRITEAOF"), PLAIN("BGSAVE"),
	KEY("BITCOUNT"), KEY("BITFIELD"), KEY("BITFIELD_RO"), KEYS("BITOP", 2, -1, 1),
	KEY("BITPOS"), KEYS("BLMOVE", 1, 2, 1),
	{ .name = "BLMPOP", .keys = REDIS_KEYS_COUNTED, .first = 2 }, KEYS("BLPOP", 1, -2, 1),
	KEYS("BRPOP", 1, -2, 1), KEYS("BRPOPLPUSH", 1, 2, 1),
	{ .name = "BZMPOP", .keys = REDIS_KEYS_COUNTED, .first = 2 }, KEYS("BZPOPMAX", 1, -2, 1),
	KEYS("BZPOPMIN", 1, -2, 1), KEY("CF.ADD"), KEY("CF.EXISTS"),
	{ .name = "CLIENT", .keys = REDIS_KEYS_NONE, .effect = REDIS_CLIENT, .subcommand = true },
	{ .name = "CLUSTER", .keys = REDIS_KEYS_NONE, .subcommand = true },
	{ .name = "COMMAND", .keys = REDIS_KEYS_NONE, .subcommand = true },
	{ .name = "CONFIG", .keys = REDIS_KEYS_NONE, .subcommand = true }, KEYS("COPY", 1, 2, 1),
	PLAIN("DBSIZE"), { .name = "DEBUG", .keys = REDIS_KEYS_NONE, .subcommand = true },
	KEY("DECR"), KEY("DECRBY"), KEYS("DEL", 1, -1, 1), EFFECT("DISCARD", DISCARD),
	KEY("DUMP"), PLAIN("ECHO"), { .name = "EVAL", .keys = REDIS_KEYS_COUNTED, .first = 2 },
	{ .name = "EVALSHA", .keys = REDIS_KEYS_COUNTED, .first = 2, .procedure = true },
	{ .name = "EVALSHA_RO", .keys = REDIS_KEYS_COUNTED, .first = 2, .procedure = true },
	{ .name = "EVAL_RO", .keys = REDIS_KEYS_COUNTED, .first = 2 }, EFFECT("EXEC", EXEC),
	KEYS("EXISTS", 1, -1, 1), KEY("EXPIRE"), KEY("EXPIREAT"), KEY("EXPIRETIME"),
	PLAIN("FAILOVER"),
	{ .name = "FCALL", .keys = REDIS_KEYS_COUNTED, .first = 2, .procedure = true },
	{ .name = "FCALL_RO", .keys = REDIS_KEYS_COUNTED, .first = 2, .procedure = true },
	PLAIN("FLUSHALL"), PLAIN("FLUSHDB"),
	{ .name = "FUNCTION", .keys = REDIS_KEYS_NONE, .subcommand = true }, KEY("GEOADD"),
	KEY("GEODIST"), KEY("GEOHASH"), KEY("GEOPOS"), KEY("GEORADIUS"), KEY("GEORADIUSBYMEMBER"),
	KEY("GEORADIUSBYMEMBER_RO"), KEY("GEORADIUS_RO"), KEY("GEOSEARCH"),
	KEYS("GEOSEARCHSTORE", 1, 2, 1), KEY("GET"), KEY("GETBIT"), KEY("GETDEL"), KEY("GETEX"),
	KEY("GETRANGE"), KEY("GETSET"), KEY("HDEL"), EFFECT("HELLO", HELLO), KEY("HEXISTS"),
	KEY("HEXPIRE"), KEY("HEXPIREAT"), KEY("HEXPIRETIME"), KEY("HGET"), KEY("HGETALL"),
	KEY("HGETDEL"), KEY("HGETEX"), KEY("HINCRBY"), KEY("HINCRBYFLOAT"), KEY("HKEYS"),
	KEY("HLEN"), KEY("HMGET"), KEY("HMSET"), KEY("HPERSIST"), KEY("HPEXPIRE"),
	KEY("HPEXPIREAT"), KEY("HPEXPIRETIME"), KEY("HPTTL"), KEY("HRANDFIELD"), KEY("HSCAN"),
	KEY("HSET"), KEY("HSETEX"), KEY("HSETNX"), KEY("HSTRLEN"), KEY("HTTL"), KEY("HVALS"),
	KEY("INCR"), KEY("INCRBY"), KEY("INCRBYFLOAT"), PLAIN("INFO"), KEY("JSON.ARRAPPEND"),
	KEY("JSON.DEL"), KEY("JSON.GET"), KEY("JSON.MERGE"), KEYS("JSON.MGET", 1, -2, 1),
	KEY("JSON.NUMINCRBY"), KEY("JSON.SET"), KEY("JSON.TYPE"), PLAIN("KEYS"),
	PLAIN("LASTSAVE"), { .name = "LATENCY", .keys = REDIS_KEYS_NONE, .subcommand = true },
	KEYS("LCS", 1, 2, 1), KEY("LINDEX"), KEY("LINSERT"), KEY("LLEN"), KEYS("LMOVE", 1, 2, 1),
	{ .name = "LMPOP", .keys = REDIS_KEYS_COUNTED, .first = 1 }, PLAIN("LOLWUT"), KEY("LPOP"),
	KEY("LPOS"), KEY("LPUSH"), KEY("LPUSHX"), KEY("LRANGE"), KEY("LREM"), KEY("LSET"),
	KEY("LTRIM"),
	{ .name = "MEMORY", .keys = REDIS_KEYS_RANGE, .first = 2, .last = 2, .step = 1, .subcommand = true },
	KEYS("MGET", 1, -1, 1), PLAIN("MIGRATE"),
	{ .name = "MODULE", .keys = REDIS_KEYS_NONE, .subcommand = true },
	EFFECT("MONITOR", MONITOR), KEY("MOVE"), KEYS("MSET", 1, -1, 2), KEYS("MSETNX", 1, -1, 2),
	EFFECT("MULTI", MULTI),
	{ .name = "OBJECT", .keys = REDIS_KEYS_RANGE, .first = 2, .last = 2, .step = 1, .subcommand = true },
	KEY("PERSIST"), KEY("PEXPIRE"), KEY("PEXPIREAT"), KEY("PEXPIRETIME"), KEY("PFADD"),
	KEYS("PFCOUNT", 1, -1, 1), KEYS("PFMERGE", 1, -1, 1), PLAIN("PING"), KEY("PSETEX"),
	EFFECT("PSUBSCRIBE", SUBSCRIBE), EFFECT("PSYNC", SYNC), KEY("PTTL"), PLAIN("PUBLISH"),
	{ .name = "PUBSUB", .keys = REDIS_KEYS_NONE, .subcommand = true },
	EFFECT("PUNSUBSCRIBE", UNSUBSCRIBE), PLAIN("QUIT"), PLAIN("RANDOMKEY"), PLAIN("READONLY"),
	PLAIN("READWRITE"), KEYS("RENAME", 1, 2, 1), KEYS("RENAMENX", 1, 2, 1), PLAIN("REPLCONF"),
	PLAIN("REPLICAOF"), EFFECT("RESET", RESET), KEY("RESTORE"), PLAIN("ROLE"), KEY("RPOP"),
	KEYS("RPOPLPUSH", 1, 2, 1), KEY("RPUSH"), KEY("RPUSHX"), KEY("SADD"), PLAIN("SAVE"),
	PLAIN("SCAN"), KEY("SCARD"),
	{ .name = "SCRIPT", .keys = REDIS_KEYS_NONE, .subcommand = true },
	KEYS("SDIFF", 1, -1, 1), KEYS("SDIFFSTORE", 1, -1, 1), EFFECT("SELECT", SELECT),
	KEY("SET"), KEY("SETBIT"), KEY("SETEX"), KEY("SETNX"), KEY("SETRANGE"), PLAIN("SHUTDOWN"),
	KEYS("SINTER", 1, -1, 1),
	{ .name = "SINTERCARD", .keys = REDIS_KEYS_COUNTED, .first = 1 },
	KEYS("SINTERSTORE", 1, -1, 1), KEY("SISMEMBER"), PLAIN("SLAVEOF"),
	{ .name = "SLOWLOG", .keys = REDIS_KEYS_NONE, .subcommand = true }, KEY("SMEMBERS"),
	KEY("SMISMEMBER"), KEYS("SMOVE", 1, 2, 1), KEY("SORT"), KEY("SORT_RO"), KEY("SPOP"),
	PLAIN("SPUBLISH"), KEY("SRANDMEMBER"), KEY("SREM"), KEY("SSCAN"),
	EFFECT("SSUBSCRIBE", SUBSCRIBE), KEY("STRLEN"), EFFECT("SUBSCRIBE", SUBSCRIBE),
	KEY("SUBSTR"), KEYS("SUNION", 1, -1, 1), KEYS("SUNIONSTORE", 1, -1, 1),
	EFFECT("SUNSUBSCRIBE", UNSUBSCRIBE), PLAIN("SWAPDB"), EFFECT("SYNC", SYNC), PLAIN("TIME"),
	KEYS("TOUCH", 1, -1, 1), KEY("TS.ADD"), KEY("TS.GET"), KEY("TS.RANGE"), KEY("TTL"),
	KEY("TYPE"), KEYS("UNLINK", 1, -1, 1), EFFECT("UNSUBSCRIBE", UNSUBSCRIBE),
	PLAIN("UNWATCH"), PLAIN("WAIT"), PLAIN("WAITAOF"), KEYS("WATCH", 1, -1, 1), KEY("XACK"),
	KEY("XADD"), KEY("XAUTOCLAIM"), KEY("XCLAIM"), KEY("XDEL"),
	{ .name = "XGROUP", .keys = REDIS_KEYS_RANGE, .first = 2, .last = 2, .step = 1, .subcommand = true },
	{ .name = "XINFO", .keys = REDIS_KEYS_RANGE, .first = 2, .last = 2, .step = 1, .subcommand = true },
	KEY("XLEN"), KEY("XPENDING"), KEY("XRANGE"),
	{ .name = "XREAD", .keys = REDIS_KEYS_STREAMS },
	{ .name = "XREADGROUP", .keys = REDIS_KEYS_STREAMS }, KEY("XREVRANGE"), KEY("XSETID"),
	KEY("XTRIM"), KEY("ZADD"), KEY("ZCARD"), KEY("ZCOUNT"),
	{ .name = "ZDIFF", .keys = REDIS_KEYS_COUNTED, .first = 1 },
	{ .name = "ZDIFFSTORE", .keys = REDIS_KEYS_COUNTED, .first = 2, .destination = true },
	KEY("ZINCRBY"), { .name = "ZINTER", .keys = REDIS_KEYS_COUNTED, .first = 1 },
	{ .name = "ZINTERCARD", .keys = REDIS_KEYS_COUNTED, .first = 1 },
	{ .name = "ZINTERSTORE", .keys = REDIS_KEYS_COUNTED, .first = 2, .destination = true },
	KEY("ZLEXCOUNT"), { .name = "ZMPOP", .keys = REDIS_KEYS_COUNTED, .first = 1 },
	KEY("ZMSCORE"), KEY("ZPOPMAX"), KEY("ZPOPMIN"), KEY("ZRANDMEMBER"), KEY("ZRANGE"),
	KEY("ZRANGEBYLEX"), KEY("ZRANGEBYSCORE"), KEYS("ZRANGESTORE", 1, 2, 1), KEY("ZRANK"),
	KEY("ZREM"), KEY("ZREMRANGEBYLEX"), KEY("ZREMRANGEBYRANK"), KEY("ZREMRANGEBYSCORE"),
	KEY("ZREVRANGE"), KEY("ZREVRANGEBYLEX"), KEY("ZREVRANGEBYSCORE"), KEY("ZREVRANK"),
	KEY("ZSCAN"), KEY("ZSCORE"), { .name = "ZUNION", .keys = REDIS_KEYS_COUNTED, .first = 1 },
	{ .name = "ZUNIONSTORE", .keys = REDIS_KEYS_COUNTED, .first = 2, .destination = true },
};
/* clang-format on */

static int compare(struct slice name, const char *entry)
{
	size_t n = strlen(entry);
	int order = memcmp(name.data, entry, name.len < n ? name.len : n);

	if (order)
		return order;
	return name.len < n ? -1 : name.len > n;
}

const struct redis_command *redis_command_find(struct slice name)
{
	size_t low = 0, high = sizeof(commands) / sizeof(commands[0]);

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = compare(name, commands[middle].name);

		if (order == 0)
			return &commands[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const struct redis_command *redis_command_at(size_t i)
{
	return i < sizeof(commands) / sizeof(commands[0]) ? &commands[i] : NULL;
}

bool redis_command_name_ok(struct slice name)
{
	static const bool allowed[256] = {
		['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
		['_'] = 1,         ['.'] = 1,         ['-'] = 1,
	};
	size_t i;

	if (!name.len || name.len > REDIS_NAME_MAX_BYTES)
		return false;
	for (i = 0; i < name.len; i++) {
		if (!allowed[name.data[i]])
			return false;
	}
	return true;
}

struct slice redis_command_upper(struct slice name, char *out)
{
	size_t i;

	for (i = 0; i < name.len; i++)
		out[i] = (char)(name.data[i] >= 'a' && name.data[i] <= 'z' ? name.data[i] - 0x20
									   : name.data[i]);
	return slice_of(out, name.len);
}
