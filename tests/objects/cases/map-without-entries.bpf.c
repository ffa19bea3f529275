// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: refused before a kernel is asked, with the name of the map, unless the spec says how many entries it has.
 * libbpf leaves the refusal to the kernel. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, int);
	__type(value, long);
} m SEC(".maps");

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	int key = 0;

	return bpf_map_lookup_elem(&m, &key) ? 0 : 1;
}

char LICENSE[] SEC("license") = "GPL";
