// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: refused before a kernel is asked, as extern-variable is, although only the address of the variable is
 * taken. */
// programs: prog
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} out SEC(".maps");

extern int somewhere;

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	__u32 key = 0;
	__u64 value = (__u64)&somewhere;

	bpf_map_update_elem(&out, &key, &value, BPF_ANY);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
