// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads. On kernels with mainline commit 929e30f93125 and without 04af4efde58a, FIONREAD of a socket that has
 * joined the map is 0, and servers that ask it wait for ever: that is said before sockets join. */
// programs: join pass
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} joined SEC(".maps");

SEC("sockops") int join(struct bpf_sock_ops *ops)
{
	__u64 cookie;

	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		cookie = bpf_get_socket_cookie(ops);
		bpf_sock_hash_update(ops, &joined, &cookie, BPF_ANY);
	}
	return 1;
}

SEC("sk_msg") int pass(struct sk_msg_md *msg)
{
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
