// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * SkMsg: data written to a TCP socket on the loopback network goes directly into the peer's receive queue. A sockops
 * program adds both ends of a connection to a sockhash, in which the attached sk_msg program looks up the other end.
 */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

/* A connection as one end sees it, in host byte order. */
struct ends {
	__u32 local_ip;
	__u32 remote_ip;
	__u32 local_port;
	__u32 remote_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 4096);
	__type(key, struct ends);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} redirected SEC(".maps");

SEC("sockops")
int remember(struct bpf_sock_ops *ctx)
{
	struct ends ends = {
		.local_ip = bpf_ntohl(ctx->local_ip4),
		.remote_ip = bpf_ntohl(ctx->remote_ip4),
		.local_port = ctx->local_port,
		.remote_port = bpf_ntohl(ctx->remote_port),
	};

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (ctx->family == AF_INET && ends.local_ip >> 24 == 127 && ends.remote_ip >> 24 == 127)
		bpf_sock_hash_update(ctx, &sockets, &ends, BPF_ANY);
	return 1;
}

SEC("sk_msg")
int redirect(struct sk_msg_md *msg)
{
	struct ends peer = {
		.local_ip = bpf_ntohl(msg->remote_ip4),
		.remote_ip = bpf_ntohl(msg->local_ip4),
		.local_port = bpf_ntohl(msg->remote_port),
		.remote_port = msg->local_port,
	};
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&redirected, &zero);

	/* SK_DROP means that the peer is gone or outside the cgroup. The data then goes by TCP. */
	if (bpf_msg_redirect_hash(msg, &sockets, &peer, BPF_F_INGRESS) == SK_PASS && count)
		__sync_fetch_and_add(count, 1);
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
