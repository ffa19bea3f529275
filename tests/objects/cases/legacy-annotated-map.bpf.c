// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, as other objects with legacy maps; libbpf 1.0 and newer refuse them. The section .maps.counts only
 * names the types of the map's keys and values, as BPF_ANNOTATE_KV_PAIR of libbpf before 0.7 did. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct bpf_map_def {
	unsigned int type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") counts = {
	.type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 4,
};

struct ____btf_map_counts {
	int key;
	long value;
};

struct ____btf_map_counts __attribute__((section(".maps.counts"), used)) ____btf_map_counts = {};

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	int key = 0;
	long *value = bpf_map_lookup_elem(&counts, &key);

	if (value)
		*value += 1;
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
