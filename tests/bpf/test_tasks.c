/*
 * Processes and threads as the probe tells of them: children of a traced process are traced from
 * birth, threads have their parent, and the ends, execs, moves between cgroups and listeners are
 * told.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sockets.h"
#include "watch.h"

enum { MOVED = 40, THREADS = 4, TIDS_MAX = 16 };

/* Shared with the child. */
struct tasks {
	uint32_t pids[TIDS_MAX];
	uint32_t tids[TIDS_MAX], parents[TIDS_MAX];
	uint32_t count; /* of threads */
	uint16_t port;
};

static uint32_t own_tid(void)
{
	return (uint32_t)syscall(SYS_gettid);
}

static int wait_for(pid_t pid)
{
	int status = 0;

	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
									       : -1;
}

static struct tasks *tasks_run(struct watch *w, const char *scene, int (*run)(void *arg),
			       uint32_t *ret_pid)
{
	struct tasks *t = shared_memory(sizeof(*t));

	check_scene = scene;
	watch_reset(w);
	*ret_pid = watch_run(w, run, t);
	return t;
}

/* Where in the order of events `s` is. */
static size_t place(const struct watch *w, const struct seen *s)
{
	return s ? (size_t)(s - w->seen) : (size_t)-1;
}

/* --- fork, vfork, exec ------------------------------------------------------------------------ */

/* A child and a grandchild that write as the first thing they do. */
static int fork_run(void *arg)
{
	struct tasks *t = arg;
	int fds[2];
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return 1;
	child = fork();
	if (!child) {
		bool wrote = write(fds[0], "one", 3) == 3;

		child = fork();
		if (!child)
			_exit(write(fds[0], "three", 5) != 5);
		t->pids[1] = (uint32_t)child;
		_exit(wait_for(child) || !wrote);
	}
	t->pids[0] = (uint32_t)child;
	return wait_for(child);
}

static void check_fork(struct watch *w)
{
	const struct seen *made, *io, *gone;
	uint32_t pid, i;
	struct tasks *t = tasks_run(w, "fork", fork_run, &pid);

	for (i = 0; i < 2; i++) {
		uint32_t child = t->pids[i], parent = i ? t->pids[0] : pid;

		made = watch_first(w, SEEN_FORK, child);
		io = watch_first(w, SEEN_IO, child);
		gone = watch_first(w, SEEN_EXIT, child);
		CHECK_SAY(made && made->other == parent, "child %u of %u", i,
			  made ? made->other : 0);
		CHECK_SAY(io && io->io.length == (i ? 5 : 3) && io->io.dir == IO_SEND,
			  "the first write of child %u", i);
		CHECK(place(w, made) < place(w, io) && place(w, io) < place(w, gone));
		CHECK(watch_count(w, SEEN_EXIT, child) == 1);
	}
	CHECK(watch_count(w, SEEN_FORK, 0) == 2 && watch_count(w, SEEN_EXIT, 0) == 3);
	CHECK(watch_count(w, SEEN_THREAD_START, 0) == 0);
	munmap(t, sizeof(*t));
}

/* An exec'd program that writes to its standard output, which is a socket. */
static int exec_run(void *arg)
{
	struct tasks *t = arg;
	char buf[64];
	int fds[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return 1;
	pid = vfork();
	if (!pid) {
		dup2(fds[0], 1);
		execl("/bin/echo", "echo", "hello", (char *)NULL);
		_exit(1);
	}
	t->pids[0] = (uint32_t)pid;
	return wait_for(pid) || read(fds[1], buf, sizeof(buf)) != 6 || memcmp(buf, "hello\n", 6);
}

static void check_exec(struct watch *w)
{
	const struct seen *made, *exec, *io;
	uint32_t pid;
	struct tasks *t = tasks_run(w, "vfork and exec", exec_run, &pid);
	uint32_t child = t->pids[0];

	made = watch_first(w, SEEN_FORK, child);
	exec = watch_first(w, SEEN_EXEC, child);
	io = watch_first(w, SEEN_IO, child);
	CHECK(made && made->other == pid);
	CHECK(exec && watch_count(w, SEEN_EXEC, child) == 1);
	CHECK_SAY(io && io->io.captured == 6 && !memcmp(io->io.data, "hello\n", 6),
		  "what the program wrote");
	CHECK(place(w, made) < place(w, exec) && place(w, exec) < place(w, io));
	CHECK(watch_count(w, SEEN_EXIT, child) == 1);
	munmap(t, sizeof(*t));
}

/* Exec of a process that nobody traces is told, and nothing else of it. */
static void check_exec_untraced(struct watch *w)
{
	pid_t pid;

	check_scene = "exec, not traced";
	watch_reset(w);
	pid = fork();
	if (!pid) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(1);
	}
	CHECK(wait_for(pid) == 0);
	watch_take(w);
	CHECK(watch_count(w, SEEN_EXEC, (uint32_t)pid) == 1);
	CHECK(!watch_count(w, SEEN_EXIT, (uint32_t)pid));
	CHECK(!watch_count(w, SEEN_FORK, (uint32_t)pid));
}

