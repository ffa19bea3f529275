// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * tcp-rtt collects round-trip times and retransmissions of TCP connections, as histograms per cgroup.
 *
 * Sockops programs also run in softirq, where the current task is arbitrary, and no helper returns the socket's cgroup.
 * So `remember` stores the cgroup in the socket at creation, and accepted connections inherit it from their listener.
 * Other connections count for cgroup 0: those of listeners older than the attachment, unless `remember_listener` runs.
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* Slot n counts 2^n to 2^(n+1) - 1; the last one counts everything from 8.4 seconds. */
#define RTT_SLOTS 24
/* Slot 0 counts 0, slot n counts 2^(n-1) to 2^n - 1; the last one counts everything from 1,024 segments. */
#define RETRANSMIT_SLOTS 12

struct tcp_figures {
	__u64 connected;			 /* connections opened */
	__u64 accepted;				 /* connections accepted */
	__u64 failed;				 /* connections that were not opened */
	__u64 closed;				 /* connections that ended after all */
	__u64 retransmitted;			 /* segments, as it happens */
	__u64 rtt_us[RTT_SLOTS];		 /* smoothed round-trip times, one for each measured */
	__u64 retransmits[RETRANSMIT_SLOTS];	 /* connections closed or failed, by segments retransmitted */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, __u64);
	__type(value, struct tcp_figures);
	__uint(max_entries, 1024);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u64);
} cgroup_of SEC(".maps");

static const struct tcp_figures nothing_yet;

static __always_inline struct tcp_figures *figures_of(struct bpf_sock_ops *skops)
{
	struct bpf_sock *sk = skops->sk;
	__u64 *noted = sk ? bpf_sk_storage_get(&cgroup_of, sk, 0, 0) : 0;
	__u64 cgroup = noted ? *noted : 0;
	struct tcp_figures *figures = bpf_map_lookup_elem(&cgroups, &cgroup);

	if (figures)
		return figures;
	bpf_map_update_elem(&cgroups, &cgroup, &nothing_yet, BPF_NOEXIST);
	return bpf_map_lookup_elem(&cgroups, &cgroup);
}

static __always_inline __u32 log2(__u32 n)
{
	__u32 log = 0;

#pragma unroll
	for (__u32 half = 16; half; half /= 2)
		if (n >> half) {
			n >>= half;
			log += half;
		}
	return log;
}

static __always_inline void count(__u64 *slots, __u32 slot, __u32 last)
{
	__sync_fetch_and_add(&slots[slot < last ? slot : last], 1);
}

SEC("sockops")
int measure(struct bpf_sock_ops *skops)
{
	struct tcp_figures *figures;
	__u32 segments;

	switch (skops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG |
							 BPF_SOCK_OPS_RETRANS_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_RTT_CB:
	case BPF_SOCK_OPS_RETRANS_CB:
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (skops->args[1] == BPF_TCP_CLOSE)
			break;
		return 1;
	default:
		return 1;
	}
	figures = figures_of(skops);
	if (!figures)
		return 1;
	switch (skops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		__sync_fetch_and_add(&figures->connected, 1);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		__sync_fetch_and_add(&figures->accepted, 1);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		/* The kernel keeps eight times the smoothed time. */
		count(figures->rtt_us, log2(skops->srtt_us >> 3), RTT_SLOTS - 1);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		__sync_fetch_and_add(&figures->retransmitted, skops->args[1]);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		__sync_fetch_and_add(skops->args[0] == BPF_TCP_SYN_SENT ? &figures->failed : &figures->closed, 1);
		segments = skops->total_retrans;
		count(figures->retransmits, segments ? log2(segments) + 1 : 0, RETRANSMIT_SLOTS - 1);
		break;
	}
	return 1;
}

SEC("cgroup/sock_create")
int remember(struct bpf_sock *sk)
{
	__u64 cgroup = bpf_get_current_cgroup_id();

	if (sk->protocol == IPPROTO_TCP)
		bpf_sk_storage_get(&cgroup_of, sk, &cgroup, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

/* Runs for each incoming packet and stores the cgroup of listeners only. */
SEC("cgroup_skb/ingress")
int remember_listener(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u64 cgroup;

	if (!sk || sk->state != BPF_TCP_LISTEN)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->protocol != IPPROTO_TCP)
		return 1;
	cgroup = bpf_sk_cgroup_id(sk);
	bpf_sk_storage_get(&cgroup_of, sk, &cgroup, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
