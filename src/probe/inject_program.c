/*
 * A program is known by its file's name, or by what its compiler left in it. It reads nothing but
 * the link to the file, the names of its sections and what its descriptors are; what is not known
 * asks.
 */
#include "probe/inject_program.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool only_version(const char *s)
{
	for (; *s; s++) {
		if (!isdigit((unsigned char)*s) && *s != '.')
			return false;
	}
	return true;
}

/* Is it one of `names` (the last is NULL), with a version or not? "python3-config" isn't python. */
static bool name_among(const char *name, const char *const *names)
{
	for (; *names; names++) {
		size_t len = strlen(*names);

		if (strncmp(name, *names, len) == 0 && only_version(name + len))
			return true;
	}
	return false;
}

/* Go's linker leaves this section in every executable, stripped or not (Go 1.13). */
static bool is_go(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	Elf_Scn *section = NULL;
	size_t names = 0;
	GElf_Shdr header;
	bool found = false;
	Elf *elf = NULL;

	if (fd >= 0 && elf_version(EV_CURRENT) != EV_NONE)
		elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	if (elf && elf_kind(elf) == ELF_K_ELF && !elf_getshdrstrndx(elf, &names)) {
		while (!found && (section = elf_nextscn(elf, section))) {
			const char *name = gelf_getshdr(section, &header)
						   ? elf_strptr(elf, names, header.sh_name)
						   : NULL;

			found = name && strcmp(name, ".go.buildinfo") == 0;
		}
	}
	elf_end(elf);
	if (fd >= 0)
		close(fd);
	return found;
}

/* The name of the process's program, in `path`; "" when it is gone. */
static const char *program_name(const char *link, char path[PATH_MAX])
{
	static const char gone[] = " (deleted)";
	ssize_t len = readlink(link, path, PATH_MAX - 1);
	const char *name;

	path[len < 0 ? 0 : len] = '\0';
	if (len >= (ssize_t)sizeof(gone) && strcmp(path + len - (sizeof(gone) - 1), gone) == 0)
		path[len - (ssize_t)(sizeof(gone) - 1)] = '\0';
	name = strrchr(path, '/');
	return name ? name + 1 : path;
}

bool program_never_asks(uint32_t pid)
{
	static const char *const names[] = { "python", "nodejs", "node", "curl", NULL };
	char link[64], path[PATH_MAX];

	snprintf(link, sizeof(link), "/proc/%u/exe", pid);
	return name_among(program_name(link, path), names) || is_go(link);
}

bool program_rings_apart(uint32_t pid)
{
	static const char *const names[] = { "python", "nodejs", "node", NULL };
	char link[64], path[PATH_MAX];

	snprintf(link, sizeof(link), "/proc/%u/exe", pid);
	return name_among(program_name(link, path), names);
}

bool process_has_ring(uint32_t pid)
{
	static const char ring[] = "anon_inode:[io_uring]";
	char path[64], target[sizeof(ring)];
	struct dirent *e;
	bool found;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%u/fd", pid);
	dir = opendir(path);
	found = !dir;
	while (!found && (e = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target));

		found = n == sizeof(ring) - 1 && memcmp(target, ring, sizeof(ring) - 1) == 0;
	}
	if (dir)
		closedir(dir);
	return found;
}