/* --- threads ---------------------------------------------------------------------------------- */

static struct tasks *thread_tasks;

static void thread_note(uint32_t parent)
{
	uint32_t i = __atomic_fetch_add(&thread_tasks->count, 1, __ATOMIC_SEQ_CST);

	thread_tasks->tids[i] = own_tid();
	thread_tasks->parents[i] = parent;
}

static void *thread_leaf(void *arg)
{
	thread_note(*(uint32_t *)arg);
	return NULL;
}

/* A thread that makes one itself. */
static void *thread_branch(void *arg)
{
	uint32_t tid = own_tid();
	pthread_t leaf;

	thread_note(*(uint32_t *)arg);
	if (pthread_create(&leaf, NULL, thread_leaf, &tid) == 0)
		pthread_join(leaf, NULL);
	return NULL;
}

static int threads_run(void *arg)
{
	pthread_t threads[THREADS];
	uint32_t tid = own_tid();
	int i;

	thread_tasks = arg;
	for (i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, thread_branch, &tid))
			return 1;
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return thread_tasks->count != 2 * THREADS;
}

static void check_threads(struct watch *w)
{
	uint32_t pid, i;
	struct tasks *t = tasks_run(w, "threads", threads_run, &pid);

	for (i = 0; i < t->count; i++) {
		const struct seen *s, *begin = NULL, *end = NULL;
		size_t at = 0;

		while ((s = watch_next(w, SEEN_THREAD_START, pid, &at)) && !begin)
			begin = s->tid == t->tids[i] ? s : NULL;
		for (at = 0; (s = watch_next(w, SEEN_THREAD_EXIT, pid, &at)) && !end;)
			end = s->tid == t->tids[i] ? s : NULL;
		CHECK_SAY(begin && begin->other == t->parents[i], "thread %u: parent %u, not %u", i,
			  begin ? begin->other : 0, t->parents[i]);
		CHECK(place(w, begin) < place(w, end));
		CHECK(begin && end && begin->ts_ns < end->ts_ns);
	}
	CHECK(watch_count(w, SEEN_THREAD_START, 0) == 2 * THREADS);
	CHECK(watch_count(w, SEEN_THREAD_EXIT, 0) == 2 * THREADS);
	CHECK(watch_count(w, SEEN_EXIT, 0) == 1 && watch_count(w, SEEN_FORK, 0) == 0);
	munmap(t, sizeof(*t));
}

/* The main thread ends first: the process goes on, and ends once. */
static void *outliving(void *arg)
{
	(void)arg;
	sleep_ms(30);
	_exit(0);
}

static int main_first_run(void *arg)
{
	pthread_t thread;

	(void)arg;
	if (pthread_create(&thread, NULL, outliving, NULL))
		return 1;
	pthread_exit(NULL);
}

static void check_main_first(struct watch *w)
{
	const struct seen *s;
	uint32_t pid;
	struct tasks *t = tasks_run(w, "the main thread ends first", main_first_run, &pid);

	s = watch_first(w, SEEN_THREAD_EXIT, pid);
	CHECK(s && s->tid == pid && watch_count(w, SEEN_THREAD_EXIT, pid) == 1);
	CHECK(watch_count(w, SEEN_EXIT, pid) == 1);
	munmap(t, sizeof(*t));
}

