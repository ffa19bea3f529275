// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, or is refused in words that say the size and the bound. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char buffer[3 << 20];

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	buffer[ops->op & 1023] = 1;
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
