// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads if compiled without jump tables. With them (clang 22 and newer, ISA v4) it is refused by name, or loaded
 * as libbpf does: with a map of type INSN_ARRAY for each table.
 */
// programs: jump plain
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define CASE(n)                                                                                                        \
	case n: return bpf_get_prandom_u32() * (n + 3);                                                                \
	case n + 1: return ops->family + n;                                                                            \
	case n + 2: return ops->op / 3 - n

SEC("sockops") int jump(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	CASE(0);
	CASE(3);
	CASE(6);
	CASE(9);
	CASE(12);
	CASE(15);
	default: return 1;
	}
}

SEC("cgroup/dev") int plain(struct bpf_cgroup_dev_ctx *ctx)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
