// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads, and the sum is right. Between the aligned functions lies padding that belongs to none. */
// programs: add
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sum SEC(".maps");

#define APART __attribute__((noinline, aligned(64)))

APART int one(int x)
{
	return x ? 3 : 5;
}

APART int number(long x)
{
	return x > 7 ? 11 : 13;
}

/* Were its prototype taken for another function's, ops would be a number. */
APART int context(struct bpf_sock_ops *ops)
{
	return ops->op + 17;
}

SEC("sockops") int add(struct bpf_sock_ops *ops)
{
	__u32 zero = 0;
	__u64 *all = bpf_map_lookup_elem(&sum, &zero);

	if (all)
		*all = one(ops->op) + number(ops->op) + context(ops);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
