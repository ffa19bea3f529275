// SPDX-License-Identifier: Apache-2.0
/* record OBJECT TABLE KERNEL_BTF [PROGRAM[=SECTION]|SETTING]...: prints what libbpf passes to bpf(2) to load these
 * programs, as README.md describes it. SECTION stands for the program's own section. With - as TABLE, loads them into
 * this machine's kernel. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <bpf/libbpf.h>
#include "record.h"

/* What libbpf warned of first and last. */
static char first_warning[512], last_warning[512];

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("record: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	exit(1);
}

void *allocate(size_t len)
{
	void *new = calloc(1, len ? len : 1);

	if (!new)
		die("no memory");
	return new;
}

void *copy(const void *from, size_t len)
{
	void *to = allocate(len);

	return len ? memcpy(to, from, len) : to;
}

static int note(enum libbpf_print_level level, const char *format, va_list args)
{
	if (getenv("RECORD_VERBOSE")) {
		va_list again;

		va_copy(again, args);
		vfprintf(stderr, format, again);
		va_end(again);
	}
	if (level != LIBBPF_WARN)
		return 0;
	vsnprintf(last_warning, sizeof(last_warning), format, args);
	last_warning[strcspn(last_warning, "\n")] = 0;
	if (!*first_warning)
		strcpy(first_warning, last_warning);
	return 0;
}

static int refused(const char *step, int error)
{
	printf("refused %s: %s; %s\n", step, strerror(abs(error)), last_warning);
	if (strcmp(first_warning, last_warning))
		printf("# %s\n", first_warning);
	return 0;
}

static void set_section(struct bpf_program *program, const char *section)
{
	enum bpf_prog_type type;
	enum bpf_attach_type attach;

	if (libbpf_prog_type_by_name(section, &type, &attach))
		die("libbpf has no section %s", section);
	bpf_program__set_type(program, type);
	bpf_program__set_expected_attach_type(program, attach);
}

/* Returns the name of one program that the object lacks. */
static const char *choose(struct bpf_object *object, int count, char **names)
{
	struct bpf_program *program;

	if (count)
		bpf_object__for_each_program(program, object)
			bpf_program__set_autoload(program, false);
	for (int i = 0; i < count; i++) {
		char *name = strtok(names[i], "="), *section = strtok(NULL, "");

		program = bpf_object__find_program_by_name(object, name);
		if (!program)
			return name;
		bpf_program__set_autoload(program, true);
		if (section)
			set_section(program, section);
	}
	return NULL;
}

static void name_objects(struct bpf_object *object)
{
	struct bpf_program *program;
	struct bpf_map *map;

	if (object_of(bpf_object__btf_fd(object)))
		object_of(bpf_object__btf_fd(object))->name = "";
	bpf_object__for_each_map(map, object) {
		struct object *made = object_of(bpf_map__fd(map));
		const char *name = bpf_map__name(map);

		if (!made)
			continue;
		/* libbpf gives .rodata, .data, .bss and .kconfig the object's name as a prefix. */
		made->name = bpf_map__is_internal(map) ? strrchr(name, '.') : name;
		if (*name == '.')
			made->name = name;
	}
	bpf_object__for_each_program(program, object) {
		int fd = bpf_program__fd(program);

		if (fd >= 0 && object_of(fd))
			object_of(fd)->name = bpf_program__name(program);
	}
}

int main(int argc, char **argv)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .bpf_token_path = "", .object_name = "object");
	struct bpf_object *object;
	struct bpf_map *map;
	const char *missing;
	int error, count = 0;

	if (argc < 4)
		die("usage: record OBJECT TABLE KERNEL_BTF [PROGRAM[=SECTION]|SETTING]...");
	if (access(argv[1], R_OK) || access(argv[3], R_OK))
		die("%s or %s can't be read", argv[1], argv[3]);
	real = !strcmp(argv[2], "-");
	if (!real)
		read_table(argv[2], argv[3]);
	libbpf_set_print(note);
	object = bpf_object__open_file(argv[1], &opts);
	if (!object)
		return refused("open", errno);
	/* What is no setting is a program. */
	for (int i = 4; i < argc; i++)
		if (!set(object, argv[i]))
			argv[4 + count++] = argv[i];
	missing = choose(object, count, argv + 4);
	if (missing) {
		printf("refused open: there is no program %s\n", missing);
		return 0;
	}
	/* sockeye pins maps where it keeps its own. */
	bpf_object__for_each_map(map, object)
		bpf_map__set_pin_path(map, NULL);
	error = bpf_object__load(object);
	if (error)
		return refused("load", error);
	name_objects(object);
	print_objects(stdout);
	bpf_object__close(object);
	return 0;
}
