// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: count loads. The struct_ops beside it, which the kernel may lack, is of no concern to it. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct tcp_congestion_ops {
	char name[16];
	unsigned int (*ssthresh)(void *sk);
};

struct never_was_ops {
	int (*act)(void);
};

SEC("struct_ops/ssthresh") unsigned int ssthresh(unsigned long long *ctx)
{
	return 4;
}

SEC("struct_ops/act") int act(unsigned long long *ctx)
{
	return 0;
}

SEC(".struct_ops") struct tcp_congestion_ops own = { .name = "own", .ssthresh = (void *)ssthresh };
SEC(".struct_ops.link") struct never_was_ops never = { .act = (void *)act };

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
