// SPDX-License-Identifier: Apache-2.0
/* Prints what was recorded, as README.md describes it. */
#include "record.h"

static FILE *out;

static void hex(const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		fprintf(out, "%02x", ((const unsigned char *)bytes)[i]);
}

static void number(const char *prefix, const char *name, long long value)
{
	if (value)
		fprintf(out, "  %s%s %lld\n", prefix, name, value);
}

static void print_btf(const struct object *btf)
{
	fputs("btf ", out);
	hex(btf->btf.bytes, btf->btf.len);
	fputc('\n', out);
}

static void print_definition(const char *prefix, const struct object *map)
{
	const struct map_create *attr = &map->map.attr;

	if (*attr->map_name)
		fprintf(out, "  %sname %.16s\n", prefix, attr->map_name);
	number(prefix, "type", attr->map_type);
	number(prefix, "key_size", attr->key_size);
	number(prefix, "value_size", attr->value_size);
	number(prefix, "max_entries", attr->max_entries);
	number(prefix, "flags", attr->map_flags);
	if (attr->map_extra)
		fprintf(out, "  %sextra %llu\n", prefix, attr->map_extra);
	number(prefix, "numa_node", attr->numa_node);
	number(prefix, "ifindex", attr->map_ifindex);
	number(prefix, "btf_key_type_id", attr->btf_key_type_id);
	number(prefix, "btf_value_type_id", attr->btf_value_type_id);
	number(prefix, "btf_vmlinux_value_type_id", attr->btf_vmlinux_value_type_id);
	if (attr->btf_fd)
		fprintf(out, "  %sbtf\n", prefix);
	if (attr->excl_prog_hash) {
		fprintf(out, "  %sexclusive ", prefix);
		hex(map->map.hash, sizeof(map->map.hash));
		fputc('\n', out);
	}
	if (attr->map_token_fd || attr->value_type_btf_obj_fd)
		die("map %s has descriptors that README.md does not know", map->name);
}

static void print_data(const unsigned char *data, size_t len)
{
	static const unsigned char zeros[16];

	for (size_t at = 0; at < len; at += 16) {
		size_t part = len - at < 16 ? len - at : 16;

		if (!__builtin_memcmp(data + at, zeros, part))
			continue;
		fprintf(out, "  data %zu ", at);
		hex(data + at, part);
		fputc('\n', out);
	}
}

static void print_map(const struct object *map)
{
	fprintf(out, "map %s\n", map->name);
	print_definition("", map);
	if (map->map.inner)
		print_definition("inner.", map->map.inner);
	if (map->map.data)
		print_data(map->map.data, map->map.attr.value_size);
	if (map->map.frozen)
		fputs("  frozen\n", out);
	for (const struct slot *slot = map->map.slots; slot; slot = slot->next)
		fprintf(out, "  slot %u %s %s\n", slot->key, slot->value->kind == PROG ? "prog" : "map", slot->value->name);
}

static void print_insns(const struct object *prog)
{
	for (__u32 i = 0; i < prog->prog.attr.insn_cnt; i++) {
		const struct bpf_insn *insn = &prog->prog.insns[i];

		fprintf(out, "  insn %02x %u %u %d ", insn->code, insn->dst_reg, insn->src_reg, insn->off);
		if (prog->prog.loads[i])
			fprintf(out, "map:%s\n", prog->prog.loads[i]->name);
		else
			fprintf(out, "%d\n", insn->imm);
	}
}

static void print_info(const struct object *prog)
{
	const struct prog_load *attr = &prog->prog.attr;

	for (__u32 i = 0; i < attr->func_info_cnt; i++) {
		const struct bpf_func_info *info = prog->prog.func_info + i * attr->func_info_rec_size;

		fprintf(out, "  func %u %u\n", info->insn_off, info->type_id);
	}
	for (__u32 i = 0; i < attr->line_info_cnt; i++) {
		const struct bpf_line_info *info = prog->prog.line_info + i * attr->line_info_rec_size;

		fprintf(out, "  line %u %u %u %u\n", info->insn_off, info->file_name_off, info->line_off, info->line_col);
	}
}

static void print_prog(const struct object *prog)
{
	const struct prog_load *attr = &prog->prog.attr;

	fprintf(out, "prog %s\n", prog->name);
	if (*attr->prog_name)
		fprintf(out, "  name %.16s\n", attr->prog_name);
	number("", "type", attr->prog_type);
	number("", "attach", attr->expected_attach_type);
	number("", "flags", attr->prog_flags);
	if (*prog->prog.license)
		fprintf(out, "  licence %s\n", prog->prog.license);
	number("", "kern_version", attr->kern_version);
	number("", "ifindex", attr->prog_ifindex);
	number("", "attach_btf_id", attr->attach_btf_id);
	if (attr->attach_btf_obj_fd)
		fputs("  attach_to a descriptor\n", out);
	if (attr->prog_btf_fd)
		fputs("  btf\n", out);
	print_insns(prog);
	print_info(prog);
	for (const struct slot *slot = prog->prog.bound; slot; slot = slot->next)
		fprintf(out, "  bind %s\n", slot->value->name);
}

void print_objects(FILE *to)
{
	const struct object *object;

	out = to;
	for (object = objects; object; object = object->next) {
		if (!object->name)
			continue;
		if (object->kind == BTF)
			print_btf(object);
		else if (object->kind == MAP)
			print_map(object);
		else
			print_prog(object);
	}
}
