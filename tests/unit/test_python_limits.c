/*
 * Processes that hold more than can be read: routers that lead back to themselves, more routes,
 * modules and text than any application has. Reading them has to end soon, to keep little, to give
 * nothing that only half a look supports, and to leave the mark that tells so.
 */
#include "python_child.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>

#include "runtimes/runtime.h"

static const char script[] =
	"import os, sys, types\n"
	"def endpoint(): pass\n"
	"class Router:\n"
	"    def __init__(self): self.routes = []\n"
	"class Route:\n"
	"    def __init__(self, path): self.path_format = path; self.endpoint = endpoint\n"
	"class Host:\n"
	"    def __init__(self, app): self.app = app\n"
	"class Mount:\n"
	"    def __init__(self, app, path):\n"
	"        self.app = app; self.path = path; self.path_format = path + '/{path}'\n"
	"keep = []\n"
	"def show(kind, router):\n"
	"    keep.append(router)\n"
	"    print(kind, hex(id(router)), hex(id(endpoint)), sep='\\t')\n"
	"r = Router(); r.routes.append(Route('/one')); show('one', r)\n"
	"r = Router(); r.routes += [Route('/one')] + [Host(r)] * 60000; show('cut', r)\n"
	"r = Router(); r.routes += [Route('/one')] + [Mount(r, '/' + 'a' * 4000) for i in "
	"range(200)]\n"
	"show('cut', r)\n"
	"r = Router(); r.routes += [Route('/one')] + [Route('/%d' % i) for i in range(20000)]\n"
	"show('cut', r)\n"
	"print('ready', flush=True); sys.stdin.readline()\n"
	"folder = os.path.dirname(os.path.abspath(__file__))\n"
	"for i in range(60000):\n"
	"    m = types.ModuleType('m%d' % i); m.__file__ = '%s/%s%d.py' % (folder, 'x' * 3000, i)\n"
	"    sys.modules[m.__name__] = m\n"
	"print('ready', flush=True); sys.stdin.readline()\n";

static const struct runtime_options no_rules;

static double own_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static long own_megabytes(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_maxrss >> 10;
}

static void check_router(struct runtime_process *p, const char **f)
{
	struct runtime_route route = { .scope = 1,
				       .router = strtoull(f[1], NULL, 16),
				       .endpoint = strtoull(f[2], NULL, 16) };
	struct runtime_code endpoint;
	struct slice template = { 0 };
	double before = own_seconds();

	p->cut = false;
	for (int i = 0; i < 100; i++)
		p->runtime->route(p, &route, &template, &endpoint);
	CHECK(own_seconds() - before < 2);
	CHECK(p->cut == (strcmp(f[0], "cut") == 0));
	CHECK(template.len == (p->cut ? 0U : strlen("/one")));
}

static void check_python(const char *python)
{
	char folder[] = "/tmp/spanloom-limits-XXXXXX", path[64], line[CHILD_LINE];
	const char *fields[CHILD_FIELDS];
	struct python_child c;
	long megabytes = own_megabytes();
	double before;

	CHECK(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/limits.py", folder);
	python_child_write(folder, "limits.py", script);
	CHECK(python_child_start(&c, python, path));
	fields[0] = "";
	if (python_child_line(&c, line, fields) && python_child_open(&c, &no_rules)) {
		do
			check_router(c.process, fields);
		while (python_child_line(&c, line, fields));
		c.process->cut = false;
		CHECK(write(c.input, "\n", 1) == 1);
		CHECK(!python_child_line(&c, line, fields));
		before = own_seconds();
		CHECK(c.process->runtime->refresh(c.process) >= 0);
		CHECK(own_seconds() - before < 2);
		CHECK(c.process->cut);
	}
	python_child_end(&c);
	CHECK(own_megabytes() - megabytes < 200); /* the address sanitizer keeps what is freed */
	if (checks_failed)
		printf("  %s\n", python);
	unlink(path);
	rmdir(folder);
}

/* A program whose tables say that they are larger than any memory, in a file that is that long. */
static void check_large_file(void)
{
	enum { HEADER_BYTES = 64, SIZE_AT = 32, SECTIONS_AT = 40, COUNT_AT = 60 };
	const uint64_t large = 20ull << 30;
	char folder[] = "/tmp/spanloom-limits-XXXXXX", path[64], command[256], *why = NULL;
	struct runtime_process *process = NULL;
	long megabytes = own_megabytes();
	uint64_t sections = 0;
	uint16_t count = 0;
	pid_t pid;
	int fd, err;

	CHECK(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/python3.11", folder);
	snprintf(command, sizeof(command), "cp -L /usr/bin/sleep %s", path);
	CHECK(system(command) == 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(pread(fd, &sections, 8, SECTIONS_AT) == 8 && pread(fd, &count, 2, COUNT_AT) == 2);
	for (uint16_t i = 1; i < count; i++)
		CHECK(pwrite(fd, &large, 8, (off_t)sections + i * HEADER_BYTES + SIZE_AT) == 8);
	CHECK(ftruncate(fd, 25ll << 30) == 0);
	close(fd);
	pid = fork();
	if (pid == 0) {
		execl(path, path, "100", (char *)NULL);
		_exit(127);
	}
	usleep(200000);
	err = runtime_open(&no_rules, (uint32_t)pid, &process, &why);
	CHECK(err == -EOPNOTSUPP && why && strstr(why, "_PyRuntime"));
	CHECK(own_megabytes() - megabytes < 200);
	free(why);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unlink(path);
	rmdir(folder);
}

int main(void)
{
	check_large_file();
	CHECK(python_child_each(check_python) > 0);
	return check_result();
}
