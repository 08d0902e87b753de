/*
 * Reading objects, code and modules of live interpreters: scripts make objects of every form, print
 * where they are and what is in them, and what we read there has to be the same. Addresses that
 * hold nothing, and objects that change while they are read, must do no harm.
 */
#include "python_child.h"
#include "runtimes/python_object.h"

static const char script[] =
	"import sys, os, functools, threading, concurrent.futures, asyncio, logging.handlers\n"
	"sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))\n"
	"import thing\n"
	"from site_packages_like import lib\n"
	"keep = []\n"
	"def show(kind, obj, *expected, at=None):\n"
	"    keep.append(obj)\n"
	"    print(kind, hex(id(obj) if at is None else at), *expected, sep='\\t')\n"
	"def text(s): show('str', s, s)\n"
	"text('plain'); text(''); text('x' * 2000); text('caf\\u00e9'); text('\\u4f60\\u597d')\n"
	"text('mixed \\U0001f600 \\u00e9 \\u4f60')\n"
	"show('str', 'a\\ud800b', 'a\\ufffdb')\n"
	"show('nostr', 5); show('nostr', b'bytes'); show('nostr', 'a\\0b'); show('nostr', 'x' * "
	"5000)\n"
	"show('equals', 'exactly', 'exactly', 'exactl'); show('equals', '', '', 'x')\n"
	"class S(str): pass\n"
	"text(S('derived')); text(S('d\\u00e9riv\\u00e9'))\n"
	"d = {'one': '1', 'two': '2'}; show('dict', d, 'one', '1'); show('dict', d, 'two', '2')\n"
	"show('dict', d, 'three'); show('dict', {}, 'one')\n"
	"d = {'a': 'x', 'b': 'y'}; del d['a']; show('dict', d, 'a'); show('dict', d, 'b', 'y')\n"
	"d = {5: 'int', 'five': 'str', None: 'none', (1, 'five'): 't'}; show('dict', d, 'five', "
	"'str')\n"
	"for size in (100, 1000, 30000):\n"
	"    d = {'key%d' % i: str(i) for i in range(size)}\n"
	"    show('dict', d, 'key%d' % (size - 1), str(size - 1)); show('dict', d, 'key%d' % "
	"size)\n"
	"    show('count', d, size + 1)\n"
	"    d[1] = 2; show('dict', d, 'key%d' % (size // 2), str(size // 2))\n"
	"class D(dict): __slots__ = ('inside',)\n"
	"d = D(one='1'); d.inside = 'slot'; show('dict', d, 'one', '1'); show('attr', d, 'inside', "
	"'slot')\n"
	"show('nodict', [1]); show('nodict', 'str')\n"
	"class P: pass\n"
	"def made(n, **more):\n"
	"    o = P()\n"
	"    for i in range(n): setattr(o, 'a%d' % i, 'v%d' % i)\n"
	"    for k, v in more.items(): setattr(o, k, v)\n"
	"    return o\n"
	"for n in (1, 5, 29, 40):\n"
	"    o = made(n); show('attr', o, 'a0', 'v0'); show('attr', o, 'a%d' % (n - 1), 'v%d' % (n "
	"- 1))\n"
	"    show('attr', o, 'none')\n"
	"o = made(4); o.__dict__; show('attr', o, 'a3', 'v3')\n"
	"o = made(4); o.__dict__['late'] = 'l'; show('attr', o, 'late', 'l'); show('attr', o, "
	"'a2', 'v2')\n"
	"o = made(4); o.__dict__ = {'all': 'new'}; show('attr', o, 'all', 'new'); show('attr', o, "
	"'a2')\n"
	"o = made(4); del o.a1; show('attr', o, 'a1'); show('attr', o, 'a2', 'v2')\n"
	"class First:\n"
	"    def __init__(self, scope): self.scope = scope; self.b = 'b'; self.c = 'c'\n"
	"show('index', First, 'nothing', -1)\n"
	"o = First('s'); show('attr', o, 'scope', 's'); show('index', First, 'scope', 0)\n"
	"show('index', First, 'c', 2); show('index', First, 'nothing', -1)\n"
	"class A: __slots__ = ('x', 'y')\n"
	"class B(A): __slots__ = ('z',)\n"
	"class C(B): pass\n"
	"o = B(); o.x = 'X'; o.z = 'Z'; show('attr', o, 'x', 'X'); show('attr', o, 'y'); "
	"show('attr', o, 'z', 'Z')\n"
	"o = C(); o.y = 'Y'; o.free = 'F'; show('attr', o, 'y', 'Y'); show('attr', o, 'free', "
	"'F')\n"
	"class M(First): pass\n"
	"o = M('m'); show('attr', o, 'scope', 'm')\n"
	"class E(Exception): pass\n"
	"o = E(); o.note = 'n'; show('attr', o, 'note', 'n')\n"
	"class T(tuple): pass\n"
	"o = T(('i',)); show('items', o, 1, 'i')\n"
	"show('attr', thing.decorated, '__wrapped__'); show('type', o, 'T'); show('type', 'x', "
	"'str')\n"
	"show('type', A, 'type'); show('type', threading.Lock(), type(threading.Lock()).__name__, "
	"at=None)\n"
	"show('items', (), 0); show('items', ('a', 'b'), 2, 'a', 'b'); show('items', ['p', 'q', "
	"'r'], 3, 'p', 'q', 'r')\n"
	"show('items', [], 0); show('items', 'abc', 0); show('items', {}, 0)\n"
	"show('module', sys.modules['thing'], 'thing', 'VALUE', thing.VALUE)\n"
	"show('module', sys.modules['os'], 'os', 'sep', os.sep); show('module', sys, 'sys', "
	"'platform', sys.platform)\n"
	"def code(kind, c, name): show(kind, c, name, c.co_filename, c.co_firstlineno)\n"
	"q = sys.version_info >= (3, 11)\n"
	"code('code', thing.plain.__code__, 'thing.plain')\n"
	"code('code', thing.K.method.__code__, 'thing.K.method' if q else 'thing.method')\n"
	"code('code', thing.decorated.__wrapped__.__code__, 'thing.decorated')\n"
	"code('code', show.__code__, '__main__.show'); code('code', functools.wraps.__code__, "
	"'functools.wraps')\n"
	"show('function', thing.plain, at=id(thing.plain)); print('is', "
	"hex(id(thing.plain.__code__)), sep='\\t')\n"
	"for f, c in ((functools.partial(functools.partial(thing.plain, 1), 2), thing.plain), "
	"(thing.K().method, thing.K.method),\n"
	"             (thing.decorated, thing.decorated.__wrapped__), (thing.cached, "
	"thing.cached.__wrapped__),\n"
	"             (thing.Callable(), thing.Callable.__call__), (thing.K.fixed, "
	"thing.K.fixed)):\n"
	"    show('function', f); print('is', hex(id(c.__code__)), sep='\\t')\n"
	"show('function', print); print('is', '0x0', sep='\\t')\n"
	"LIBRARY, TASK, SERVE, LOOP, APPLICATION, SPAN, STOP, POOL, WORK = range(1, 10)\n"
	"def kind(c, k, arg=0): show('kind', c, k, arg)\n"
	"kind(thing.plain.__code__, APPLICATION); kind(os.path.join.__code__, LIBRARY); "
	"kind(lib.call.__code__, LIBRARY)\n"
	"kind(show.__code__, APPLICATION); kind(eval('lambda: 0').__code__, LIBRARY)\n"
	"def span(f, rule, stay=0): kind(f.__code__, SPAN, rule | stay << 16)\n"
	"span(thing.K.method, 0, 1); span(thing.decorated.__wrapped__, 1)\n"
	"span(thing.K.Inner.deep, 2, 1); span(thing.outer(), 3); span(thing.K.prop.fget, 4, 1)\n"
	"span(thing.stays, 7, 0b1111); span(thing.assigns, 8, 0b1001); "
	"span(thing.loops, 9, 0b0010)\n"
	"kind(thing.bare.__code__, APPLICATION)\n"
	"span(thing.bare.__closure__[0].cell_contents, 10) if q else None\n"
	"span(thing.named, 11) if q else None\n"
	"kind(thing.Other.method.__code__, APPLICATION)\n"
	"import concurrent.futures.thread as t\n"
	"kind(t._worker.__code__, POOL); kind(t._WorkItem.run.__code__, WORK)\n"
	"kind(threading.Thread._bootstrap_inner.__code__, STOP); "
	"kind(asyncio.Handle._run.__code__, LOOP, 1)\n"
	"kind(asyncio.create_task.__code__, TASK); kind(asyncio.to_thread.__code__, TASK, 1)\n"
	"kind(asyncio.BaseEventLoop.run_until_complete.__code__, LOOP)\n"
	"kind(asyncio.wait.__code__, LIBRARY)\n"
	"import time\n"
	"busy = {}\n"
	"class R: pass\n"
	"def churn():\n"
	"    i = 0\n"
	"    while True:\n"
	"        i += 1; busy['k%d' % (i % 5000)] = str(i)\n"
	"        if i % 20000 == 0: busy.clear()\n"
	"        r = R(); r.one = 'o'; r.two = busy; R.last = r; setattr(r, 'x%d' % (i % 50), i)\n"
	"R.last = R(); show('race', busy); show('race', R)\n"
	"threading.Thread(target=churn, daemon=True).start()\n"
	"print('ready', flush=True); sys.stdin.read()\n";

