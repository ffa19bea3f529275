// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: msg loads, and verdict does where the spec says what it is for, which its section does not. */
// programs: msg verdict=sk_skb/stream_verdict
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__type(key, int);
	__type(value, int);
	__uint(max_entries, 4);
} socks SEC(".maps");

SEC("sk_skb") int verdict(struct __sk_buff *skb)
{
	return SK_PASS;
}

SEC("sk_msg") int msg(struct sk_msg_md *m)
{
	return SK_PASS;
}

char LICENSE[] SEC("license") = "GPL";
