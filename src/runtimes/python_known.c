/*
 * The functions that mean something where they are met in a stack: what runs pools and their items,
 * what servers answer with, and those that the configuration's rules name. One table; it owns the
 * list of the code objects found. They are looked up through sys.modules, so no call has to be seen
 * first, and what has a row's name but isn't what its module holds under it is found by name only.
 */
#include "runtimes/python_object.h"

#include <stdlib.h>
#include <string.h>

enum {
	KNOWN_MAX = 8192,
	PARTS_MAX = 16, /* of a qualified name */
	PART_BYTES = 128,
	CODE_NAMES_FROM_CONSTS = 8, /* co_names stands behind co_consts in every version */
	ARG_BITS = 8,
	COROUTINE = 1,         /* of CODE_TASK */
	IN_REQUEST = 1,        /* of CODE_SERVE */
	WHATEVER_IS_READY = 1, /* of CODE_LOOP */
};

/* What an answer's frame holds that leads to its route. */
struct answer {
	const char *module, *class_, *attribute;
	const char *held_module, *held_class, *held_slot; /* CODE_ANSWER_MATCH */
};

struct row {
	const char *module, *function; /* qualified name */
	uint32_t kind;                 /* enum code_kind */
	uint32_t arg;
	struct answer answer;
};

#define ANSWERS(module_, class_name, method)                                                      \
	{                                                                                         \
		.module = (module_), .function = class_name "." method, .kind = CODE_ANSWER_SELF, \
		.answer = {                                                                       \
			.module = (module_),                                                      \
			.class_ = class_name,                                                     \
			.attribute = "scope"                                                      \
		}                                                                                 \
	}
#define HOLDS_SCOPE(module_, function_)                                                  \
	{                                                                                \
		.module = (module_), .function = (function_), .kind = CODE_ANSWER_LOCAL, \
		.arg = 1 /* behind self */                                               \
	}
#define HOLDS_REQUEST(function_)                                           \
	{                                                                  \
		.module = "aiohttp.web_protocol", .function = (function_), \
		.kind = CODE_ANSWER_MATCH, .arg = 1, .answer = {           \
			"aiohttp.web_request",                             \
			"Request",                                         \
			"_match_info",                                     \
			"aiohttp.web_urldispatcher",                       \
			"UrlMappingMatchInfo",                             \
			"_route"                                           \
		}                                                          \
	}

