/*
 * A program is known by its file's name, or by what its compiler left in it. It reads nothing but
 * the link to the file and the names of its sections; what is not known asks.
 */
#include "probe/inject_program.h"

#include <ctype.h>
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

/* python3.11, node, nodejs, curl; "python3-config" is another program. */
static bool name_never_asks(const char *name)
{
	static const char *const names[] = { "python", "nodejs", "node", "curl" };
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t len = strlen(names[i]);

		if (strncmp(name, names[i], len) == 0 && only_version(name + len))
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

bool program_never_asks(uint32_t pid)
{
	static const char gone[] = " (deleted)";
	char link[64], path[PATH_MAX];
	const char *name;
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/%u/exe", pid);
	len = readlink(link, path, sizeof(path) - 1);
	if (len <= 0)
		return false;
	path[len] = '\0';
	if ((size_t)len > sizeof(gone) - 1 && strcmp(path + len - (sizeof(gone) - 1), gone) == 0)
		path[(size_t)len - (sizeof(gone) - 1)] = '\0';
	name = strrchr(path, '/');
	return name_never_asks(name ? name + 1 : path) || is_go(link);
}
