/*
 * Machine code of a process, read from its files, a function or a window at a time. It knows no
 * interpreter beyond its procedure linkage, and refuses code that no file holds. Invariant: what is
 * read is what the file has, never what a probe has put there.
 */
#include "runtimes/python_function.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtimes/disasm.h"
#include "runtimes/disasm_result.h"

void python_function_free(struct python_function *f)
{
	free(f->path);
}

int python_function_read(const struct python *p, const char *name, uint64_t address, uint64_t size,
			 struct python_function *ret)
{
	struct python_function *f = ret;
	ssize_t got;
	int fd, err;

	memset(f, 0, sizeof(*f));
	f->name = name;
	f->address = address;
	f->size = size <= sizeof(f->code) ? size : 0;
	err = python_locate(p->base.pid, address, &f->path, &f->offset);
	if (err)
		return err;
	fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	got = pread(fd, f->code, f->size ? f->size : sizeof(f->code), (off_t)f->offset);
	err = got > 0 && (!f->size || (uint64_t)got == f->size) ? 0 : -EIO;
	close(fd);
	f->length = got > 0 ? (size_t)got : 0;
	return err;
}

/* An entry of the procedure linkage is one jump by a slot. */
static bool is_linkage(const struct python *p, uint64_t address, const char *symbol)
{
	struct python_function f;
	struct disasm d;
	bool is = false;

	if (!python_function_read(p, symbol, address, 0, &f) &&
	    !disasm_function(f.code, f.length, f.address, false, &d)) {
		is = d.jump_count == 1 && !d.return_count && d.jumps[0].kind == DISASM_SLOT &&
		     python_slot_is(&p->image, d.jumps[0].target, symbol);
		disasm_free(&d);
	}
	python_function_free(&f);
	return is;
}

bool python_function_leads_to(const struct python *p, const struct python_function *f,
			      uint64_t target, const char *symbol)
{
	struct disasm d;
	bool found = false;

	if (disasm_function(f->code, f->length, f->address, f->size != 0, &d))
		return false;
	for (size_t i = 0; !found && i < d.jump_count; i++) {
		const struct disasm_jump *j = &d.jumps[i];

		if (j->kind == DISASM_SLOT)
			found = python_slot_is(&p->image, j->target, symbol);
		else if (j->kind != DISASM_INDIRECT)
			found = j->target == target || is_linkage(p, j->target, symbol);
	}
	disasm_free(&d);
	return found;
}

bool python_is_inside(const struct python *p, uint64_t address)
{
	struct stat here, interpreter;
	uint64_t offset;
	char *path;
	bool inside;

	if (python_locate(p->base.pid, address, &path, &offset))
		return false;
	inside = !stat(path, &here) && !stat(p->image.path, &interpreter) &&
		 here.st_ino == interpreter.st_ino && here.st_dev == interpreter.st_dev;
	free(path);
	return inside;
}

void python_text_free(struct python_text *t)
{
	for (size_t i = 0; i < PYTHON_TEXT_WINDOWS; i++)
		python_function_free(&t->windows[i]);
}

const uint8_t *python_text_fetch(void *ctx, uint64_t address, size_t *ret_len)
{
	struct python_text *t = ctx;
	struct python_function *f = NULL;

	for (size_t i = 0; !f && i < PYTHON_TEXT_WINDOWS; i++) {
		struct python_function *w = &t->windows[i];

		if (address >= w->address && address - w->address + DISASM_FETCH_BYTES <= w->length)
			f = w;
	}
	if (!f) {
		f = &t->windows[t->next++ % PYTHON_TEXT_WINDOWS];
		python_function_free(f);
		if (python_function_read(t->python, "text", address, 0, f) ||
		    f->length < DISASM_FETCH_BYTES) {
			f->length = 0;
			return NULL;
		}
	}
	*ret_len = f->length - (address - f->address);
	return f->code + (address - f->address);
}
