// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: as libbpf, this links functions that call themselves and each other; whether they run, the kernel decides. */
// programs: prog
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__attribute__((noinline)) int odd(int x);

__attribute__((noinline)) int even(int x)
{
	return x ? odd(x - 1) : 1;
}

__attribute__((noinline)) int odd(int x)
{
	return x ? even(x - 1) : 0;
}

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	return even(ops->op);
}

char LICENSE[] SEC("license") = "GPL";
