/*
 * Which module a source file is, and whose it is: the application's or a library's. It owns the
 * list of the modules that were seen in sys.modules. It refuses to guess: a file that is no
 * module's has no name, a "<string>" is nobody's. Modules are only added; one that was replaced
 * keeps its file's name.
 */
#include "runtimes/python_object.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum {
	PLACES_MAX = 65536,
	TEXT_BYTES_MAX = 16 << 20,
	ROOTS_MAX = 4096,
	FOLDER_READS = 20, /* what it costs to open one */
};

struct place {
	uint64_t object; /* the module */
	char *module;
	char *file;         /* NULL: has none */
	uint64_t used;      /* items of its namespace when that was looked through */
	int8_t application; /* -1: not, 1: yes, 0: not looked up */
};

struct python_places {
	struct place **all;
	size_t count;
	size_t text_bytes;   /* of all names and files */
	struct hash seen;    /* (name, module) objects → place */
	struct hash files;   /* hash of file → place */
	struct hash names;   /* hash of module → place */
	struct hash bundled; /* hash of folder and package → &installed or &own */
	uint64_t used;
	char *library; /* the standard library's folder, with '/' behind it; NULL: not known */
	char *scripts; /* sys.prefix/bin/ */
};

static const char installed = 1, own = 1;

static uint64_t text_hash(const char *text, size_t length)
{
	uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

	for (size_t i = 0; i < length; i++)
		h = (h ^ (uint8_t)text[i]) * 0x100000001b3;
	return h;
}

static void place_free(struct place *place)
{
	if (!place)
		return;
	free(place->module);
	free(place->file);
	free(place);
}

void python_places_free(struct python_places *places)
{
	if (!places)
		return;
	for (size_t i = 0; i < places->count; i++)
		place_free(places->all[i]);
	free(places->all);
	hash_free(&places->seen);
	hash_free(&places->files);
	hash_free(&places->names);
	hash_free(&places->bundled);
	free(places->library);
	free(places->scripts);
	free(places);
}

static bool place_keep(struct python_places *places, struct place *place)
{
	struct place **all;

	if (places->count >= PLACES_MAX)
		return false;
	if ((places->count & (places->count - 1)) == 0) { /* full: grows at powers of two */
		size_t room = places->count ? places->count * 2 : 1;

		all = reallocarray(places->all, room, sizeof(struct place *));
		if (!all)
			return false;
		places->all = all;
	}
	places->all[places->count++] = place;
	return true;
}

/* Of several modules in a file the one that was imported by name counts: what __main__ runs is
 * loaded once more when another imports it, and that one serves. A module with two names has its
 * first (multiprocessing calls __main__ __mp_main__ too). */
static void place_index(struct python_places *places, struct place *place)
{
	uint64_t key = text_hash(place->module, strlen(place->module));
	struct place *other;

	hash_put(&places->names, key, place);
	if (!place->file)
		return;
	key = text_hash(place->file, strlen(place->file));
	other = (struct place *)hash_get(&places->files, key);
	if (!other || (strcmp(other->module, "__main__") == 0 && other->object != place->object))
		hash_put(&places->files, key, place);
}

struct refresh {
	struct python *p;
	struct python_places *places;
	struct python_name file; /* __file__ */
	bool added;
};

