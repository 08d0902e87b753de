/*
 * Which container a process is in, from the names that runtimes give to cgroups and mounts. Pure.
 * Only whole ids are taken: 64 hex digits, or ECS' 32 hex digits with a number behind; anything
 * shorter could be anybody's directory.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discover/process.h"

enum { OCI_ID_DIGITS = 64, ECS_ID_DIGITS = 32 };

static size_t hex_run(const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && isxdigit((unsigned char)text[n]))
		n++;
	return n;
}

/*
 * One directory name: ID, docker-ID.scope, cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope,
 * kubepods-….slice:cri-containerd:ID, or ECS' 32HEX-NUMBER. conmon-scopes hold the monitor, not the
 * container.
 */
static bool component_id(const char *name, size_t len, char ret[CONTAINER_ID_BYTES])
{
	size_t n;

	if (len > 6 && memcmp(name + len - 6, ".scope", 6) == 0)
		len -= 6;
	if (len < ECS_ID_DIGITS)
		return false;
	n = hex_run(name, len);
	if (n == ECS_ID_DIGITS && len > n + 1 && len < OCI_ID_DIGITS && name[n] == '-') {
		for (n++; n < len && isdigit((unsigned char)name[n]); n++)
			;
		if (n < len)
			return false;
	} else {
		const char *id = name + len - OCI_ID_DIGITS;

		if (len < OCI_ID_DIGITS || hex_run(id, OCI_ID_DIGITS) != OCI_ID_DIGITS)
			return false;
		if (id > name && id[-1] != '-' && id[-1] != ':')
			return false;
		if (memmem(name, (size_t)(id - name), "conmon", 6))
			return false;
		name = id;
		len = OCI_ID_DIGITS;
	}
	memcpy(ret, name, len);
	ret[len] = 0;
	return true;
}

/* The innermost directory that is a container's. */
static bool path_id(const char *path, size_t len, char ret[CONTAINER_ID_BYTES])
{
	while (len) {
		const char *slash = memrchr(path, '/', len);
		const char *name = slash ? slash + 1 : path;

		if (component_id(name, len - (size_t)(name - path), ret))
			return true;
		len = slash ? (size_t)(slash - path) : 0;
	}
	return false;
}

/* A cgroup that was removed while its processes live on has a mark behind its path. */
static size_t without_mark(const char *path, size_t len)
{
	static const char mark[] = " (deleted)";
	size_t mark_len = sizeof(mark) - 1;

	if (len > mark_len && memcmp(path + len - mark_len, mark, mark_len) == 0)
		return len - mark_len;
	return len;
}

bool cgroup_container_id(const char *cgroup_text, char ret[CONTAINER_ID_BYTES])
{
	while (*cgroup_text) {
		size_t len = strcspn(cgroup_text, "\n");
		const char *path = memchr(cgroup_text, '/', len);

		if (path &&
		    path_id(path, without_mark(path, len - (size_t)(path - cgroup_text)), ret))
			return true;
		cgroup_text += len + (cgroup_text[len] == '\n');
	}
	return false;
}

/* proc_pid_mountinfo(5): id, parent, device, root, mount point, … */
static bool mount_id(const char *root, const char *point, char ret[CONTAINER_ID_BYTES])
{
	static const char *const points[] = { "/etc/hostname", "/etc/hosts", "/etc/resolv.conf" };
	static const char *const dirs[] = { "/containers/", "/overlay-containers/", NULL };
	size_t i, k;

	for (i = 0; i < 3 && strcmp(point, points[i]) != 0; i++)
		;
	if (i == 3)
		return false;
	for (k = 0; dirs[k]; k++) {
		size_t skip = strlen(dirs[k]);
		const char *dir = root;

		while ((dir = strstr(dir, dirs[k]))) {
			dir += skip;
			if (component_id(dir, strcspn(dir, "/"), ret))
				return true;
			dir--; /* the '/' may begin the next one */
		}
	}
	return false;
}

bool mountinfo_container_id(const char *mountinfo_text, char ret[CONTAINER_ID_BYTES])
{
	while (*mountinfo_text) {
		size_t len = strcspn(mountinfo_text, "\n");
		char line[1024], root[512], point[64];

		snprintf(line, sizeof(line), "%.*s",
			 (int)(len < sizeof(line) ? len : sizeof(line) - 1), mountinfo_text);
		if (sscanf(line, "%*u %*u %*s %511s %63s", root, point) == 2 &&
		    mount_id(root, point, ret))
			return true;
		mountinfo_text += len + (mountinfo_text[len] == '\n');
	}
	return false;
}

char *cgroup_v2_path(const char *cgroup_text)
{
	while (*cgroup_text) {
		size_t len = strcspn(cgroup_text, "\n");

		if (strncmp(cgroup_text, "0::/", 4) == 0)
			return strndup(cgroup_text + 3, without_mark(cgroup_text + 3, len - 3));
		cgroup_text += len + (cgroup_text[len] == '\n');
	}
	return NULL;
}
