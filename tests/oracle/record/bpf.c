// SPDX-License-Identifier: Apache-2.0
/* Answers libbpf's bpf(2) and records what it asked. Descriptors are memfds: libbpf maps and closes them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "record.h"

/* BPF_MAP_TYPE_ARENA */
#define ARENA 33
#define PAGE 4096ULL

struct object *objects;
static struct object **last = &objects;
/* By descriptor. */
static struct object **known;
static int known_count;

struct object *object_of(int fd)
{
	return fd >= 0 && fd < known_count ? known[fd] : NULL;
}

static void *pointer(__u64 address)
{
	return (void *)(unsigned long)address;
}

static int learn(int fd, struct object *object)
{
	if (fd >= known_count) {
		int count = 2 * fd + 64;

		known = realloc(known, count * sizeof(*known));
		if (!known)
			die("no memory");
		memset(known + known_count, 0, (count - known_count) * sizeof(*known));
		known_count = count;
	}
	known[fd] = object;
	return fd;
}

static struct object *make(int kind)
{
	struct object *new = allocate(sizeof(*new));

	new->kind = kind;
	*last = new;
	last = &new->next;
	return new;
}

/* The kernel's answer to the command that is being recorded, if it is asked. */
static int kernel_answer;

static int descriptor(struct object *object, unsigned long long size)
{
	int fd;

	if (real)
		return learn(kernel_answer, object);
	fd = memfd_create("record", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (size + PAGE - 1) / PAGE * PAGE))
		die("memfd of %llu bytes: %s", size, strerror(errno));
	return learn(fd, object);
}

static int load_btf(const union bpf_attr *attr)
{
	struct object *new = make(BTF);

	new->btf.len = attr->btf_size;
	new->btf.bytes = copy(pointer(attr->btf), attr->btf_size);
	return descriptor(new, 0);
}

static int create_map(const void *attr, size_t len)
{
	struct object *new = make(MAP);
	struct map_create *map = &new->map.attr;

	memcpy(map, attr, len < sizeof(*map) ? len : sizeof(*map));
	if (map->excl_prog_hash)
		memcpy(new->map.hash, pointer(map->excl_prog_hash), sizeof(new->map.hash));
	if (map->inner_map_fd)
		new->map.inner = object_of(map->inner_map_fd);
	if (map->map_type == ARENA)
		return descriptor(new, map->max_entries * PAGE);
	return descriptor(new, map->map_flags & BPF_F_MMAPABLE ? (map->value_size + 7ULL) / 8 * 8 * map->max_entries : 0);
}

static void add_slot(struct slot **slots, __u32 key, struct object *value)
{
	struct slot *new = allocate(sizeof(*new));

	*new = (struct slot){ key, value, NULL };
	while (*slots)
		slots = &(*slots)->next;
	*slots = new;
}

static int fail(int error)
{
	errno = error;
	return -1;
}

static int update_map(const union bpf_attr *attr)
{
	struct object *map = object_of(attr->map_fd);
	struct object *value;

	if (!map || map->kind != MAP)
		die("an update of what is no map");
	switch (map->map.attr.map_type) {
	case BPF_MAP_TYPE_PROG_ARRAY:
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_HASH_OF_MAPS:
		value = object_of(*(int *)pointer(attr->value));
		/* libbpf does so for a program that it did not load, be the map used or not; the kernel refuses it. */
		add_slot(&map->map.slots, *(__u32 *)pointer(attr->key), value);
		return 0;
	default:
		map->map.data = copy(pointer(attr->value), map->map.attr.value_size);
		return 0;
	}
}

static int freeze_map(const union bpf_attr *attr)
{
	object_of(attr->map_fd)->map.frozen = true;
	return 0;
}

static int load_prog(const void *attr, size_t len)
{
	struct object *new = make(PROG);
	struct prog_load *prog = &new->prog.attr;

	memcpy(prog, attr, len < sizeof(*prog) ? len : sizeof(*prog));
	new->prog.license = strdup(pointer(prog->license));
	new->prog.insns = copy(pointer(prog->insns), prog->insn_cnt * sizeof(struct bpf_insn));
	new->prog.loads = allocate(prog->insn_cnt * sizeof(struct object *));
	for (__u32 i = 0; i < prog->insn_cnt; i++) {
		const struct bpf_insn *insn = &new->prog.insns[i];

		if (insn->code != (BPF_LD | BPF_IMM | BPF_DW))
			continue;
		if (insn->src_reg == BPF_PSEUDO_MAP_FD || insn->src_reg == BPF_PSEUDO_MAP_VALUE)
			new->prog.loads[i] = object_of(insn->imm);
		i++;
	}
	new->prog.func_info = copy(pointer(prog->func_info), prog->func_info_cnt * prog->func_info_rec_size);
	new->prog.line_info = copy(pointer(prog->line_info), prog->line_info_cnt * prog->line_info_rec_size);
	return descriptor(new, 0);
}

static int bind_map(const union bpf_attr *attr)
{
	add_slot(&object_of(attr->prog_bind_map.prog_fd)->prog.bound, 0, object_of(attr->prog_bind_map.map_fd));
	return 0;
}

static int answer(int command, union bpf_attr *attr, size_t len)
{
	switch (command) {
	case BPF_BTF_LOAD: return load_btf(attr);
	case BPF_MAP_CREATE: return create_map(attr, len);
	case BPF_MAP_UPDATE_ELEM: return update_map(attr);
	case BPF_MAP_FREEZE: return freeze_map(attr);
	case BPF_PROG_LOAD: return load_prog(attr, len);
	case BPF_PROG_BIND_MAP: return bind_map(attr);
	/* There are no modules. */
	case BPF_BTF_GET_NEXT_ID: return fail(ENOENT);
	default: die("libbpf calls bpf(2) with command %d, to which there is no answer", command);
	}
}

static bool is_recorded(int command)
{
	return command == BPF_BTF_LOAD || command == BPF_MAP_CREATE || command == BPF_MAP_UPDATE_ELEM ||
	       command == BPF_MAP_FREEZE || command == BPF_PROG_LOAD || command == BPF_PROG_BIND_MAP;
}

long __real_syscall(long number, ...);

/* What the kernel refuses is not recorded: libbpf tries in other ways. */
static int ask_kernel(int command, union bpf_attr *attr, size_t len)
{
	kernel_answer = __real_syscall(SYS_bpf, command, attr, len);
	if (kernel_answer >= 0 && is_recorded(command))
		return answer(command, attr, len);
	return kernel_answer;
}

/* glibc's syscall(2), as libbpf's archive was linked to it (--wrap). */
long __wrap_syscall(long number, ...)
{
	va_list args;
	long a, b, c, d, e;

	va_start(args, number);
	a = va_arg(args, long);
	b = va_arg(args, long);
	c = va_arg(args, long);
	d = va_arg(args, long);
	e = va_arg(args, long);
	va_end(args);
	if (number == SYS_bpf && !real)
		return answer(a, (void *)b, c);
	if (number == SYS_bpf)
		return ask_kernel(a, (void *)b, c);
	if (number == SYS_dup3) {
		learn(b, object_of(a));
		return __real_syscall(number, a, b, c);
	}
	if (number == SYS_memfd_create)
		return __real_syscall(number, a, b);
	if (real)
		return __real_syscall(number, a, b, c, d, e);
	die("libbpf makes system call %ld, to which there is no answer", number);
}