static const char thing[] = "import functools\n"
			    "VALUE = 'a value'\n"
			    "def decorator(f):\n"
			    "    @functools.wraps(f)\n"
			    "    def wrapper(*a): return f(*a)\n"
			    "    return wrapper\n"
			    "def plain(a=1, b=2): return a\n"
			    "@decorator\n"
			    "@decorator\n"
			    "def twice(): pass\n"
			    "@decorator\n"
			    "def decorated(): pass\n"
			    "@functools.lru_cache\n"
			    "def cached(): pass\n"
			    "def outer():\n"
			    "    x = 1\n"
			    "    def inner(): return x\n"
			    "    return inner\n"
			    "def stays(a, b, /, c, *, d, e): return a\n"
			    "async def assigns(a, b, c=None, *, d=1):\n"
			    "    b = b or 5; f = b; c = f\n"
			    "    return a, b, c, d\n"
			    "def loops(a, b, *c, d=0):\n"
			    "    for a in b: d = a\n"
			    "def bare_decorator(f):\n"
			    "    def wrapper(*a): return f(*a)\n"
			    "    return wrapper\n"
			    "@bare_decorator\n"
			    "def bare(): pass\n"
			    "@bare_decorator\n"
			    "def bare_too(): pass\n"
			    "def named(): pass\n"
			    "other_name = named\n"
			    "class Callable:\n"
			    "    def __call__(self): pass\n"
			    "class Other:\n"
			    "    def method(self): pass\n"
			    "class K:\n"
			    "    def method(self): pass\n"
			    "    @staticmethod\n"
			    "    def fixed(): pass\n"
			    "    @property\n"
			    "    def prop(self): return 1\n"
			    "    class Inner:\n"
			    "        @classmethod\n"
			    "        def deep(cls): pass\n"
			    "        deep_code = deep\n"
			    "K.Inner.deep_code = None\n";

