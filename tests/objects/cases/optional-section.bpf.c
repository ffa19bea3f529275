// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: both programs load. A question mark says that a loader does not choose the program by itself; here it is
 * named. */
// programs: maybe always
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("?sockops") int maybe(struct bpf_sock_ops *ops)
{
	return 1;
}

SEC("cgroup/connect4") int always(struct bpf_sock_addr *ctx)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
