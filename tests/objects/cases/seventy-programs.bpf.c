// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: count loads. A bound on the number of programs is for those that are named. */
// programs: count
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define P(n) SEC("raw_tp/x") int p##n(void *ctx) { return 0; }
#define Q(n) P(n##0) P(n##1) P(n##2) P(n##3) P(n##4) P(n##5) P(n##6) P(n##7) P(n##8) P(n##9)
Q(0) Q(1) Q(2) Q(3) Q(4) Q(5) Q(6)

SEC("sockops") int count(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
