// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: count loads. What the section of another program means is of no concern to it. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int on_packet(struct __sk_buff *skb)
{
	return 0;
}

SEC("nothing/that/any/loader/knows") int own(void *ctx)
{
	return 0;
}

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
