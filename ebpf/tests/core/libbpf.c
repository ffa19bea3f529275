// SPDX-License-Identifier: Apache-2.0
/* Relocates instructions by libbpf's own functions, which its archive has under these names (src/relo_core.h).
 *
 * Reads cases from standard input: the length of the object's BTF and its bytes, the length of the kernel's BTF and its
 * bytes (0: as before), the number of relocations, and for each a struct bpf_core_relo and two instructions. Writes for
 * each the error or 0, the two instructions, and the text of the spec with its length. All relocations of a case belong
 * to one object, but an error begins a new one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

struct bpf_core_cand {
	const struct btf *btf;
	__u32 id;
};

struct bpf_core_cand_list {
	struct bpf_core_cand *cands;
	int len;
};

struct bpf_core_accessor {
	__u32 type_id;
	__u32 idx;
	const char *name;
};

struct bpf_core_spec {
	const struct btf *btf;
	struct bpf_core_accessor spec[64];
	__u32 root_type_id;
	enum bpf_core_relo_kind relo_kind;
	int len;
	int raw_spec[64];
	int raw_len;
	__u32 bit_offset;
};

struct bpf_core_relo_res {
	__u64 orig_val;
	__u64 new_val;
	bool poison;
	bool validate;
	bool fail_memsz_adjust;
	__u32 orig_sz;
	__u32 orig_type_id;
	__u32 new_sz;
	__u32 new_type_id;
};

size_t bpf_core_essential_name_len(const char *name);
int bpf_core_add_cands(struct bpf_core_cand *local, size_t len, const struct btf *target, const char *target_name,
		       int start, struct bpf_core_cand_list *cands);
void bpf_core_free_cands(struct bpf_core_cand_list *cands);
int bpf_core_calc_relo_insn(const char *prog, const struct bpf_core_relo *relo, int index, const struct btf *local,
			    struct bpf_core_cand_list *cands, struct bpf_core_spec *specs,
			    struct bpf_core_relo_res *res);
int bpf_core_patch_insn(const char *prog, struct bpf_insn *insn, int insn_idx, const struct bpf_core_relo *relo,
			int index, const struct bpf_core_relo_res *res);
int bpf_core_parse_spec(const char *prog, const struct btf *btf, const struct bpf_core_relo *relo,
			struct bpf_core_spec *spec);
int bpf_core_format_spec(char *buf, size_t len, const struct bpf_core_spec *spec);

static void get(void *to, size_t len)
{
	if (len && fread(to, len, 1, stdin) != 1)
		exit(feof(stdin) ? 3 : 1);
}

static struct btf *get_btf(void)
{
	struct btf *btf;
	void *bytes;
	__u32 len;

	get(&len, sizeof(len));
	if (!len)
		return NULL;
	bytes = malloc(len);
	get(bytes, len);
	btf = btf__new(bytes, len);
	if (!btf) {
		fprintf(stderr, "libbpf refuses the BTF of a case: %s\n", strerror(errno));
		exit(2);
	}
	free(bytes);
	return btf;
}

/* libbpf's bpf_core_resolve_relo and bpf_core_find_cands, which are static. */
static int resolve(const struct btf *local, const struct btf *target, struct bpf_core_cand_list **cache,
		   const struct bpf_core_relo *relo, struct bpf_core_relo_res *res)
{
	static struct bpf_core_spec scratch[3];
	const struct btf_type *type = btf__type_by_id(local, relo->type_id);
	const char *name;
	int error;

	if (!type)
		return -EINVAL;
	name = btf__name_by_offset(local, type->name_off);
	if (!name)
		return -EINVAL;
	if (relo->kind != BPF_CORE_TYPE_ID_LOCAL && !cache[relo->type_id]) {
		struct bpf_core_cand root = { .btf = local, .id = relo->type_id };
		struct bpf_core_cand_list *cands = calloc(1, sizeof(*cands));

		if (!*name)
			return -EINVAL;
		error = bpf_core_add_cands(&root, bpf_core_essential_name_len(name), target, "vmlinux", 1, cands);
		if (error)
			return error;
		cache[relo->type_id] = cands;
	}
	memset(scratch, 0, sizeof(scratch));
	return bpf_core_calc_relo_insn("p", relo, 0, local, cache[relo->type_id], scratch, res);
}

static int quiet(enum libbpf_print_level level __attribute__((unused)), const char *format, va_list args)
{
	return getenv("VERBOSE") ? vfprintf(stderr, format, args) : 0;
}

int main(void)
{
	struct btf *local = NULL, *target = NULL;
	__u32 len;

	libbpf_set_print(quiet);
	for (;;) {
		struct bpf_core_cand_list **cache;
		struct btf *next;
		__u32 count;

		local = get_btf();
		/* As libbpf does with the BTF of an object, and not with the kernel's. */
		btf__set_pointer_size(local, 8);
		next = get_btf();
		if (next) {
			btf__free(target);
			target = next;
		}
		get(&count, sizeof(count));
		cache = calloc(btf__type_cnt(local), sizeof(*cache));
		for (__u32 i = 0; i < count; i++) {
			struct bpf_core_relo_res res = {};
			struct bpf_core_spec spec;
			struct bpf_core_relo relo;
			struct bpf_insn insn[2];
			char text[256] = "";
			int error;

			get(&relo, sizeof(relo));
			get(insn, sizeof(insn));
			if (btf__type_by_id(local, relo.type_id) && !bpf_core_parse_spec("p", local, &relo, &spec))
				bpf_core_format_spec(text, sizeof(text), &spec);
			error = resolve(local, target, cache, &relo, &res);
			if (!error)
				error = bpf_core_patch_insn("p", insn, 0, &relo, 0, &res);
			len = strlen(text);
			fwrite(&error, sizeof(error), 1, stdout);
			fwrite(insn, sizeof(insn), 1, stdout);
			fwrite(&len, sizeof(len), 1, stdout);
			fwrite(text, len, 1, stdout);
			for (__u32 id = 0; error && id < btf__type_cnt(local); id++) {
				bpf_core_free_cands(cache[id]);
				cache[id] = NULL;
			}
		}
		fflush(stdout);
		for (__u32 id = 0; id < btf__type_cnt(local); id++)
			bpf_core_free_cands(cache[id]);
		free(cache);
		btf__free(local);
	}
}
