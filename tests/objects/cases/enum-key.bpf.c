// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads and counts. The kernel refuses an array whose key is an enum by its BTF; the map is then made without
 * BTF. */
// programs: prog
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum which { OPENED, ACCEPTED, N };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, N);
	__type(key, enum which);
	__type(value, __u64);
} counts SEC(".maps");

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	enum which at = ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB ? ACCEPTED : OPENED;
	__u64 *n = bpf_map_lookup_elem(&counts, &at);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
