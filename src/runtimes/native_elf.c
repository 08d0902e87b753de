/*
 * Reads symbols and code by libelf. The symbol must name one function, and its bytes be in the file
 * where the program headers say; a file that lies about that is refused, never read beyond its end.
 */
#include "runtimes/native_elf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gelf.h>

#include "runtimes/disasm.h"
#include "runtimes/native_exits.h"

/* What the symbol tables say of a function. */
struct function_symbol {
	const char *name;
	uint64_t address, bytes;
	bool found, global, resolved, ambiguous;
};

static void take_symbol(struct function_symbol *s, const char *name, const GElf_Sym *sym)
{
	bool global = GELF_ST_BIND(sym->st_info) != STB_LOCAL;
	int type = GELF_ST_TYPE(sym->st_info);

	if (sym->st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_GNU_IFUNC))
		return;
	if (strcmp(name, s->name) != 0 || (s->global && !global))
		return;
	/* Of several the one that others see; two that differ can't be told apart. */
	s->ambiguous = s->found && s->global == global && s->address != sym->st_value;
	s->found = true;
	s->global = global;
	s->resolved = type == STT_GNU_IFUNC;
	s->address = sym->st_value;
	s->bytes = sym->st_size;
}

static void read_table(Elf *elf, Elf_Scn *section, const GElf_Shdr *header,
		       struct function_symbol *s)
{
	Elf_Data *data = elf_getdata(section, NULL);
	size_t count = data && header->sh_entsize ? header->sh_size / header->sh_entsize : 0;

	for (size_t i = 0; i < count && i <= INT32_MAX; i++) {
		const char *name;
		GElf_Sym sym;

		if (!gelf_getsym(data, (int)i, &sym))
			return;
		name = elf_strptr(elf, header->sh_link, sym.st_name);
		if (name && *name == *s->name)
			take_symbol(s, name, &sym);
	}
}

/* .symtab has all that .dynsym has, and the local ones. */
static void read_symbols(Elf *elf, struct function_symbol *s)
{
	static const GElf_Word types[] = { SHT_SYMTAB, SHT_DYNSYM };

	for (size_t i = 0; i < 2 && !s->found; i++) {
		Elf_Scn *section = NULL;

		while ((section = elf_nextscn(elf, section))) {
			GElf_Shdr header;

			if (gelf_getshdr(section, &header) && header.sh_type == types[i])
				read_table(elf, section, &header, s);
		}
	}
}

/* The code segment that holds [address, address + bytes), by offsets into the file. */
static bool find_text(Elf *elf, uint64_t address, uint64_t bytes, struct native_code *ret,
		      uint64_t *ret_offset)
{
	size_t headers = 0, file_bytes = 0;
	const char *file = elf_rawfile(elf, &file_bytes);

	if (!file || elf_getphdrnum(elf, &headers))
		return false;
	for (size_t i = 0; i < headers && i <= INT32_MAX; i++) {
		GElf_Phdr p;

		if (!gelf_getphdr(elf, (int)i, &p) || p.p_type != PT_LOAD || !(p.p_flags & PF_X) ||
		    address < p.p_vaddr || address - p.p_vaddr >= p.p_filesz ||
		    bytes > p.p_filesz - (address - p.p_vaddr))
			continue;
		if (p.p_offset > file_bytes || p.p_filesz > file_bytes - p.p_offset)
			return false;
		*ret = (struct native_code){ p.p_offset, (const uint8_t *)file + p.p_offset,
					     p.p_filesz };
		*ret_offset = address - p.p_vaddr + p.p_offset;
		return true;
	}
	return false;
}

static const char *refuse_symbol(const struct function_symbol *s)
{
	if (!s->found)
		return "it has no such function (or its symbols were stripped)";
	if (s->ambiguous)
		return "several functions have this name";
	if (s->resolved)
		return "which function this is, is decided when the program runs";
	if (!s->bytes || s->bytes > DISASM_FUNCTION_MAX_BYTES)
		return "the size of the function is not known";
	return NULL;
}

static int find_places(Elf *elf, const struct function_symbol *s, struct native_function *ret,
		       const char **ret_why)
{
	struct native_code text;
	uint64_t begin;
	int exits;

	if (!find_text(elf, s->address, s->bytes, &text, &begin)) {
		*ret_why = "the function's code is not in the file";
		return -EOPNOTSUPP;
	}
	ret->entry = begin + disasm_entry(text.code + (begin - text.address), s->bytes, false);
	exits = native_exits(&text, begin, s->bytes, &ret->entry, ret->exits, NATIVE_EXITS_MAX,
			     ret_why);
	if (exits < 0)
		return exits;
	if (exits == 0) {
		*ret_why = "it never returns";
		return -EOPNOTSUPP;
	}
	ret->exit_count = (size_t)exits;
	return 0;
}

static int find_in_elf(Elf *elf, const char *symbol, struct native_function *ret,
		       const char **ret_why)
{
	struct function_symbol s = { .name = symbol };
	GElf_Ehdr header;

	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header))
		*ret_why = "it is no ELF file";
	else if (header.e_machine != EM_X86_64)
		*ret_why = "native functions are spans on x86-64 only";
	else
		read_symbols(elf, &s);
	if (!*ret_why)
		*ret_why = refuse_symbol(&s);
	return *ret_why ? -EOPNOTSUPP : find_places(elf, &s, ret, ret_why);
}

int native_function_find(const char *path, const char *symbol, struct native_function *ret,
			 const char **ret_why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	Elf *elf;

	if (fd < 0) {
		*ret_why = "it can't be opened";
		return -errno;
	}
	*ret_why = NULL;
	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ_MMAP, NULL);
	if (elf) {
		err = find_in_elf(elf, symbol, ret, ret_why);
		elf_end(elf);
	} else {
		*ret_why = "it can't be read";
		err = -EOPNOTSUPP;
	}
	close(fd);
	if (err && !*ret_why)
		*ret_why = "out of memory";
	return err;
}
