// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: both load where the spec says what each is for, which their section does not. */
// programs: first=cgroup_skb/ingress second=cgroup_skb/egress
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 2);
} packets SEC(".maps");

static __always_inline int count(__u32 slot)
{
	__u64 *seen = bpf_map_lookup_elem(&packets, &slot);
	if (seen)
		__sync_fetch_and_add(seen, 1);
	return 1;
}

SEC("cgroup/skb") int first(struct __sk_buff *skb)
{
	return count(0);
}

SEC("cgroup/skb") int second(struct __sk_buff *skb)
{
	return count(1);
}

char LICENSE[] SEC("license") = "GPL";