static const struct row rows[] = {
	/* threads that serve whoever comes: who made them says nothing */
	{ "concurrent.futures.thread", "_worker", CODE_POOL, 0, { 0 } },
	{ "anyio._backends._asyncio", "WorkerThread.run", CODE_POOL, 0, { 0 } },
	{ "multiprocessing.pool", "worker", CODE_POOL, 0, { 0 } },
	{ "trio._core._thread_cache", "WorkerThread._work", CODE_POOL, 0, { 0 } },
	{ "twisted._threads._threadworker",
	  "ThreadWorker.__init__.<locals>.work",
	  CODE_POOL,
	  0,
	  { 0 } },
	{ "aiosqlite.core", "Connection.run", CODE_POOL, 0, { 0 } },
	{ "aiosqlite.core", "_connection_worker_thread", CODE_POOL, 0, { 0 } },
	{ "waitress.task", "ThreadedTaskDispatcher.handler_thread", CODE_POOL, 0, { 0 } },
	{ "cheroot.workers.threadpool", "WorkerThread.run", CODE_POOL, 0, { 0 } },
	{ "logging.handlers", "QueueListener._monitor", CODE_POOL, 0, { 0 } },
	/* one item of an executor */
	{ "concurrent.futures.thread", "_WorkItem.run", CODE_WORK, 0, { 0 } },
	/* outermost frames. An event loop is not among them: asyncio.run() runs in executors too */
	{ "threading", "Thread.run", CODE_STOP, 0, { 0 } },
	{ "threading", "Thread._bootstrap_inner", CODE_STOP, 0, { 0 } },
	{ "threading", "Thread._bootstrap", CODE_STOP, 0, { 0 } },
	{ "uvicorn.server", "Server.run", CODE_STOP, 0, { 0 } },
	{ "hypercorn.asyncio.run", "asyncio_worker", CODE_STOP, 0, { 0 } },
	{ "gunicorn.arbiter", "Arbiter.run", CODE_STOP, 0, { 0 } },
	{ "granian.server.common", "AbstractServer.serve", CODE_STOP, 0, { 0 } },
	{ "granian._futures", "_cbsched_aioschedule.<locals>._run", CODE_STOP, 0, { 0 } },
	{ "aiohttp.web", "run_app", CODE_STOP, 0, { 0 } },
	/* what makes tasks, threads and items for its caller: the functions that are running when a
	 * context is copied for it */
	{ "asyncio.tasks", "create_task", CODE_TASK, 0, { 0 } },
	{ "asyncio.tasks", "ensure_future", CODE_TASK, 0, { 0 } },
	{ "asyncio.tasks", "_ensure_future", CODE_TASK, 0, { 0 } },
	{ "asyncio.tasks", "create_eager_task_factory.<locals>.factory", CODE_TASK, 0, { 0 } },
	{ "asyncio.base_events", "BaseEventLoop.create_task", CODE_TASK, 0, { 0 } },
	{ "asyncio.taskgroups", "TaskGroup.create_task", CODE_TASK, 0, { 0 } },
	{ "asyncio.runners", "Runner._lazy_init", CODE_TASK, 0, { 0 } },
	{ "concurrent.futures.thread", "ThreadPoolExecutor.submit", CODE_TASK, 0, { 0 } },
	{ "threading", "Thread.start", CODE_TASK, 0, { 0 } },
	{ "asyncio.threads", "to_thread", CODE_TASK, COROUTINE, { 0 } },
	{ "anyio._backends._asyncio", "run_sync_in_worker_thread", CODE_TASK, COROUTINE, { 0 } },
	{ "anyio._backends._asyncio",
	  "AsyncIOBackend.run_sync_in_worker_thread",
	  CODE_TASK,
	  COROUTINE,
	  { 0 } },
	{ "asgiref.sync", "SyncToAsync.__call__", CODE_TASK, COROUTINE, { 0 } },
	/* (a library's that calls the loop itself, whose own function is native in uvloop) */
	{ "aiohttp.client_reqrep", "ClientRequest.send", CODE_TASK, COROUTINE, { 0 } },
	{ "anyio.to_thread", "run_sync", CODE_TASK, COROUTINE, { 0 } },
	{ "starlette.concurrency", "run_in_threadpool", CODE_TASK, COROUTINE, { 0 } },
	/* what has them made for the application's own handlers */
	{ "uvicorn.protocols.http.httptools_impl",
	  "HttpToolsProtocol.on_headers_complete",
	  CODE_SERVE,
	  0,
	  { 0 } },
	{ "uvicorn.protocols.http.httptools_impl",
	  "HttpToolsProtocol._start_asgi_task",
	  CODE_SERVE,
	  0,
	  { 0 } },
	{ "uvicorn.protocols.http.h11_impl", "H11Protocol.handle_events", CODE_SERVE, 0, { 0 } },
	{ "uvicorn.protocols.http.zttp_impl", "ZttpProtocol.handle_events", CODE_SERVE, 0, { 0 } },
	{ "fastapi.routing", "run_endpoint_function", CODE_SERVE, IN_REQUEST, { 0 } },
	{ "fastapi.dependencies.utils", "solve_dependencies", CODE_SERVE, IN_REQUEST, { 0 } },
	/* event loops: whoever began one calls nothing that runs in it */
	{ "asyncio.events", "Handle._run", CODE_LOOP, WHATEVER_IS_READY, { 0 } },
	{ "asyncio.base_events", "BaseEventLoop.run_until_complete", CODE_LOOP, 0, { 0 } },
	{ "asyncio.runners", "Runner.run", CODE_LOOP, 0, { 0 } },
	{ "asyncio.runners", "run", CODE_LOOP, 0, { 0 } },
	{ "anyio._backends._asyncio", "Runner.run", CODE_LOOP, 0, { 0 } },
	/* answers: the servers' own frames, innermost */
	ANSWERS("uvicorn.protocols.http.httptools_impl", "RequestResponseCycle", "send"),
	ANSWERS("uvicorn.protocols.http.h11_impl", "RequestResponseCycle", "send"),
	ANSWERS("uvicorn.protocols.http.zttp_impl", "RequestResponseCycle", "send"),
	ANSWERS("uvicorn.protocols.websockets.wsproto_impl", "WSProtocol", "send"),
	ANSWERS("uvicorn.protocols.websockets.websockets_sansio_impl", "WebSocketsSansIOProtocol",
		"send"),
	ANSWERS("hypercorn.protocol.http_stream", "HTTPStream", "app_send"),
	ANSWERS("hypercorn.protocol.ws_stream", "WSStream", "app_send"),
	/* answers of servers that have no frame: what the framework holds */
	HOLDS_SCOPE("starlette.responses", "Response.__call__"),
	HOLDS_SCOPE("starlette.responses", "FileResponse.__call__"),
	HOLDS_SCOPE("starlette.applications", "Starlette.__call__"),
	HOLDS_SCOPE("fastapi.applications", "FastAPI.__call__"),
	HOLDS_SCOPE("django.core.handlers.asgi", "ASGIHandler.__call__"),
	HOLDS_REQUEST("RequestHandler.finish_response"),
	HOLDS_REQUEST("RequestHandler._handle_request"),
};
enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

