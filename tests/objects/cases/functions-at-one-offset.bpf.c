// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: packets of more than 100 bytes are dropped, or the object is refused because it has static functions in
 * another section than .text, as libbpf refuses it. Two functions begin at the same offset of different sections: a
 * loader that knows functions by offset alone calls allow() where deny() is called. */
// programs: filter
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static __attribute__((noinline)) int allow(int x)
{
	asm volatile("" : "+r"(x));
	return x >= 0;
}

/* clang puts it into .text.unlikely. */
static __attribute__((noinline, cold)) int deny(int x)
{
	asm volatile("" : "+r"(x));
	return x < 0;
}

SEC("cgroup_skb/egress") int filter(struct __sk_buff *skb)
{
	int verdict = allow(1);

	if (skb->len > 100)
		verdict = deny(1);
	return verdict & 1;
}

char LICENSE[] SEC("license") = "GPL";
