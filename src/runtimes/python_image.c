/*
 * Finds the interpreter in a process: the file that defines _PyRuntime, the python program itself
 * or the libpython that it loads, with its symbols. It refuses programs that only embed Python,
 * PyPy, and builds without GIL. Invariant: a file is read only when it is the one that is mapped;
 * where the path leads elsewhere by now, the mapping itself is opened.
 */
#include "runtimes/python_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PATH_BYTES = 4096 + 64,
	SECTION_BYTES_MAX = 64 << 20, /* symbols, relocations, their names */
};

/* Never 0, whatever errno is: callers use their outputs on 0. */
static int last_error(void)
{
	int err = errno;

	return err > 0 ? -err : -EIO;
}

struct elf {
	int fd;
	Elf *elf;
};

static void elf_close(struct elf *e)
{
	if (e->elf)
		elf_end(e->elf);
	if (e->fd >= 0)
		close(e->fd);
}

/* Read and not mapped: whoever runs the file may cut it short meanwhile, and that would end us. */
static int elf_open(const char *path, struct elf *ret)
{
	struct elf e = { open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), NULL };
	struct stat st;

	if (e.fd < 0)
		return last_error();
	if (fstat(e.fd, &st) || !S_ISREG(st.st_mode) || elf_version(EV_CURRENT) == EV_NONE ||
	    !(e.elf = elf_begin(e.fd, ELF_C_READ, NULL)) || elf_kind(e.elf) != ELF_K_ELF) {
		elf_close(&e);
		return -ENOEXEC;
	}
	*ret = e;
	return 0;
}

/* What a section holds; NULL where no interpreter's is so large. */
static Elf_Data *section_data(Elf_Scn *section)
{
	GElf_Shdr header;

	return gelf_getshdr(section, &header) && header.sh_size <= SECTION_BYTES_MAX
		       ? elf_getdata(section, NULL)
		       : NULL;
}

/* In the tables of this kind (SHT_DYNSYM, SHT_SYMTAB); `defined`: here, not in another file. */
static bool find_in(Elf *elf, uint32_t kind, const char *name, bool defined, GElf_Sym *ret)
{
	Elf_Scn *section = NULL;

	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		Elf_Data *data;
		size_t count;

		if (!gelf_getshdr(section, &header) || header.sh_type != kind ||
		    !header.sh_entsize || !(data = section_data(section)) ||
		    !section_data(elf_getscn(elf, header.sh_link)))
			continue;
		count = header.sh_size / header.sh_entsize;
		for (size_t i = 0; i < count; i++) {
			GElf_Sym sym;
			const char *s;

			if (!gelf_getsym(data, (int)i, &sym) ||
			    (sym.st_shndx != SHN_UNDEF) != defined)
				continue;
			s = elf_strptr(elf, header.sh_link, sym.st_name);
			if (!s || strcmp(s, name) != 0)
				continue;
			*ret = sym;
			return true;
		}
	}
	return false;
}

static bool defines(Elf *elf, const char *name, GElf_Sym *ret)
{
	return find_in(elf, SHT_DYNSYM, name, true, ret) ||
	       find_in(elf, SHT_SYMTAB, name, true, ret);
}

/* Where the segment that is mapped from `offset` would be with no bias. */
static bool segment_address(Elf *elf, uint64_t offset, uint64_t *ret)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	size_t count;

	if (elf_getphdrnum(elf, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		GElf_Phdr header;

		if (!gelf_getphdr(elf, (int)i, &header) || header.p_type != PT_LOAD ||
		    (header.p_offset & ~(page - 1)) != offset)
			continue;
		*ret = header.p_vaddr & ~(page - 1);
		return true;
	}
	return false;
}

static bool parse_mapping(char *line, struct python_mapping *ret)
{
	static const char deleted[] = " (deleted)";
	struct python_mapping m = { 0 };
	size_t len = strcspn(line, "\n"), tail = sizeof(deleted) - 1;
	int at = 0;

	line[len] = 0;
	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*4s %" SCNx64 " %*s %" SCNu64 " %n", &m.start,
		   &m.end, &m.offset, &m.inode, &at) < 4 ||
	    !at || line[at] != '/')
		return false;
	if (len - (size_t)at > tail && strcmp(line + len - tail, deleted) == 0)
		line[len - tail] = 0;
	m.name = line + at;
	*ret = m;
	return true;
}