static const struct runtime_span_rule span_rules[] = {
	{ "thing", "K.method" },
	{ "thing", "decorated" },
	{ "thing.py", "K.Inner.deep" },
	{ "thing", "outer.<locals>.inner" },
	{ "thing", "K.prop" },
	{ NULL, "a native one" },
	{ "nowhere", "nothing" },
	{ "thing", "stays" },
	{ "thing", "assigns" },
	{ "thing", "loops" },
	{ "thing", "bare" },
	{ "thing", "other_name" },
};
static const struct runtime_options options = { span_rules,
						sizeof(span_rules) / sizeof(span_rules[0]) };

static char folder[] = "/tmp/spanloom-objects-XXXXXX";
static uint64_t races[8];
static size_t race_count;

static void check_text(const struct python *p, uint64_t str, const char *expected)
{
	char *text = str ? python_text(p, str) : NULL;

	CHECK_STR(text ? text : "", expected);
	free(text);
}

static bool count_item(void *ctx, uint64_t key, uint64_t value)
{
	(void)key;
	(void)value;
	++*(size_t *)ctx;
	return true;
}

static void check_containers(struct python *p, const char **f, uint64_t at)
{
	struct buf b = { 0 };
	char name[64];

	if (strcmp(f[0], "str") == 0) {
		check_text(p, at, f[2]);
	} else if (strcmp(f[0], "nostr") == 0) {
		CHECK(!python_str(p, at, &b, PYTHON_TEXT_MAX));
		CHECK(b.len == 0);
	} else if (strcmp(f[0], "equals") == 0) {
		CHECK(python_str_equals(p, at, f[2]));
		CHECK(!python_str_equals(p, at, f[3]));
	} else if (strcmp(f[0], "dict") == 0) {
		check_text(p, python_dict_get(p, at, f[2]), f[3]);
	} else if (strcmp(f[0], "count") == 0) {
		size_t n = 0;

		CHECK(python_dict_each(p, at, count_item, &n));
		CHECK(n == strtoul(f[2], NULL, 10));
	} else if (strcmp(f[0], "nodict") == 0) {
		CHECK(python_dict_get(p, at, "x") == 0);
	} else if (strcmp(f[0], "attr") == 0 && strcmp(f[2], "__wrapped__") == 0) {
		CHECK(python_attr(p, at, f[2]) != 0);
	} else if (strcmp(f[0], "attr") == 0) {
		check_text(p, python_attr(p, at, f[2]), f[3]);
	} else if (strcmp(f[0], "index") == 0) {
		CHECK((python_attr_index(p, at, f[2]) < 0) == (atoi(f[3]) < 0));
	} else if (strcmp(f[0], "type") == 0) {
		CHECK(python_type_name(p, at, name, sizeof(name)));
		CHECK(strstr(name, f[2]) != NULL);
	} else if (strcmp(f[0], "items") == 0) {
		size_t n = strtoul(f[2], NULL, 10);

		CHECK(python_sequence_length(p, at) == n);
		for (size_t i = 0; i < n; i++)
			check_text(p, python_sequence_item(p, at, i), f[3 + i]);
		CHECK(python_sequence_item(p, at, n) == 0);
	}
	buf_free(&b);
}

