/*
 * Finding, checking and hooking live interpreters: real ones, idle, busy, with threads, forked and
 * just starting, have to be opened with the right layout (followed by hand here, as the kernel side
 * does); what only looks like one has to be refused with a sentence, whatever it does.
 */
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "python_child.h"
#include "runtimes/python_internal.h"

static char folder[] = "/tmp/spanloom-python-XXXXXX";
static const struct runtime_options options;

static const char *script_path(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

/* Each prints its version, more, "ready", and stays as it is until its input ends. */
static const char head[] =
	"import sys, os\n"
	"print('version', sys.version.split()[0].split('+')[0], sep='\\t', flush=True)\n";

static const char idle[] =
	"import contextvars, select\n"
	"def inner(first, second):\n"
	"    print('frame', hex(id(inner.__code__)), hex(id(outer.__code__)), hex(id(first)),\n"
	"          hex(id(context)), sep='\\t')\n"
	"    print('ready', flush=True)\n"
	"    select.select([0], [], [])\n"
	"def outer(a):\n"
	"    inner(a, None)\n"
	"context = contextvars.copy_context()\n"
	"context.run(outer, ['a'])\n";

static const char in_asyncio[] =
	"import asyncio, threading\n"
	"async def main():\n"
	"    threading.Thread(target=lambda: os.read(0, 1) or os._exit(0), daemon=True).start()\n"
	"    print('ready', flush=True)\n"
	"    await asyncio.gather(*[asyncio.sleep(60) for _ in range(3)])\n"
	"asyncio.run(main())\n";

static const char busy[] = "import contextvars, threading\n"
			   "def deep(n): return n and deep(n - 1)\n"
			   "def turn():\n"
			   "    while True: contextvars.copy_context().run(deep, 40)\n"
			   "for _ in range(3): threading.Thread(target=turn, daemon=True).start()\n"
			   "print('ready', flush=True)\n"
			   "os.read(0, 1)\n";

static const char threads[] =
	"import concurrent.futures, threading, time\n"
	"pool = concurrent.futures.ThreadPoolExecutor(4)\n"
	"for _ in range(4): pool.submit(time.sleep, 60)\n"
	"def come_and_go():\n"
	"    while True: threading.Thread(target=time.sleep, args=(0.001,)).start()\n"
	"threading.Thread(target=come_and_go, daemon=True).start()\n"
	"print('ready', flush=True)\n"
	"os.read(0, 1); os._exit(0)\n";

static const char forked[] =
	"import threading, time, warnings\n"
	"threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
	"warnings.simplefilter('ignore')\n"
	"pid = os.fork()\n"
	"if pid == 0:\n"
	"    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
	"    time.sleep(60)\n"
	"print('child', pid, sep='\\t')\n"
	"print('ready', flush=True)\n"
	"os.read(0, 1); os.kill(pid, 9)\n";

static void write_script(const char *name, const char *text)
{
	char all[4096];

	snprintf(all, sizeof(all), "%s%s", head, text);
	python_child_write(folder, name, all);
}

/* Reads up to "ready"; the fields of the last line but the version's stay in `line`. */
static bool started(struct python_child *c, const char *python, const char *script, char *version,
		    size_t version_bytes, char *line, const char *fields[CHILD_FIELDS])
{
	char mine[CHILD_LINE];
	const char *got[CHILD_FIELDS];
	bool ok = python_child_start(c, python, script_path(script));

	CHECK(ok);
	version[0] = 0;
	while (ok && python_child_line(c, mine, got)) {
		if (strcmp(got[0], "version") == 0) {
			snprintf(version, version_bytes, "%s", got[1]);
			continue;
		}
		memcpy(line, mine, sizeof(mine));
		for (int i = 0; i < CHILD_FIELDS; i++)
			fields[i] = got[i] >= mine && got[i] < mine + sizeof(mine)
					    ? line + (got[i] - mine)
					    : "";
	}
	CHECK(version[0]);
	return ok && version[0];
}

static size_t count_hooks(const struct python *p, enum runtime_hook_kind kind)
{
	size_t count = 0;

	for (size_t i = 0; i < p->base.hook_count; i++) {
		const struct runtime_hook *h = &p->base.hooks[i];
		struct stat st;

		if (h->kind != kind)
			continue;
		count++;
		CHECK(stat(h->path, &st) == 0 && (uint64_t)st.st_size > h->offset);
		CHECK(h->name && !h->attached);
		CHECK(h->required == (kind <= RUNTIME_HOOK_CONTEXT_RBX));
	}
	return count;
}

/*
 * Where contexts are made. In the interpreters that were looked at (Debian's 3.11.2, the others as
 * pyenv builds them) the two functions that copy have cheap places and report at no return; the
 * constructor gives up what it made when it fails, so there no place is certain.
 */
static void check_copies(const struct python *p)
{
	static const char *const proven[] = { "3.9.18", "3.10.13", "3.11.2",
					      "3.11.7", "3.12.1",  "3.13.0" };
	size_t ends = count_hooks(p, RUNTIME_HOOK_CONTEXT_COPY);
	size_t places =
		count_hooks(p, RUNTIME_HOOK_CONTEXT_RAX) + count_hooks(p, RUNTIME_HOOK_CONTEXT_RBX);
	bool known = false;

	CHECK(ends + places >= 2);
	for (size_t i = 0; i < sizeof(proven) / sizeof(proven[0]); i++)
		known |= strcmp(p->base.version, proven[i]) == 0;
	CHECK(!known || places);
	for (size_t i = 0; i < p->base.hook_count; i++) {
		const struct runtime_hook *h = &p->base.hooks[i];
		bool at_end = h->kind == RUNTIME_HOOK_CONTEXT_COPY;

		CHECK(at_end || !h->at_return);
		if (known && strcmp(h->name, "PyContext_New") == 0)
			CHECK(at_end);
		if (known && strncmp(h->name, "PyContext_Copy", strlen("PyContext_Copy")) == 0)
			CHECK(!at_end);
	}
	CHECK(p->layout.context_type == p->context_type && p->context_type);
}

static void check_opened(const struct python *p, const char *version)
{
	CHECK_STR(p->base.version, version);
	CHECK_STR(p->base.runtime->name, "python");
	CHECK(p->base.runtime->layout(&p->base) == &p->layout);
	check_copies(p);
	CHECK(p->base.note == NULL);
}

/* The frame, as bpf/python.bpf.c follows them. */
static void check_frame(const struct python *p, uint64_t tstate, const char *fields[])
{
	const struct python_layout *o = &p->layout;
	uint64_t frame = python_pointer(p, tstate + o->tstate_frame), tags = o->reference_tags;
	uint64_t previous;

	if (o->cframe_frame != PYTHON_NONE)
		frame = python_pointer(p, frame + o->cframe_frame);
	previous = python_pointer(p, frame + o->frame_previous);
	CHECK((python_pointer(p, frame + o->frame_code) & ~tags) == strtoull(fields[1], NULL, 16));
	CHECK((python_pointer(p, previous + o->frame_code) & ~tags) ==
	      strtoull(fields[2], NULL, 16));
	CHECK((python_pointer(p, frame + o->frame_locals) & ~tags) ==
	      strtoull(fields[3], NULL, 16));
}

static void test_idle(const char *python)
{
	const char *fields[CHILD_FIELDS] = { "", "", "", "", "", "", "", "" };
	char line[CHILD_LINE], version[32];
	struct python_child c;
	struct python *p = NULL;

	if (started(&c, python, "idle.py", version, sizeof(version), line, fields))
		p = python_child_open(&c, &options);
	if (p) {
		const struct python_layout *o = &p->layout;
		uint64_t tstate = python_pointer(p, p->interp + p->offsets.interp_threads);
		uint64_t pointer = python_pointer(p, tstate + o->tstate_thread_id), context;
		uint32_t entered = 0;

		check_opened(p, version);
		CHECK(o->tsd == PYTHON_TSD_GLIBC || o->tsd == PYTHON_TSD_MUSL);
		if (o->tsd == PYTHON_TSD_GLIBC)
			CHECK(python_pointer(p, pointer + o->tsd_offset + o->tss_key * 16 + 8) ==
			      tstate);
		context = python_pointer(p, tstate + o->tstate_context);
		CHECK(context == strtoull(fields[4], NULL, 16));
		CHECK(python_read(p, context + o->context_entered, &entered, sizeof(entered)));
		CHECK(entered == 1);
		check_frame(p, tstate, fields);
		CHECK(p->base.runtime->refresh(&p->base) == 0);
		kill(c.pid, SIGKILL);
		waitpid(c.pid, NULL, 0);
		c.pid = 0;
		CHECK(p->base.runtime->refresh(&p->base) == -ESRCH);
	}
	python_child_end(&c);
}

static void test_running(const char *python)
{
	static const char *const scripts[] = { "loop.py", "busy.py", "threads.py" };
	const char *fields[CHILD_FIELDS];
	char line[CHILD_LINE], version[32];

	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		struct python_child c;
		struct python *p = NULL;

		if (started(&c, python, scripts[i], version, sizeof(version), line, fields))
			p = python_child_open(&c, &options);
		if (p) {
			check_opened(p, version);
			if (strcmp(scripts[i], "threads.py") == 0)
				CHECK(count_hooks(p, RUNTIME_HOOK_SUBMIT) == 1);
		}
		python_child_end(&c);
	}
}

