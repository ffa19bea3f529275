// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: the kernel refuses the program, which calls a function that is for GPL programs only. Who gives no licence
 * has not said GPL. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	bpf_printk("op %d", ops->op);
	return 1;
}