static void check_code(struct python *p, const char **f, uint64_t at)
{
	static uint64_t function;
	struct runtime_code code;
	struct code_class class_;
	char text[8192];

	if (strcmp(f[0], "module") == 0) {
		CHECK(python_module(p, f[2]) == at);
		check_text(p, python_module_get(p, at, f[3]), f[4]);
		CHECK(python_module_get(p, at, "surely_not_there") == 0);
	} else if (strcmp(f[0], "code") == 0) {
		CHECK(python_code_info(&p->base, at, &code));
		snprintf(text, sizeof(text), "%.*s", (int)code.function.len, code.function.data);
		CHECK_STR(text, f[2]);
		snprintf(text, sizeof(text), "%.*s", (int)code.file.len, code.file.data);
		CHECK_STR(text, f[3]);
		CHECK(code.line == strtoul(f[4], NULL, 10));
	} else if (strcmp(f[0], "function") == 0) {
		function = python_function_code(p, python_unwrap(p, at));
	} else if (strcmp(f[0], "is") == 0) {
		CHECK(function == at);
	} else if (strcmp(f[0], "kind") == 0) {
		CHECK(python_classify(&p->base, at, &class_));
		if (class_.kind != strtoul(f[2], NULL, 10) ||
		    class_.arg != strtoul(f[3], NULL, 10)) {
			python_code_info(&p->base, at, &code);
			printf("  %.*s is %u %u\n", (int)code.function.len, code.function.data,
			       class_.kind, class_.arg);
		}
		CHECK(class_.kind == strtoul(f[2], NULL, 10));
		CHECK(class_.arg == strtoul(f[3], NULL, 10));
	} else if (strcmp(f[0], "race") == 0 && race_count < 8) {
		races[race_count++] = at;
	}
}