static bool refresh_module(void *ctx, uint64_t name, uint64_t module)
{
	struct refresh *r = (struct refresh *)ctx;
	uint64_t key = name * 31 ^ module, file, dict;
	struct place *place;

	if (hash_get(&r->places->seen, key))
		return true;
	place = (struct place *)calloc(1, sizeof(*place));
	if (!place)
		return false;
	place->object = module;
	place->module = python_text(r->p, name);
	if (!place->module) {
		place_free(place);
		return true;
	}
	dict = python_module_dict(r->p, module);
	file = dict ? python_dict_find(r->p, dict, &r->file) : 0;
	place->file = file ? python_text(r->p, file) : NULL;
	if (python_budget_spent(r->p) || r->places->text_bytes > TEXT_BYTES_MAX) {
		r->p->base.cut = true;
		place_free(place);
		return false;
	}
	r->places->text_bytes += strlen(place->module) + (place->file ? strlen(place->file) : 0);
	if (!hash_put(&r->places->seen, key, place)) {
		place_free(place);
		return false;
	}
	if (!place_keep(r->places, place)) {
		hash_remove(&r->places->seen, key);
		place_free(place);
		return false;
	}
	place_index(r->places, place);
	r->added = true;
	return true;
}

static const struct place *place_named(const struct python_places *places, const char *module)
{
	const struct place *place =
		places ? (const struct place *)hash_get(&places->names,
							text_hash(module, strlen(module)))
		       : NULL;

	return place && strcmp(place->module, module) == 0 ? place : NULL;
}

static char *with_tail(const char *text, size_t length, const char *tail)
{
	struct buf b = { 0 };
	char *joined;

	buf_append(&b, text, length);
	buf_append_str(&b, tail);
	joined = b.failed ? NULL : strdup(buf_cstr(&b));
	buf_free(&b);
	return joined;
}

static void find_library(const struct python *p, struct python_places *places)
{
	const struct place *os = place_named(places, "os");
	uint64_t prefix = python_module_get(p, python_place_object(p, "sys"), "prefix");
	const char *slash = os && os->file ? strrchr(os->file, '/') : NULL;
	char *text;

	if (!places->library && slash)
		places->library = with_tail(os->file, (size_t)(slash - os->file), "/");
	text = !places->scripts && prefix ? python_text(p, prefix) : NULL;
	if (text)
		places->scripts = with_tail(text, strlen(text), "/bin/");
	free(text);
}

bool python_places_refresh(struct python *p)
{
	uint64_t modules = python_modules(p), used = python_dict_used(p, modules);
	struct refresh r = { .p = p, .file.text = "__file__" };

	if (!p->places)
		p->places = (struct python_places *)calloc(1, sizeof(*p->places));
	if (!p->places || used == p->places->used)
		return false;
	r.places = p->places;
	if (python_dict_each(p, modules, refresh_module, &r) && !python_budget_spent(p))
		p->places->used = used;
	if (r.added)
		find_library(p, p->places);
	return r.added;
}

uint64_t python_place_object(const struct python *p, const char *module)
{
	const struct place *place = place_named(p->places, module);

	return place ? place->object : 0;
}

static const struct place *place_of(const struct python_places *places, const char *file)
{
	const struct place *place = places ? (const struct place *)hash_get(
						     &places->files, text_hash(file, strlen(file)))
					   : NULL;

	return place && strcmp(place->file, file) == 0 ? place : NULL;
}

const char *python_place_module(const struct python *p, const char *file)
{
	const struct place *place = place_of(p->places, file);

	return place ? place->module : "";
}

bool python_place_ends(const char *file, const char *suffix)
{
	size_t n = strlen(file), m = strlen(suffix);

	return m <= n && strcmp(file + n - m, suffix) == 0 &&
	       (m == n || suffix[0] == '/' || file[n - m - 1] == '/');
}

void python_place_each(const struct python *p, const char *suffix,
		       bool (*fn)(void *ctx, const char *module), void *ctx)
{
	for (size_t i = 0; p->places && i < p->places->count; i++) {
		const struct place *place = p->places->all[i];

		if (place->file && python_place_ends(place->file, suffix) &&
		    !fn(ctx, place->module))
			return;
	}
}