struct known_code {
	uint64_t code;
	struct code_class class_;
};

struct python_known {
	struct known_code *codes;
	size_t count;
	struct hash by_code;      /* code → 1 + index into codes */
	bool row_done[ROW_COUNT]; /* found, with its argument */
	bool *rule_done;
};

void python_known_free(struct python_known *known)
{
	if (!known)
		return;
	hash_free(&known->by_code);
	free(known->codes);
	free(known->rule_done);
	free(known);
}

/* --- from a name to what it stands for -------------------------------------------------------- */

/* The code object that `code` has among its constants under this name. */
static uint64_t inner_code(const struct python *p, uint64_t code, const char *name)
{
	uint64_t consts = python_pointer(p, code + p->offsets.code_consts);
	size_t n = python_tuple_length(p, consts);

	for (size_t i = 0; i < n; i++) {
		uint64_t item = python_tuple_item(p, consts, i);

		if (item && python_type(p, item) == p->code_type &&
		    python_str_equals(p, python_pointer(p, item + p->offsets.code_name), name))
			return item;
	}
	return 0;
}

/* One step down a qualified name from a class or a function. */
static uint64_t resolve_part(const struct python *p, uint64_t object, const char *part)
{
	uint64_t code;

	if (strcmp(part, "<locals>") == 0)
		return python_function_code(p, python_unwrap(p, object));
	if (python_type(p, object) == p->code_type)
		return inner_code(p, object, part);
	if (python_is(p, object, PYTHON_TYPE))
		return python_class_get(p, object, part);
	code = python_function_code(p, python_unwrap(p, object));
	return code ? inner_code(p, code, part) : 0;
}

uint64_t python_resolve(const struct python *p, const char *module, const char *qualname)
{
	uint64_t object = python_place_object(p, module);
	char part[PART_BYTES];
	int parts = 0;

	while (object && *qualname) {
		size_t n = strcspn(qualname, ".");

		if (!n || n >= sizeof(part) || ++parts > PARTS_MAX)
			return 0;
		memcpy(part, qualname, n);
		part[n] = '\0';
		object = parts == 1 ? python_module_get(p, object, part)
				    : resolve_part(p, object, part);
		qualname += n + (qualname[n] == '.');
	}
	return object;
}

static uint64_t resolve_code(const struct python *p, const char *module, const char *qualname)
{
	uint64_t object = python_resolve(p, module, qualname);

	if (!object || python_type(p, object) == p->code_type)
		return object;
	return python_function_code(p, python_unwrap(p, object));
}

/*
 * The number of an attribute among the values of a class's instances. Before there was an instance
 * no number is given; but what __init__ names first, it sets first (each __init__ of a row does).
 */
