/*
 * Discovery without the machine: rules, cgroup and container names, tables of /proc/net, and a
 * made-up proc tree. The live parts are in test_discover_live.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "discover/listen.h"
#include "discover/process.h"
#include "discover/resource_detect.h"
#include "discover/select.h"

#define ID_A "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID_B "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define ECS_ID "0123456789abcdef0123456789abcdef-1234567890"

static void test_glob(void)
{
	CHECK(select_glob_matches("python*", "/usr/bin/python3.11", "python3"));
	CHECK(select_glob_matches("python3", "/usr/bin/python3.11", "/venv/bin/python3"));
	CHECK(!select_glob_matches("uvicorn", "/usr/bin/python3.11", "python3"));
	CHECK(select_glob_matches("nginx", "/usr/sbin/nginx",
				  "nginx: master process /usr/sbin/nginx"));
	CHECK(select_glob_matches("/opt/*", "/opt/a/b/app", "app"));
	CHECK(select_glob_matches("*/bin/py*", "/x/bin/python3", ""));
	CHECK(!select_glob_matches("/opt/*", "/usr/bin/x", "/opt/x"));
	CHECK(!select_glob_matches("*", "", ""));
	CHECK(select_glob_matches("[ab]pp", "/app", ""));
}

static void test_cgroup_match(void)
{
	CHECK(select_cgroup_matches("/a", "/a"));
	CHECK(select_cgroup_matches("/a", "/a/b/c"));
	CHECK(!select_cgroup_matches("/a", "/ab"));
	CHECK(!select_cgroup_matches("/a/b", "/a"));
	CHECK(select_cgroup_matches("/", "/"));
	CHECK(select_cgroup_matches("/", "/x"));
	CHECK(!select_cgroup_matches("/", ""));
}

static void check_path(const char *mount, const char *given, const char *expected)
{
	char *path = select_cgroup_path(mount, given);

	CHECK_STR(path, expected);
	free(path);
}

static void test_cgroup_path(void)
{
	check_path("/sys/fs/cgroup", "/sys/fs/cgroup/a.slice/b.scope/", "/a.slice/b.scope");
	check_path("/sys/fs/cgroup", "a.slice//b", "/a.slice/b");
	check_path("/sys/fs/cgroup", "/a.slice", "/a.slice");
	check_path("/sys/fs/cgroup", "/sys/fs/cgroup", "/");
	check_path("/sys/fs/cgroup", "/", "/");
	check_path("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/x", "/x");
	check_path("/sys/fs/cgroup", "/sys/fs/cgroups/x", "/sys/fs/cgroups/x");
	check_path(NULL, "./x/.", "/x");
}

static void check_mount(const char *mountinfo, const char *expected)
{
	char *mount = select_cgroup_mount(mountinfo);

	if (expected)
		CHECK_STR(mount, expected);
	else
		CHECK(!mount);
	free(mount);
}

static void test_cgroup_mount(void)
{
	check_mount("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
		    "/sys/fs/cgroup");
	check_mount("30 23 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro\n"
		    "31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n"
		    "32 30 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n",
		    "/sys/fs/cgroup/unified");
	check_mount("31 30 0:27 /docker/x /mnt/one rw - cgroup2 cgroup2 rw\n"
		    "32 30 0:27 / /mnt/two\\040words rw - cgroup2 cgroup2 rw\n",
		    "/mnt/two words");
	check_mount("31 30 0:27 /docker/x /mnt/one rw - cgroup2 cgroup2 rw\n", "/mnt/one");
	check_mount("32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", NULL);
	check_mount("", NULL);
}

static void check_container(const char *cgroup, const char *expected)
{
	char id[CONTAINER_ID_BYTES] = "";

	CHECK(cgroup_container_id(cgroup, id) == (*expected != 0));
	CHECK_STR(id, expected);
}

static void check_mounted_container(const char *mountinfo, const char *expected)
{
	char id[CONTAINER_ID_BYTES] = "";

	CHECK(mountinfo_container_id(mountinfo, id) == (*expected != 0));
	CHECK_STR(id, expected);
}

static void test_container(void)
{
	check_container("0::/system.slice/docker-" ID_A ".scope\n", ID_A);
	check_container("12:memory:/docker/" ID_A "\n0::/\n", ID_A);
	check_container("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" ID_A ".scope\n",
			ID_A);
	check_container("0::/kubepods.slice/kubepods-pod1.slice/crio-" ID_A ".scope\n", ID_A);
	check_container("0::/machine.slice/libpod-" ID_A ".scope/container\n", ID_A);
	check_container(
		"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:" ID_A "\n",
		ID_A);
	check_container(
		"0::/kubepods/besteffort/pod2d3da189-6407-48e3-9ab6-78188d75e609/" ID_A "\n", ID_A);
	check_container("0::/docker/" ID_A "/docker/" ID_B "\n", ID_B);
	check_container("9:cpu:/ecs/cluster/" ECS_ID "\n", ECS_ID);
	check_container("0::/machine.slice/libpod-conmon-" ID_A ".scope\n", "");
	check_container("0::/user.slice/user-1000.slice/session-3.scope\n", "");
	check_container("4:memory:/x/0123456789abcdef0123456789abcdef\n0::/\n", "");
	check_container("0::/x/" ID_A "0\n", "");
	check_container("", "");

	check_mounted_container("1 2 8:1 /var/lib/docker/containers/" ID_A
				"/hostname /etc/hostname rw - ext4 x rw\n",
				ID_A);
	check_mounted_container("1 2 8:1 /srv/containers/storage/overlay-containers/" ID_A
				"/userdata/hosts /etc/hosts rw - ext4 x rw\n",
				ID_A);
	check_mounted_container("1 2 8:1 /var/lib/docker/containers/" ID_A
				"/mounts/shm /mnt rw - tmpfs shm rw\n",
				"");
	check_mounted_container("1 2 8:1 /io.containerd.grpc.v1.cri/sandboxes/" ID_A
				"/hostname /etc/hostname rw - ext4 x rw\n",
				"");
}