void python_place_grown(struct python *p, python_namespace_fn fn, void *ctx)
{
	for (size_t i = 0; p->places && i < p->places->count && !python_budget_spent(p); i++) {
		struct place *place = p->places->all[i];
		uint64_t dict, used;

		if (!place->file || place->application < 0)
			continue;
		if (!place->application)
			place->application = python_place_is_application(p, place->file) ? 1 : -1;
		if (python_budget_spent(p)) {
			place->application = 0;
			return;
		}
		if (place->application < 0)
			continue;
		dict = python_module_dict(p, place->object);
		used = python_dict_used(p, dict);
		if (used == place->used)
			continue;
		fn(ctx, dict, place->module, place->file);
		place->used = used;
	}
}

/* --- whose ------------------------------------------------------------------------------------ */

static bool starts(const char *file, const char *prefix)
{
	return prefix && strncmp(file, prefix, strlen(prefix)) == 0;
}

static bool ends_in_py(const char *file)
{
	size_t n = strlen(file);

	return n > 3 && strcmp(file + n - 3, ".py") == 0;
}

/* python311.zip/ and the like: the standard library of embedded and frozen ones. */
static bool in_library_zip(const char *file)
{
	const char *at = strstr(file, "/python3");

	at = at ? strchr(at + 1, '/') : NULL;
	return at && at - file > 4 && strncmp(at - 4, ".zip", 4) == 0;
}

static bool same_name(const char *a, const char *b, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char x = a[i] == '-' || a[i] == '.' ? '_' : a[i];

		if ((x | ('A' <= x && x <= 'Z' ? 0x20 : 0)) !=
		    (b[i] | ('A' <= b[i] && b[i] <= 'Z' ? 0x20 : 0)))
			return false;
	}
	return true;
}

/* Is there a NAME-version.dist-info in the folder? */
static bool has_dist_info(const struct python *p, const char *folder, size_t length,
			  const char *package, size_t package_length)
{
	struct buf path = { 0 };
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	buf_printf(&path, "/proc/%u/root", p->base.pid);
	buf_append(&path, folder, length);
	dir = path.failed || !python_budget_take(p, FOLDER_READS) ? NULL : opendir(buf_cstr(&path));
	buf_free(&path);
	while (dir && !found && (entry = readdir(dir)) != NULL && python_budget_take(p, 1)) {
		const char *name = entry->d_name;

		found = strlen(name) > package_length && name[package_length] == '-' &&
			strstr(name, ".dist-info") && same_name(name, package, package_length);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* A library that lies beside the application (pip install --target) has its dist-info beside it. */
static bool is_bundled(const struct python *p, const char *file)
{
	const struct place *place = place_of(p->places, file);
	size_t top, length = strlen(file);
	const void *known;
	uint64_t key;

	if (!place || file[0] != '/')
		return false;
	top = strcspn(place->module, ".");
	/* as many folders up as the module's name has parts */
	for (const char *dot = place->module; dot; dot = strchr(dot + 1, '.'))
		while (length && file[--length] != '/')
			;
	if (python_place_ends(file, "__init__.py"))
		while (length && file[--length] != '/')
			;
	if (strncmp(file + length + 1, place->module, top) != 0)
		return false; /* it isn't where its name says */
	key = text_hash(file, length + 1 + top);
	known = hash_get(&p->places->bundled, key);
	if (!known && p->places->bundled.count < ROOTS_MAX) {
		known = has_dist_info(p, file, length, place->module, top) ? &installed : &own;
		if (python_budget_spent(p))
			return false;
		hash_put(&p->places->bundled, key, (void *)(uintptr_t)known);
	}
	return known == &installed;
}

bool python_place_is_application(const struct python *p, const char *file)
{
	if (!file[0] || file[0] == '<' || strstr(file, "/site-packages/") ||
	    strstr(file, "/dist-packages/") || in_library_zip(file))
		return false;
	if (!p->places)
		return true;
	if (starts(file, p->places->library))
		return false;
	if (starts(file, p->places->scripts) && !ends_in_py(file))
		return false; /* uvicorn, gunicorn as they were installed */
	return !is_bundled(p, file);
}
