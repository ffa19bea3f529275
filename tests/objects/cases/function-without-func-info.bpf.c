// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads without func_info, or is refused with the function's name. clang 19 and newer gives a function with
 * nodebug no record in .BTF.ext, and the kernel wants one for each function or none; built/clang-19 has that
 * object. */
// programs: call_bare
// compiler: clang-19
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

static __attribute__((noinline, nodebug)) int bare(int x)
{
	asm volatile("%0 += 5" : "+r"(x));
	return x;
}

SEC("sockops") int call_bare(struct bpf_sock_ops *ops)
{
	__u32 zero = 0;
	__u64 value = bare(ops->op);

	bpf_map_update_elem(&seen, &zero, &value, BPF_ANY);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
