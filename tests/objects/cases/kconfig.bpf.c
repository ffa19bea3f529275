// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, and the program finds the kernel's version. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int LINUX_KERNEL_VERSION __kconfig;

int recent;

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	recent = LINUX_KERNEL_VERSION >= 0x60100;
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