static void test_forked(const char *python)
{
	const char *fields[CHILD_FIELDS] = { "", "", "", "", "", "", "", "" };
	char line[CHILD_LINE], version[32], *why = NULL;
	struct python_child c;

	if (started(&c, python, "forked.py", version, sizeof(version), line, fields)) {
		struct runtime_process *child = NULL;
		uint32_t pid = (uint32_t)strtoul(fields[1], NULL, 10);

		CHECK(runtime_open(&options, pid, &child, &why) == 0);
		if (why)
			printf("  %s\n", why);
		free(why);
		if (child)
			check_opened((struct python *)child, version);
		runtime_free(child);
		kill((pid_t)pid, SIGKILL);
	}
	python_child_end(&c);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Looked at from its first moment on, it is never refused. */
static void test_starting(const char *python)
{
	for (int i = 0; i < 3; i++) {
		struct python_child c;
		struct runtime_process *process = NULL;
		char *why = NULL;
		double until = now() + 20;
		int err = -EAGAIN;

		CHECK(python_child_start(&c, python, script_path("idle.py")));
		while ((err == -EAGAIN || err == -ENOENT) && now() < until)
			err = runtime_open(&options, (uint32_t)c.pid, &process, &why);
		if (err)
			printf("  %s, starting: %d %s\n", python, err, why ? why : "");
		CHECK(err == 0);
		free(why);
		runtime_free(process);
		python_child_end(&c);
	}
}

static void test_interpreter(const char *python)
{
	unsigned int failed = checks_failed;

	test_idle(python);
	test_running(python);
	test_forked(python);
	test_starting(python);
	printf("%s: %s\n", python, checks_failed == failed ? "as expected" : "failed");
}

/* --- refused ---------------------------------------------------------------------------- */

static void expect_refused(const char *program, const char *argument, const char *part)
{
	struct python_child c;
	struct runtime_process *process = NULL;
	char *why = NULL;
	double until = now() + 10;
	int err = -EAGAIN;

	CHECK(python_child_start(&c, program, argument));
	while ((err == -EAGAIN || err == -ENOENT) && now() < until)
		err = runtime_open(&options, (uint32_t)c.pid, &process, &why);
	CHECK(err == -EOPNOTSUPP && why && strstr(why, part));
	if (!why || !strstr(why, part))
		printf("  %s: %d '%s' lacks '%s'\n", program, err, why ? why : "", part);
	CHECK(kill(c.pid, 0) == 0);
	free(why);
	python_child_end(&c);
}

static bool copy_file(const char *from, const char *to)
{
	char buf[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	ssize_t n = 0;

	while (in >= 0 && out >= 0 && (n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			n = -2;
	close(in);
	close(out);
	return in >= 0 && out >= 0 && n == 0;
}

/* Where in the file of a running interpreter its version is, when it has one of its own. */
static bool find_version(const char *python, uint64_t *ret_offset, uint32_t *ret_version,
			 char *ret_file, size_t bytes)
{
	const char *fields[CHILD_FIELDS];
	char line[CHILD_LINE], version[32], *path = NULL;
	struct python_child c;
	struct python *p = NULL;
	bool found = false;

	if (started(&c, python, "idle.py", version, sizeof(version), line, fields))
		p = python_child_open(&c, &options);
	if (p && !strstr(p->image.name, "libpython")) {
		uint64_t at = python_symbol(&p->image, "Py_Version", NULL);

		found = at && !python_locate(p->base.pid, at, &path, ret_offset);
		*ret_version = p->hex_version;
		snprintf(ret_file, bytes, "%s", p->image.name);
	}
	free(path);
	python_child_end(&c);
	return found;
}

/* A copy of the interpreter under another name, which says that it is another version. */
static void make_copy(const char *file, const char *name, uint64_t offset, uint32_t version)
{
	int fd;

	CHECK(copy_file(file, script_path(name)));
	fd = open(script_path(name), O_WRONLY);
	CHECK(fd >= 0 && pwrite(fd, &version, sizeof(version), (off_t)offset) == sizeof(version));
	close(fd);
}

static void test_tampered(const char *python)
{
	char file[512], program[256], script[256], named[64];
	uint32_t version = 0;
	uint64_t offset = 0;

	snprintf(script, sizeof(script), "%s", script_path("idle.py"));
	if (!find_version(python, &offset, &version, file, sizeof(file))) {
		printf("%s has no version to change: that part is left out\n", python);
		return;
	}
	for (uint32_t minor = 11; minor <= 14; minor++) {
		uint32_t other = 3U << 24 | minor << 16 | 0x1f0;

		if (minor == (version >> 16 & 255))
			continue;
		make_copy(file, "python", offset, other);
		snprintf(program, sizeof(program), "%s", script_path("python"));
		expect_refused(program, script, "its structures do not match CPython 3.");
	}
	make_copy(file, "python", offset, 0x030f00f0);
	expect_refused(program, script, "CPython 3.15.0 isn't known");
	/* the right version, but not what the file's name says */
	snprintf(named, sizeof(named), "python3.%u", (version >> 16 & 255) == 12 ? 13 : 12);
	make_copy(file, named, offset, version);
	snprintf(program, sizeof(program), "%s", script_path(named));
	expect_refused(program, script, "its file is named CPython");
	make_copy(file, "python3.13t", offset, version);
	snprintf(program, sizeof(program), "%s", script_path("python3.13t"));
	expect_refused(program, script, "without the global interpreter lock");
	/* a program that has Python in it, and is none */
	make_copy(file, "server", offset, version);
	snprintf(program, sizeof(program), "%s", script_path("server"));
	expect_refused(program, script, "server embeds Python");
}

static void test_others(void)
{
	struct runtime_process *process = NULL;
	struct python_child c;
	char program[256], *why = NULL;

	CHECK(copy_file("/bin/sleep", script_path("pypy3")));
	snprintf(program, sizeof(program), "%s", script_path("pypy3"));
	/* "-B 60": sleep doesn't know -B and ends, so it gets its time another way */
	c.pid = fork();
	if (c.pid == 0) {
		execl(program, program, "60", (char *)NULL);
		_exit(127);
	}
	usleep(200000);
	CHECK(runtime_open(&options, (uint32_t)c.pid, &process, &why) == -EOPNOTSUPP);
	CHECK(why && strstr(why, "PyPy"));
	free(why);
	why = NULL;
	kill(c.pid, SIGKILL);
	waitpid(c.pid, NULL, 0);
	CHECK(runtime_open(&options, (uint32_t)c.pid, &process, &why) == -ESRCH);
	/* this very program */
	CHECK(runtime_open(&options, (uint32_t)getpid(), &process, &why) == -ENOENT);
	CHECK(!why && !process);
	runtime_free(NULL);
}

int main(void)
{
	int count;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!mkdtemp(folder))
		return 1;
	write_script("idle.py", idle);
	write_script("loop.py", in_asyncio);
	write_script("busy.py", busy);
	write_script("threads.py", threads);
	write_script("forked.py", forked);
	count = python_child_each(test_interpreter);
	CHECK(count > 0);
	test_tampered("/usr/bin/python3");
	test_others();
	{
		char command[128];

		snprintf(command, sizeof(command), "rm -rf %s", folder);
		CHECK(system(command) == 0);
	}
	return check_result();
}