/* --- ends ------------------------------------------------------------------------------------- */

static int killed_run(void *arg)
{
	(void)arg;
	return kill(getpid(), SIGKILL);
}

static void check_killed(struct watch *w)
{
	struct child c = child_make(killed_run, NULL);

	check_scene = "killed";
	watch_reset(w);
	CHECK(probe_trace(w->probe, (uint32_t)c.pid) == 0);
	child_go(&c);
	CHECK(child_end(w, &c) == -1);
	CHECK(watch_count(w, SEEN_EXIT, (uint32_t)c.pid) == 1);
}

/* --- listeners and cgroups -------------------------------------------------------------------- */

static int listen_run(void *arg)
{
	struct tasks *t = arg;
	struct address a = address_make(TCP4, 0), b = address_unix("\0spanloom listens", 17);

	if (socket_listen(&a, 1) < 0 || socket_listen(&b, 1) < 0)
		return 1;
	t->port = address_port(&a);
	t->pids[0] = (uint32_t)getpid();
	return 0;
}

static void check_listen(struct watch *w)
{
	const struct seen *s;
	uint32_t pid;
	struct tasks *t = tasks_run(w, "listen", listen_run, &pid);
	struct child c;

	s = watch_first(w, SEEN_LISTEN, pid);
	CHECK_SAY(s && s->other == t->port, "port %u, not %u", s ? s->other : 0, t->port);
	CHECK(watch_count(w, SEEN_LISTEN, pid) == 1);

	check_scene = "listen, not traced";
	watch_reset(w);
	c = child_make(listen_run, t);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	s = watch_first(w, SEEN_LISTEN, (uint32_t)c.pid);
	CHECK_SAY(s && s->other == t->port, "port %u, not %u", s ? s->other : 0, t->port);
	munmap(t, sizeof(*t));
}

/* Where cgroup v2 is mounted; false: nowhere. */
static bool cgroup2_path(char path[256])
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[1024], type[64];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %255s %63s", path, type) == 2 && !strcmp(type, "cgroup2");
	if (f)
		fclose(f);
	return found;
}

static bool cgroup_enter(const char *dir, pid_t pid)
{
	char path[400];
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	f = fopen(path, "we");
	if (!f)
		return false;
	fprintf(f, "%d", (int)pid);
	return fclose(f) == 0;
}

static int paused_run(void *arg)
{
	(void)arg;
	child_says();
	return 0;
}

static void check_cgroup(struct watch *w)
{
	char mount[256], dir[300];
	struct child c;

	check_scene = "cgroup";
	if (!cgroup2_path(mount)) {
		printf("cgroup: not tried, cgroup v2 is not mounted\n");
		return;
	}
	snprintf(dir, sizeof(dir), "%s/spanloom-test-%d", mount, (int)getpid());
	if (mkdir(dir, 0755)) {
		printf("cgroup: not tried, %s: %s\n", dir, strerror(errno));
		return;
	}
	watch_reset(w);
	c = child_make(paused_run, NULL);
	child_go(&c);
	CHECK(child_wait(&c));
	CHECK(cgroup_enter(dir, c.pid));
	watch_take(w);
	CHECK(watch_count(w, SEEN_CGROUP, (uint32_t)c.pid) == 1);
	child_go(&c);
	CHECK(child_end(w, &c) == 0);
	rmdir(dir);
}

static void check_collector(enum probe_collector collector)
{
	struct watch w;

	printf("%s:\n", collector_text(collector));
	watch_open(&w, collector, WATCH_RING_BYTES);
	check_fork(&w);
	check_exec(&w);
	check_exec_untraced(&w);
	check_threads(&w);
	check_main_first(&w);
	check_killed(&w);
	check_listen(&w);
	check_cgroup(&w);
	watch_close(&w);
}

int main(void)
{
	check_collector(PROBE_COLLECTOR_SOCK);
	check_collector(PROBE_COLLECTOR_SYSCALL);
	return check_result();
}