int python_mappings(uint32_t pid, python_mapping_fn fn, void *ctx)
{
	char path[64], *line = NULL;
	size_t cap = 0;
	FILE *f;
	int err;

	snprintf(path, sizeof(path), "/proc/%u/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? -ESRCH : last_error();
	errno = 0;
	while (getline(&line, &cap, f) > 0) {
		struct python_mapping m;

		if (parse_mapping(line, &m) && !fn(ctx, &m))
			break;
	}
	err = ferror(f) ? last_error() : 0;
	free(line);
	fclose(f);
	return err;
}

/*
 * The mapped file as we can open it; malloc'd. The name is as seen from the root of the process's
 * mounts: mostly its own root, but with chroot ours may be nearer. Else the mapping itself.
 */
static char *open_path(uint32_t pid, const struct python_mapping *m)
{
	char *path;
	struct stat st;

	if (asprintf(&path, "/proc/%u/root%s", pid, m->name) < 0)
		return NULL;
	if (!stat(path, &st) && st.st_ino == m->inode)
		return path;
	free(path);
	if (!stat(m->name, &st) && st.st_ino == m->inode)
		return strdup(m->name);
	if (asprintf(&path, "/proc/%u/map_files/%" PRIx64 "-%" PRIx64, pid, m->start, m->end) < 0)
		return NULL;
	return path;
}

int python_image_open(uint32_t pid, const struct python_mapping *m, struct python_image *ret)
{
	struct python_image image = { .path = open_path(pid, m), .name = strdup(m->name) };
	struct elf e = { -1, NULL };
	uint64_t address;
	int err = -ENOMEM;

	if (image.path && image.name)
		err = elf_open(image.path, &e);
	if (!err) {
		err = segment_address(e.elf, m->offset, &address) ? 0 : -ENOEXEC;
		elf_close(&e);
	}
	if (err) {
		python_image_free(&image);
		return err;
	}
	image.base = m->start;
	image.bias = m->start - address;
	*ret = image;
	return 0;
}

void python_image_free(struct python_image *image)
{
	free(image->path);
	free(image->name);
	memset(image, 0, sizeof(*image));
}

uint64_t python_symbol(const struct python_image *image, const char *name, uint64_t *ret_size)
{
	uint64_t address = 0;
	struct elf e = { -1, NULL };
	GElf_Sym sym;

	if (elf_open(image->path, &e))
		return 0;
	if (defines(e.elf, name, &sym)) {
		address = sym.st_value + image->bias;
		if (ret_size)
			*ret_size = sym.st_size;
	}
	elf_close(&e);
	return address;
}

/* The symbol that one of the relocations fills `slot` with. */
static const char *relocated(Elf *elf, uint64_t slot)
{
	Elf_Scn *section = NULL;

	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header, symbols;
		Elf_Scn *table;
		Elf_Data *data, *names;

		if (!gelf_getshdr(section, &header) || header.sh_type != SHT_RELA ||
		    !header.sh_entsize || !(data = section_data(section)) ||
		    !(table = elf_getscn(elf, header.sh_link)) || !gelf_getshdr(table, &symbols) ||
		    !(names = section_data(table)))
			continue;
		for (size_t i = 0; i < header.sh_size / header.sh_entsize; i++) {
			GElf_Rela rela;
			GElf_Sym sym;

			if (gelf_getrela(data, (int)i, &rela) && rela.r_offset == slot &&
			    gelf_getsym(names, (int)GELF_R_SYM(rela.r_info), &sym))
				return elf_strptr(elf, symbols.sh_link, sym.st_name);
		}
	}
	return NULL;
}

bool python_slot_is(const struct python_image *image, uint64_t slot, const char *symbol)
{
	const char *name;
	struct elf e = { -1, NULL };
	bool is;

	if (elf_open(image->path, &e))
		return false;
	name = relocated(e.elf, slot - image->bias);
	is = name && strcmp(name, symbol) == 0;
	elf_close(&e);
	return is;
}

struct locate {
	uint32_t pid;
	uint64_t address;
	char *path;
	uint64_t offset;
	int err;
};

static bool locate_in(void *ctx, const struct python_mapping *m)
{
	struct locate *l = ctx;

	if (l->address < m->start || l->address >= m->end)
		return true;
	l->path = open_path(l->pid, m);
	l->offset = l->address - m->start + m->offset;
	l->err = l->path ? 0 : -ENOMEM;
	return false;
}

int python_locate(uint32_t pid, uint64_t address, char **ret_path, uint64_t *ret_offset)
{
	struct locate l = { .pid = pid, .address = address, .err = -ENOENT };
	int err = python_mappings(pid, locate_in, &l);

	if (err || l.err) {
		free(l.path);
		return err ? err : l.err;
	}
	*ret_path = l.path;
	*ret_offset = l.offset;
	return 0;
}

