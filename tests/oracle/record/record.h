/* SPDX-License-Identifier: Apache-2.0 */
/* What libbpf asked of bpf(2), and the facts about a kernel that it is answered from. */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <linux/bpf.h>

/* The fields of union bpf_attr for BPF_MAP_CREATE, as Linux 7.2 has them. */
struct map_create {
	__u32 map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node;
	char map_name[16];
	__u32 map_ifindex, btf_fd, btf_key_type_id, btf_value_type_id, btf_vmlinux_value_type_id;
	__u64 map_extra;
	__s32 value_type_btf_obj_fd, map_token_fd;
	__u64 excl_prog_hash;
	__u32 excl_prog_hash_size;
};

/* The same for BPF_PROG_LOAD. */
struct prog_load {
	__u32 prog_type, insn_cnt;
	__u64 insns, license;
	__u32 log_level, log_size;
	__u64 log_buf;
	__u32 kern_version, prog_flags;
	char prog_name[16];
	__u32 prog_ifindex, expected_attach_type, prog_btf_fd, func_info_rec_size;
	__u64 func_info;
	__u32 func_info_cnt, line_info_rec_size;
	__u64 line_info;
	__u32 line_info_cnt, attach_btf_id, attach_btf_obj_fd, core_relo_cnt;
	__u64 fd_array;
};

struct slot {
	__u32 key;
	struct object *value;
	struct slot *next;
};

/* A thing that libbpf made. */
struct object {
	enum { BTF, MAP, PROG } kind;
	/* The variable, section or function, "" for the object's BTF; NULL for what libbpf made only to try. */
	const char *name;
	struct object *next;
	union {
		struct {
			size_t len;
			void *bytes;
		} btf;
		struct {
			struct map_create attr;
			unsigned char hash[32];
			struct object *inner;
			void *data;
			bool frozen;
			struct slot *slots;
		} map;
		struct {
			struct prog_load attr;
			char *license;
			struct bpf_insn *insns;
			/* By instruction: the object whose descriptor it loads. */
			struct object **loads;
			void *func_info, *line_info;
			struct slot *bound;
		} prog;
	};
};

/* All objects in the order in which libbpf made them. */
extern struct object *objects;

/* Returns what a descriptor stands for. */
struct object *object_of(int fd);

/* Reads a table, as README.md describes them. */
void read_table(const char *path, const char *kernel_btf);

/* Whether the machine's own kernel answers, instead of a table. */
extern bool real;

struct bpf_object;

/* Sets what an argument says, as README.md describes it, unless it is none of a setting. */
bool set(struct bpf_object *object, char *argument);

void print_objects(FILE *out);

/* Ends with a message: this tool has failed. */
void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void *allocate(size_t len);
void *copy(const void *from, size_t len);

#endif
