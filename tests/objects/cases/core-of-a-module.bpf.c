// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: prog loads. The other program's relocations, of types that are in a module or in no kernel, are of no
 * concern to it. */
// programs: prog
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct tcp_sock {
	__u32 snd_cwnd;
};

/* In a module. */
struct nf_conn {
	unsigned long status;
};

struct bpf_dummy_never {
	int a[3];
};
#pragma clang attribute pop

SEC("fentry/tcp_connect") int other(unsigned long long *ctx)
{
	struct tcp_sock *tcp = (void *)ctx[0];
	struct nf_conn *conn = (void *)ctx[1];

	tcp->snd_cwnd = 10;
	return conn->status + bpf_core_type_id_kernel(struct nf_conn) + bpf_core_type_size(struct bpf_dummy_never);
}

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
