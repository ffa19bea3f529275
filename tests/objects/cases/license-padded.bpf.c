// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads as GPL. A licence ends at its first NUL, and what follows is nothing. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[16] SEC("license") = "GPL";
