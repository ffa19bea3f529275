// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads. The size of a type that the kernel lacks is 0, as bpf_core_read.h says. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct not_in_any_kernel {
	int x;
};

int size;

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	if (bpf_core_type_exists(struct not_in_any_kernel))
		size = bpf_core_type_size(struct not_in_any_kernel);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
