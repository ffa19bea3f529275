// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, also after `bpftool gen object` of bpftool 7.8, which writes a BTF header of 32 bytes that kernels
 * before 7.2 refuse. Without BTF, the kernel refuses the map. built/bpftool-7.8 has that object. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct value {
	struct bpf_spin_lock lock;
	int n;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, int);
	__type(value, struct value);
	__uint(max_entries, 8);
} m SEC(".maps");

SEC("cgroup_skb/egress") int count(struct __sk_buff *skb)
{
	int key = 0;
	struct value *value = bpf_map_lookup_elem(&m, &key);

	if (value) {
		bpf_spin_lock(&value->lock);
		value->n++;
		bpf_spin_unlock(&value->lock);
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
