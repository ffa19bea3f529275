// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads. Every compiler for BPF in Debian takes it: maps, global variables of all sections, functions in
 * .text, two programs.
 */
// programs: count direct
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct value {
	__u64 packets;
	__u32 marks[3];
	char label[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct value);
} values SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 8);
} totals SEC(".maps");

const volatile __u32 limit = 300;
const volatile char prefix[6] = "mark";
static volatile const __s64 offset = -7;
volatile struct value last = { .packets = 3, .label = "last" };
volatile __u16 port = 80;
volatile __u64 seen[4];
static volatile __u32 hidden_count;

static __attribute__((noinline)) int is_long(struct __sk_buff *skb)
{
	hidden_count++;
	return skb->len > limit;
}

__attribute__((noinline)) int remember(__u32 key, __u64 by)
{
	struct value *value = bpf_map_lookup_elem(&values, &key);

	if (!value)
		return 0;
	__sync_fetch_and_add(&value->packets, by + offset);
	return key + prefix[key & 3];
}

SEC("cgroup_skb/egress") int count(struct __sk_buff *skb)
{
	__u32 key = 1;
	__u64 *total = bpf_map_lookup_elem(&totals, &key);

	if (total)
		*total += skb->len;
	seen[port & 3] += 1;
	if (is_long(skb))
		last.packets = remember(skb->mark, 2);
	return 1;
}

SEC("cgroup/connect4") int direct(struct bpf_sock_addr *ctx)
{
	if (ctx->user_port == port)
		ctx->user_ip4 = remember(7, last.packets);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
