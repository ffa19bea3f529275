// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* CgroupSkb: counts packets and bytes in each direction, and drops incoming packets for one UDP port. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define DROPPED_PORT 9 /* discard */

enum { INGRESS, EGRESS };

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

static void count(struct __sk_buff *skb, __u32 way)
{
	struct traffic *sum = bpf_map_lookup_elem(&traffic, &way);

	if (!sum)
		return;
	__sync_fetch_and_add(&sum->packets, 1);
	__sync_fetch_and_add(&sum->bytes, skb->len);
}

/* The packet begins with its IP header. */
SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	struct iphdr ip;
	struct udphdr udp;

	count(skb, INGRESS);
	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.version != 4 || ip.protocol != IPPROTO_UDP)
		return 1;
	if (bpf_skb_load_bytes(skb, ip.ihl * 4, &udp, sizeof(udp)))
		return 1;
	return udp.dest != bpf_htons(DROPPED_PORT);
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	count(skb, EGRESS);
	return 1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
