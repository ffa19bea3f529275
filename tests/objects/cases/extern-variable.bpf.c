// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: refused before a kernel is asked: the variable is defined in another object, with which this one was not
 * linked. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int elsewhere;

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return elsewhere & 1;
}

char LICENSE[] SEC("license") = "GPL";
