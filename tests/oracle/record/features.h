/* SPDX-License-Identifier: Apache-2.0 */
/* enum kern_feature_id of libbpf 1.7.0 (libbpf_internal.h): FEAT_ names in lower case, by number. */
static const char *const feature_names[] = {
	"prog_name", "global_data", "btf", "btf_func", "btf_datasec", "btf_global_func", "array_mmap", "exp_attach_type",
	"probe_read_kern", "prog_bind_map", "module_btf", "btf_float", "perf_link", "btf_decl_tag", "btf_type_tag",
	"memcg_account", "bpf_cookie", "btf_enum64", "syscall_wrapper", "uprobe_multi_link", "arg_ctx_tag",
	"btf_qmark_datasec", "ldimm64_full_range_off", "uprobe_syscall",
};
#define FEATURES (sizeof(feature_names) / sizeof(*feature_names))
