// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, without BTF too. Two programs call the same functions in .text, which call each other; there is no
 * map.
 */
// programs: drop send
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static __attribute__((noinline)) int is_short(unsigned int len)
{
	return len < 64;
}

__attribute__((noinline)) int weight(unsigned int len, unsigned int mark)
{
	return is_short(len) ? 1 : (int)(len / (mark | 1));
}

SEC("cgroup_skb/ingress") int drop(struct __sk_buff *skb)
{
	return weight(skb->len, skb->mark) < 100;
}

SEC("cgroup_skb/egress") int send(struct __sk_buff *skb)
{
	return weight(skb->len, 7) + is_short(skb->len) > 1;
}

char LICENSE[] SEC("license") = "GPL";
