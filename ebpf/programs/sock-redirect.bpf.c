// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * sock-redirect passes data of a TCP connection within one network namespace directly to the other end's socket.
 *
 * `join` adds both ends to a sockhash, each under its own pair of addresses. `redirect` runs for every send and looks
 * up the other end under the reversed pair. The key has the namespace: two namespaces may use the same addresses.
 */
#include <linux/bpf.h>
#include "address.h"

/*
 * False turns the redirection off: no socket joins any more, and those that did send by TCP from then on. What was handed
 * over before is still read first. The agent clears this section once nothing is attached.
 */
volatile bool redirecting SEC(".data.switch") = true;

struct pair {
	__u64 netns;
	union address local, remote;
	__u16 local_port, remote_port;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__type(key, struct pair);
	__type(value, __u64);
	__uint(max_entries, 65535);
} sockets SEC(".maps");

enum way { UNDECIDED, STRAIGHT, BY_TCP };

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} ways SEC(".maps");

struct traffic {
	__u64 joined;		 /* ends of connections */
	__u64 redirected_sends;
	__u64 redirected_bytes;
	__u64 other_sends;	 /* went by TCP */
	__u64 other_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct traffic);
	__uint(max_entries, 1);
} traffic SEC(".maps");

static __always_inline struct traffic *counted(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&traffic, &first);
}

/*
 * Both contexts have these fields. All are read, as volatile, whatever the family: the compiler would otherwise read
 * through a modified context pointer, which the verifier refuses.
 */
#define FIELD(ctx, name) (*(volatile __u32 *)&(ctx)->name)
#define IP(ctx, end)                                                                                                       \
	either(FIELD(ctx, family), FIELD(ctx, end##_ip4), FIELD(ctx, end##_ip6[0]), FIELD(ctx, end##_ip6[1]),              \
	       FIELD(ctx, end##_ip6[2]), FIELD(ctx, end##_ip6[3]))

static __always_inline union address either(__u32 family, __u32 ip4, __u32 a, __u32 b, __u32 c, __u32 d)
{
	return family == 2 /* AF_INET */ ? address4(ip4) : (union address){.words = {a, b, c, d}};
}

static __always_inline bool same(const union address *a, const union address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

SEC("sockops")
int join(struct bpf_sock_ops *skops)
{
	struct traffic *seen;
	struct pair pair = {};

	if (skops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && skops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	if (!redirecting)
		return 1;
	pair.local = IP(skops, local);
	pair.remote = IP(skops, remote);
	/* The other end is on this host if its address is loopback or this end's own. */
	if (!is_loopback(&pair.remote) && !same(&pair.local, &pair.remote))
		return 1;
	/* Redirected data would overtake what TCP Fast Open sent with the SYN, so such connections stay with TCP. */
	if (skops->data_segs_out)
		return 1;
	pair.netns = bpf_get_netns_cookie(skops);
	pair.local_port = skops->local_port;
	pair.remote_port = bpf_ntohl(skops->remote_port);
	if (bpf_sock_hash_update(skops, &sockets, &pair, BPF_NOEXIST))
		return 1;
	seen = counted();
	if (seen)
		__sync_fetch_and_add(&seen->joined, 1);
	return 1;
}

SEC("sk_msg")
int redirect(struct sk_msg_md *msg)
{
	struct traffic *seen = counted();
	struct pair other_end = {};
	__u32 *way;

	way = bpf_sk_storage_get(&ways, msg->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!seen || !way)
		return SK_PASS;
	if (!redirecting)
		*way = BY_TCP;
	if (*way != BY_TCP) {
		other_end.netns = bpf_get_netns_cookie(msg);
		other_end.local = IP(msg, remote);
		other_end.remote = IP(msg, local);
		other_end.local_port = bpf_ntohl(msg->remote_port);
		other_end.remote_port = msg->local_port;
		/*
		 * If the first send finds no other end yet, it and all later ones go by TCP: redirected bytes would
		 * overtake those in flight.
		 */
		*way = bpf_msg_redirect_hash(msg, &sockets, &other_end, BPF_F_INGRESS) == SK_PASS ? STRAIGHT : BY_TCP;
	}
	__sync_fetch_and_add(*way == STRAIGHT ? &seen->redirected_sends : &seen->other_sends, 1);
	__sync_fetch_and_add(*way == STRAIGHT ? &seen->redirected_bytes : &seen->other_bytes, msg->size);
	return SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
