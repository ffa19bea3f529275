// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * egress-guard allows connections to a list of networks and ports, and refuses all others with EPERM.
 *
 * It decides once, when a process names a destination: in connect(), and in sendto() and the like on an unconnected
 * socket. It does not look at packets, so earlier connections, accepted connections and replies pass. What it refuses,
 * or would in a dry run, is counted by caller and destination in sockeye_refusals.
 */
#include <linux/bpf.h>
#include "address.h"
#include "sockeye_refusals.h"

/* If true, nothing is refused; what would be refused is counted. */
const volatile bool dry_run = false;
/* If true, the loopback addresses of this host are always allowed. */
const volatile bool allow_loopback = true;

struct network4 {
	__u32 prefixlen;
	__u8 address[4];
};

struct network6 {
	__u32 prefixlen;
	__u8 address[16];
};

/* The allowed ports of a network; all zero means every port. The longest prefix of an address decides alone. */
struct ports {
	__u16 port[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network4);
	__type(value, struct ports);
	__uint(max_entries, 1024);
} allow4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network6);
	__type(value, struct ports);
	__uint(max_entries, 1024);
} allow6 SEC(".maps");

struct decisions {
	__u64 allowed;
	__u64 refused;
	__u64 would_refuse; /* in a dry run */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct decisions);
	__uint(max_entries, 1);
} decisions SEC(".maps");

static __always_inline struct ports *ports_of(const union address *address)
{
	struct network6 network6 = {.prefixlen = 128};
	struct network4 network4 = {.prefixlen = 32};

	if (is_ip4(address)) {
		__builtin_memcpy(network4.address, &address->words[3], sizeof(network4.address));
		return bpf_map_lookup_elem(&allow4, &network4);
	}
	__builtin_memcpy(network6.address, address, sizeof(network6.address));
	return bpf_map_lookup_elem(&allow6, &network6);
}

static __always_inline bool is_allowed(const union address *address, __u16 port)
{
	struct ports *ports;
	bool named = false;

	if (allow_loopback && is_loopback(address))
		return true;
	ports = ports_of(address);
	if (!ports)
		return false;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		if (ports->port[i] && ports->port[i] == port)
			return true;
		named |= ports->port[i];
	}
	return !named;
}

static __always_inline int decide(struct bpf_sock_addr *ctx, union address address)
{
	__u16 port = bpf_ntohs(ctx->user_port);
	bool allowed = is_allowed(&address, port);
	struct decisions *counted;
	__u32 first = 0;

	counted = bpf_map_lookup_elem(&decisions, &first);
	if (counted)
		__sync_fetch_and_add(allowed   ? &counted->allowed
				     : dry_run ? &counted->would_refuse
					       : &counted->refused,
				     1);
	if (allowed)
		return 1;
	sockeye_count_refusal(&address, port, ctx->protocol, dry_run);
	return dry_run;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return decide(ctx, DESTINATION4(ctx));
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return decide(ctx, DESTINATION6(ctx));
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return decide(ctx, DESTINATION4(ctx));
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return decide(ctx, DESTINATION6(ctx));
}

char _license[] SEC("license") = "Dual BSD/GPL";