/* What a look at the mappings finds. */
struct search {
	uint32_t pid;
	char exe[PATH_BYTES]; /* the program, as the process sees it */
	bool pypy;
	struct python_image program, library;
	int err;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool begins(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* libpython3.12.so.1.0, libpython3.13t.so; not libpython3.so, which only hands on. */
static bool is_library(const char *base)
{
	return begins(base, "libpython") && strchr(base, '.') != strstr(base, ".so") &&
	       strstr(base, ".so");
}

static bool search_in(void *ctx, const struct python_mapping *m)
{
	struct search *s = ctx;
	const char *base = base_name(m->name);
	struct python_image *image = NULL;

	if (begins(base, "libpypy"))
		s->pypy = true;
	if (m->offset)
		return true;
	if (!s->program.path && strcmp(m->name, s->exe) == 0)
		image = &s->program;
	else if (!s->library.path && is_library(base))
		image = &s->library;
	if (image)
		s->err = python_image_open(s->pid, m, image);
	if (s->err == -ENOEXEC) /* not a program of this form, say a script's interpreter */
		s->err = 0;
	return s->err == 0;
}

/* The program's file, as the process sees it. */
static int read_exe(uint32_t pid, char ret[PATH_BYTES])
{
	static const char deleted[] = " (deleted)";
	size_t tail = sizeof(deleted) - 1;
	char path[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%u/exe", pid);
	len = readlink(path, ret, PATH_BYTES - 1);
	if (len < 0)
		return errno == ENOENT ? -ESRCH : last_error();
	if ((size_t)len > tail && strncmp(ret + len - tail, deleted, tail) == 0)
		len -= (ssize_t)tail;
	ret[len] = 0;
	return 0;
}

static int search(uint32_t pid, struct search *s)
{
	char exe[PATH_BYTES];
	int err;

	memset(s, 0, sizeof(*s));
	s->pid = pid;
	err = read_exe(pid, s->exe);
	if (err)
		return err;
	s->pypy = begins(base_name(s->exe), "pypy");
	err = python_mappings(pid, search_in, s);
	if (!err)
		err = s->err;
	/* It may have begun to run another program meanwhile. */
	if (!err)
		err = read_exe(pid, exe);
	return err ? err : strcmp(exe, s->exe) == 0 ? 0 : -EAGAIN;
}

/* What the program's file has of Python. */
struct program {
	bool runtime; /* defines _PyRuntime */
	bool main;    /* takes Py_BytesMain from a library: it is the python program */
};

static int program_look(const struct python_image *image, bool thorough, struct program *ret)
{
	struct elf e = { -1, NULL };
	GElf_Sym sym;
	int err = elf_open(image->path, &e);

	if (err)
		return err;
	ret->runtime = find_in(e.elf, SHT_DYNSYM, "_PyRuntime", true, &sym) ||
		       (thorough && find_in(e.elf, SHT_SYMTAB, "_PyRuntime", true, &sym));
	ret->main = find_in(e.elf, SHT_DYNSYM, "Py_BytesMain", false, &sym);
	elf_close(&e);
	return 0;
}

/* python3.13t, libpython3.13t.so.1.0 */
static bool named_without_gil(const char *base)
{
	const char *at = strstr(base, "python");

	if (!at)
		return false;
	at += strlen("python");
	at += strspn(at, "0123456789.");
	return *at == 't' && (at[1] == 0 || at[1] == '.' || at[1] == 'd');
}

static int decide(struct search *s, struct python_image **ret, char **ret_why)
{
	const char *base = base_name(s->exe);
	bool named = begins(base, "python");
	struct program program = { false, false };
	struct python_image *image;
	int err = 0;

	if (s->pypy)
		return python_refuse(ret_why, "%s is PyPy, only CPython is known", base);
	if (s->program.path)
		err = program_look(&s->program, named, &program);
	if (err)
		return err;
	image = program.runtime ? &s->program : &s->library;
	if (!image->path) {
		if (named && (program.main || !s->program.path))
			return -EAGAIN;
		return named ? python_refuse(
				       ret_why,
				       "%s defines no _PyRuntime (CPython has it from 3.7 on)",
				       base)
			     : -ENOENT;
	}
	if (program.runtime ? !named : !program.main)
		return python_refuse(
			ret_why, "%s embeds Python, only the python program itself is known", base);
	if (begins(base_name(image->name), "libpython2"))
		return python_refuse(ret_why, "%s runs Python 2", base);
	if (named_without_gil(base_name(image->name)))
		return python_refuse(ret_why, "%s is a build without the global interpreter lock",
				     base);
	*ret = image;
	return 0;
}

int python_image_find(uint32_t pid, struct python_image *ret, char **ret_why)
{
	struct search s;
	struct python_image *found = NULL;
	int err = search(pid, &s);

	if (!err)
		err = decide(&s, &found, ret_why);
	if (!err && found) {
		*ret = *found;
		memset(found, 0, sizeof(*found));
	}
	python_image_free(&s.program);
	python_image_free(&s.library);
	return err;
}
