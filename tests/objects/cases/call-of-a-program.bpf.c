// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, with a copy of the program that is called as a function; libbpf calls only functions in .text. */
// programs: outer
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("sockops") __attribute__((noinline)) int inner(struct bpf_sock_ops *ops)
{
	return ops->op;
}

SEC("sockops/outer") int outer(struct bpf_sock_ops *ops)
{
	return inner(ops) + 1;
}

char LICENSE[] SEC("license") = "GPL";