static int attribute_number(const struct python *p, const struct answer *a)
{
	uint64_t class_ = python_resolve(p, a->module, a->class_), code, names;
	int i = class_ ? python_attr_index(p, class_, a->attribute) : -1;

	if (i >= 0 || !class_ || python_attr_count(p, class_) != 0)
		return i;
	code = python_function_code(p, python_class_get(p, class_, "__init__"));
	names = code ? python_pointer(p, code + p->offsets.code_consts + CODE_NAMES_FROM_CONSTS)
		     : 0;
	return names && python_str_equals(p, python_tuple_item(p, names, 0), a->attribute) ? 0 : -1;
}

/* The row's argument; false: it can't be known yet. */
static bool row_arg(const struct python *p, const struct row *row, uint32_t *ret)
{
	uint64_t held, offset;
	int i = 0;

	*ret = row->arg;
	if (!row->answer.attribute)
		return true;
	i = attribute_number(p, &row->answer);
	if (i < 0 || i >= 1 << ARG_BITS)
		return false;
	if (row->kind != CODE_ANSWER_MATCH) {
		*ret = (uint32_t)i;
		return true;
	}
	held = python_resolve(p, row->answer.held_module, row->answer.held_class);
	offset = held ? python_slot_offset(p, held, row->answer.held_slot) : 0;
	*ret = row->arg | (uint32_t)i << ARG_BITS | (uint32_t)offset << 2 * ARG_BITS;
	return offset != 0;
}

/* --- what was found --------------------------------------------------------------------------- */

bool python_known_add(struct python *p, uint64_t code, uint32_t kind, uint32_t arg)
{
	struct python_known *known = p->known;
	struct known_code *codes;

	if (!known || known->count >= KNOWN_MAX || hash_get(&known->by_code, code))
		return false;
	codes = (struct known_code *)reallocarray(known->codes, known->count + 1, sizeof(*codes));
	if (!codes)
		return false;
	known->codes = codes;
	codes[known->count] = (struct known_code){ code, { kind, arg } };
	if (!hash_put(&known->by_code, code, (void *)(uintptr_t)(known->count + 1)))
		return false;
	known->count++;
	return true;
}

static bool rule_is_file(const struct runtime_span_rule *rule)
{
	size_t n = strlen(rule->where);

	return n > 3 && strcmp(rule->where + n - 3, ".py") == 0;
}

static uint32_t span_arg(const struct python *p, uint32_t rule, uint64_t code)
{
	enum { ARGUMENTS_SHIFT = 16 };

	return rule | python_arguments(p, code) << ARGUMENTS_SHIFT;
}

/*
 * Is the code object what the rule names, and not what a decorator put in its place? That is the
 * same for all that it decorates. Another name for a function of the module counts.
 */
static bool rule_means(const struct python *p, const char *function, uint64_t object, uint64_t code)
{
	const char *dot = strrchr(function, '.');
	char *qualname;
	bool inner;

	if (python_str_equals(p, python_pointer(p, code + p->offsets.code_name),
			      dot ? dot + 1 : function))
		return true;
	if (p->offsets.code_qualname == PYTHON_NONE || !python_type_named(p, object, "function"))
		return false;
	qualname = python_text(p, python_pointer(p, code + p->offsets.code_qualname));
	inner = !qualname || strstr(qualname, "<locals>");
	free(qualname);
	return !inner;
}

struct rule_search {
	struct python *p;
	uint32_t rule;
	bool found;
};

static bool rule_in_module(void *ctx, const char *module)
{
	struct rule_search *s = (struct rule_search *)ctx;
	const char *function = s->p->options->spans[s->rule].function;
	uint64_t object = python_resolve(s->p, module, function);
	uint64_t code = resolve_code(s->p, module, function);

	if (code && rule_means(s->p, function, object, code))
		s->found = python_known_add(s->p, code, CODE_SPAN, span_arg(s->p, s->rule, code)) ||
			   s->found;
	return true;
}

static bool rule_learn(struct python *p, uint32_t i)
{
	const struct runtime_span_rule *rule = &p->options->spans[i];
	struct rule_search s = { .p = p, .rule = i };

	if (!rule->where || p->known->rule_done[i])
		return false;
	if (rule_is_file(rule))
		python_place_each(p, rule->where, rule_in_module, &s);
	else
		rule_in_module(&s, rule->where);
	p->known->rule_done[i] = s.found && !rule_is_file(rule);
	return s.found;
}