/* Addresses with nothing, or something else, behind them. */
static void check_garbage(struct python *p)
{
	uint64_t wrong[] = {
		0,           1,          8,         4096,           UINT64_MAX,  UINT64_MAX - 7,
		1UL << 47,   p->runtime, p->interp, p->runtime + 3, p->str_type, p->code_type,
		p->dict_type
	};
	struct runtime_code code;
	struct code_class class_;
	struct buf b = { 0 };
	size_t n = 0;
	char name[16];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		uint64_t at = wrong[i];

		CHECK(!python_str(p, at, &b, 100));
		CHECK(python_dict_get(p, at, "key") == 0);
		CHECK(!python_dict_each(p, at, count_item, &n));
		CHECK(python_tuple_length(p, at) == 0);
		CHECK(python_sequence_item(p, at, 0) == 0);
		CHECK(!python_classify(&p->base, at, &class_));
		CHECK(!python_code_info(&p->base, at, &code));
		CHECK(python_module_get(p, at, "x") == 0);
		python_attr(p, at, "scope");
		python_attr_index(p, at, "scope");
		python_type_name(p, at, name, sizeof(name));
		python_c_method(p, at, "put");
		python_function_code(p, python_unwrap(p, at));
	}
	buf_free(&b);
}

static void check_races(struct python *p)
{
	for (int i = 0; i < 1500; i++) {
		uint64_t last = python_class_get(p, races[1], "last");
		char key[32];
		size_t n = 0;

		snprintf(key, sizeof(key), "k%d", i % 5000);
		python_dict_get(p, races[0], key);
		if (i % 50 == 0)
			python_dict_each(p, races[0], count_item, &n);
		python_attr(p, last, "one");
		python_attr(p, last, "two");
	}
	CHECK(race_count == 2);
}

struct known {
	unsigned int spans, pools, works, application;
};

static void count_known(void *ctx, uint64_t code, const struct code_class *class_)
{
	struct known *k = (struct known *)ctx;

	CHECK(code != 0);
	k->spans += class_->kind == CODE_SPAN;
	k->pools += class_->kind == CODE_POOL;
	k->works += class_->kind == CODE_WORK;
	k->application += class_->kind == CODE_APPLICATION;
}

static void check_python(const char *python)
{
	const char *fields[CHILD_FIELDS];
	struct known known = { 0 };
	char line[CHILD_LINE], path[256];
	struct python_child c;
	struct python *p = NULL;
	unsigned int failed = checks_failed;
	FILE *all = tmpfile();

	race_count = 0;
	snprintf(path, sizeof(path), "%s/main.py", folder);
	if (!all || !python_child_start(&c, python, path)) {
		CHECK(false);
		return;
	}
	while (fgets(line, sizeof(line), c.lines) && strcmp(line, "ready\n") != 0)
		fputs(line, all);
	rewind(all);
	p = python_child_open(&c, &options);
	for (FILE *lines = c.lines; p; c.lines = lines) {
		bool more;

		c.lines = all;
		more = python_child_line(&c, line, fields);
		if (more) {
			check_containers(p, fields, strtoull(fields[1], NULL, 16));
			check_code(p, fields, strtoull(fields[1], NULL, 16));
		}
		if (checks_failed != failed)
			printf("  %s: %s %s %s\n", python, fields[0], fields[2], fields[3]);
		failed = checks_failed;
		c.lines = lines;
		if (!more)
			break;
	}
	if (p) {
		python_known_codes(&p->base, count_known, &known);
		CHECK(known.spans == (p->offsets.version >= 0x30b ? 9 : 8) && known.pools >= 2 &&
		      known.works == 1);
		/* thing's and main's own functions, those within others too */
		CHECK(known.application == (p->offsets.version >= 0x30b ? 19 : 20));
		check_garbage(p);
		check_races(p);
	}
	if (all)
		fclose(all);
	python_child_end(&c);
}

int main(void)
{
	char library[256];

	if (!mkdtemp(folder))
		return 1;
	snprintf(library, sizeof(library), "%s/site_packages_like", folder);
	mkdir(library, 0700);
	snprintf(library, sizeof(library), "%s/site_packages_like-1.0.dist-info", folder);
	mkdir(library, 0700);
	python_child_write(folder, "main.py", script);
	python_child_write(folder, "thing.py", thing);
	python_child_write(folder, "site_packages_like/__init__.py", "");
	python_child_write(folder, "site_packages_like/lib.py", "def call(): pass\n");
	CHECK(python_child_each(check_python) > 0);
	snprintf(library, sizeof(library), "rm -r %s", folder);
	CHECK(system(library) == 0);
	return check_result();
}