static void test_listen_line(void)
{
	uint16_t port = 0;
	uint64_t inode = 0;
	bool listening = false;

	CHECK(listen_parse_line(
		"   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     "
		"0        0 21217 1 0000000000000000 100 0 0 10 0\n",
		&listening, &port, &inode));
	CHECK(listening && port == 6379 && inode == 21217);
	CHECK(listen_parse_line(
		"  12: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 "
		"0A "
		"00000000:00000000 00:00000000 00000000  1000        0 4294967296 1 0 100\n",
		&listening, &port, &inode));
	CHECK(listening && port == 8080 && inode == 4294967296);
	CHECK(listen_parse_line(
		"   1: 0100007F:18EB 0100007F:C350 01 00000000:00000000 02:00000F2B 00000000     0"
		"        0 5 2 0 20 4 30 10 -1\n",
		&listening, &port, &inode));
	CHECK(!listening);
	CHECK(!listen_parse_line(
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n",
		&listening, &port, &inode));
}

/* --- a made-up proc tree --- */

static char root[] = "/tmp/test_discover_XXXXXX";

static void put(const char *name, const void *text, size_t len)
{
	char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *slash = strchr(path + sizeof(root), '/'); slash;
	     slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
	}
	file = fopen(path, "w");
	CHECK(file != NULL);
	if (!file)
		return;
	fwrite(text, 1, len, file);
	fclose(file);
}

static void put_text(const char *name, const char *text)
{
	put(name, text, strlen(text));
}

static void put_link(const char *name, const char *target)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	CHECK(symlink(target, path) == 0);
}

static void put_process(uint32_t pid, const char *state, unsigned int flags)
{
	char name[64], text[256];

	snprintf(name, sizeof(name), "%u/stat", pid);
	snprintf(text, sizeof(text),
		 "%u (a ) b) %s 7 1 1 0 -1 %u 100 0 0 0 1 1 0 0 20 0 1 0 4711 1000 100 "
		 "18446744073709551615 0 0\n",
		 pid, state, flags);
	put_text(name, text);
}

static void make_tree(void)
{
	static const char env[] =
		"PATH=/"
		"bin\0OTEL_SERVICE_NAME=cart\0OTEL_RESOURCE_ATTRIBUTES=a=b\0X_OTEL_SERVICE_NAME=n";
	static const char cmdline[] = "/venv/bin/python3\0-m\0app\0";

	put_process(100, "S", 0x400000);
	put("100/cmdline", cmdline, sizeof(cmdline) - 1);
	put("100/environ", env, sizeof(env));
	put_text("100/cgroup", "4:memory:/m\n0::/app.slice/docker-" ID_A ".scope (deleted)\n");
	put_text("100/status", "Name:\tx\nTgid:\t100\nPid:\t100\n");
	put_text("100/maps", "7f00-7f01 r--p 00000000 08:01 12 /usr/lib/libpython3.11.so.1.0\n");
	put_text(
		"100/net/tcp",
		"  sl  local_address\n   0: 00000000:1F40 00000000:0000 0A 0:0 00:0 0 0 0 555 1 0\n"
		"   1: 00000000:1F41 00000000:0000 01 0:0 00:0 0 0 0 556 1 0\n");
	put_text("100/net/tcp6", "  sl  local_address\n");
	put_text("100/fd/0", "");
	put_link("100/fd/3", "socket:[555]");
	put_link("100/exe", "/usr/bin/python3.11 (deleted)");
	put_process(200, "S", 0x200000);
	put_text("200/cgroup", "0::/app.slice\n");
	put_process(300, "Z", 0);
	put_text("300/cgroup", "0::/app.slice\n");
	put_process(1, "S", 0);
	put_text("1/fd/0", "");
	put_link("1/fd/3", "socket:[555]");
	put_text("1/net/tcp", "   0: 00000000:1F40 00000000:0000 0A 0:0 00:0 0 0 0 555 1 0\n");
	put_text("self", "");
}

