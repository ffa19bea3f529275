// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads. The kernel finds the spin lock by the BTF of the data section, so the map is made with it. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define private(n) SEC(".data." #n) __hidden __attribute__((aligned(8)))

private(A) struct bpf_spin_lock lock;
private(A) int n;

SEC("cgroup_skb/egress") int count(struct __sk_buff *skb)
{
	bpf_spin_lock(&lock);
	n++;
	bpf_spin_unlock(&lock);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