static size_t rule_count(const struct python *p)
{
	return p->options ? p->options->span_count : 0;
}

bool python_known_learn(struct python *p)
{
	bool found = false;
	uint32_t arg;

	if (!p->known)
		p->known = (struct python_known *)calloc(1, sizeof(*p->known));
	if (!p->known)
		return false;
	if (!p->known->rule_done && rule_count(p))
		p->known->rule_done = (bool *)calloc(rule_count(p), sizeof(bool));
	for (uint32_t i = 0; p->known->rule_done && i < rule_count(p); i++)
		found = rule_learn(p, i) || found;
	for (size_t i = 0; i < ROW_COUNT; i++) {
		uint64_t code;

		if (p->known->row_done[i] || !python_place_object(p, rows[i].module))
			continue;
		code = resolve_code(p, rows[i].module, rows[i].function);
		if (!code || !row_arg(p, &rows[i], &arg))
			continue;
		p->known->row_done[i] = true;
		found = python_known_add(p, code, rows[i].kind, arg) || found;
	}
	return found;
}

void python_known_each(const struct python *p, runtime_code_fn fn, void *ctx)
{
	for (size_t i = 0; p->known && i < p->known->count; i++)
		fn(ctx, p->known->codes[i].code, &p->known->codes[i].class_);
}

bool python_known_get(const struct python *p, uint64_t code, struct code_class *ret)
{
	uintptr_t i = p->known ? (uintptr_t)hash_get(&p->known->by_code, code) : 0;

	if (!i)
		return false;
	*ret = p->known->codes[i - 1].class_;
	return true;
}

/* --- by name ---------------------------------------------------------------------------------- */

/* Is the file the module's? Where no module is known for the file, its path has to look like it. */
static bool file_is_module(const struct python *p, const char *file, const char *module)
{
	const char *known = python_place_module(p, file);
	char path[PYTHON_TEXT_MAX];
	size_t n = strlen(module);

	if (known[0])
		return strcmp(known, module) == 0;
	if (n + sizeof(".py") > sizeof(path))
		return false;
	for (size_t i = 0; i < n; i++)
		path[i] = module[i] == '.' ? '/' : module[i];
	memcpy(path + n, ".py", sizeof(".py"));
	return python_place_ends(file, path);
}

static bool rule_has_file(const struct python *p, const struct runtime_span_rule *rule,
			  const char *file)
{
	if (!rule->where)
		return false;
	return rule_is_file(rule) ? python_place_ends(file, rule->where)
				  : file_is_module(p, file, rule->where);
}

bool python_known_named(const struct python *p, uint64_t code, const char *file,
			const char *qualname, struct code_class *ret)
{
	uint32_t arg;

	for (uint32_t i = 0; i < rule_count(p); i++) {
		const struct runtime_span_rule *rule = &p->options->spans[i];

		if (rule->where && strcmp(rule->function, qualname) == 0 &&
		    rule_has_file(p, rule, file)) {
			*ret = (struct code_class){ CODE_SPAN, span_arg(p, i, code) };
			return true;
		}
	}
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (strcmp(rows[i].function, qualname) == 0 &&
		    file_is_module(p, file, rows[i].module) && row_arg(p, &rows[i], &arg)) {
			*ret = (struct code_class){ rows[i].kind, arg };
			return true;
		}
	return false;
}

static bool last_part_is(const char *qualname, const char *name)
{
	const char *dot = strrchr(qualname, '.');

	return strcmp(dot ? dot + 1 : qualname, name) == 0;
}

bool python_known_possible(const struct python *p, const char *file, const char *name)
{
	for (size_t i = 0; i < rule_count(p); i++)
		if (p->options->spans[i].where &&
		    last_part_is(p->options->spans[i].function, name) &&
		    rule_has_file(p, &p->options->spans[i], file))
			return true;
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (last_part_is(rows[i].function, name) && file_is_module(p, file, rows[i].module))
			return true;
	return false;
}