static void test_process(int proc)
{
	struct process_env env = { 0 };
	struct process p = { 0 };
	uint32_t tgid = 0;
	char name[64];

	CHECK(process_read(proc, 100, PROCESS_ALL, &p) == 0);
	CHECK(p.pid == 100 && p.parent == 7 && p.start_ticks == 4711 && !p.kernel_thread &&
	      !p.zombie);
	CHECK_STR(p.comm, "a ) b");
	CHECK_STR(p.exe, "/usr/bin/python3.11");
	CHECK(p.exe_deleted);
	CHECK_STR(p.argv0, "/venv/bin/python3");
	CHECK_STR(p.cgroup, "/app.slice/docker-" ID_A ".scope");
	CHECK_STR(p.container_id, ID_A);
	process_free(&p);
	CHECK(process_read(proc, 200, PROCESS_ALL, &p) == 0 && p.kernel_thread);
	CHECK_STR(p.exe, "");
	CHECK_STR(p.argv0, "");
	process_free(&p);
	CHECK(process_read(proc, 300, 0, &p) == 0 && p.zombie);
	CHECK(process_read(proc, 999, 0, &p) == -ESRCH);
	CHECK(process_thread_group(proc, 100, &tgid) == 0 && tgid == 100);
	CHECK(process_thread_group(proc, 999, &tgid) == -ESRCH);
	CHECK(process_env_read(proc, 100, &env) == 0);
	CHECK_STR(process_env_get(&env, "OTEL_SERVICE_NAME"), "cart");
	CHECK_STR(process_env_get(&env, "X_OTEL_SERVICE_NAME"), "n");
	CHECK(!process_env_get(&env, "OTEL_SERVICE") && !process_env_get(&env, "HOME"));
	process_env_free(&env);
	CHECK(process_env_read(proc, 999, &env) == -ESRCH);
	CHECK(process_maps_file(proc, 100, "libpython", name, sizeof(name)));
	CHECK_STR(name, "libpython3.11.so.1.0");
	CHECK(!process_maps_file(proc, 100, "libssl", NULL, 0));
}

static uint32_t found[8];
static const struct select_rule *found_why[8];
static size_t found_count;

static void on_found(void *ctx, uint32_t pid, const struct select_rule *why)
{
	(void)ctx;
	found[found_count] = pid;
	found_why[found_count++] = why;
}

static bool scan_finds(int proc, struct select_rule rule, uint32_t pid)
{
	struct selector s;
	bool ok;

	CHECK(selector_init(&s, &rule, 1, "/nowhere") == 0);
	close(s.proc_fd);
	s.proc_fd = dup(proc);
	s.self_pid = 400;
	found_count = 0;
	CHECK(select_scan(&s, on_found, NULL) == 0);
	ok = pid ? found_count == 1 && found[0] == pid && found_why[0] == &rule : found_count == 0;
	selector_free(&s);
	return ok;
}

static void test_scan(int proc)
{
	char exe[] = "python3*", cgroup[] = "app.slice", all[] = "/", other[] = "/opt/*";

	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_PID, .pid = 100 }, 100));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_PID, .pid = 101 }, 0));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_PID, .pid = 200 }, 0));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_PID, .pid = 300 }, 0));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_EXE, .text = exe }, 100));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_EXE, .text = other }, 0));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_CGROUP, .text = cgroup }, 100));
	CHECK(scan_finds(proc, (struct select_rule){ .kind = SELECT_CGROUP, .text = all }, 100));
	CHECK(scan_finds(
		proc,
		(struct select_rule){ .kind = SELECT_PORT, .port_low = 8000, .port_high = 8000 },
		100));
	CHECK(scan_finds(
		proc,
		(struct select_rule){ .kind = SELECT_PORT, .port_low = 7999, .port_high = 9000 },
		100));
	CHECK(scan_finds(
		proc,
		(struct select_rule){ .kind = SELECT_PORT, .port_low = 8001, .port_high = 8001 },
		0));
}

static void test_port(void)
{
	struct select_rule rules[] = { { .kind = SELECT_PID, .pid = 5 },
				       { .kind = SELECT_PORT, .port_low = 80, .port_high = 90 } };
	struct selector s = { .rules = rules, .rule_count = 2, .self_pid = 9 };
	const struct select_rule *why = NULL;
	char text[64];

	CHECK(select_port(&s, 5, 80, &why) && why == &rules[1]);
	CHECK(select_port(&s, 5, 90, NULL) && !select_port(&s, 5, 91, NULL) &&
	      !select_port(&s, 5, 79, NULL));
	CHECK(!select_port(&s, 1, 80, NULL) && !select_port(&s, 9, 80, NULL));
	select_rule_describe(&rules[0], text, sizeof(text));
	CHECK_STR(text, "--pid 5");
	select_rule_describe(&rules[1], text, sizeof(text));
	CHECK_STR(text, "--port 80-90");
}

int main(void)
{
	char command[64];
	int proc;

	test_glob();
	test_cgroup_match();
	test_cgroup_path();
	test_cgroup_mount();
	test_container();
	test_listen_line();
	test_port();
	CHECK(mkdtemp(root) != NULL);
	make_tree();
	proc = open(root, O_RDONLY | O_DIRECTORY);
	test_process(proc);
	test_scan(proc);
	close(proc);
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	CHECK(system(command) == 0);
	return check_result();
}
