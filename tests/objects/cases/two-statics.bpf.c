// SPDX-License-Identifier: Dual BSD/GPL
/* Outcome: loads; a value for the global variable `limit` is refused as ambiguous, with both places named. It is
 * linked with two-statics.part.c, which has a static variable of the same name.
 */
// programs: prog
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} out SEC(".maps");

static volatile const __u32 limit = 1;

int other_limit(void);

SEC("sockops") int prog(struct bpf_sock_ops *ops)
{
	__u32 key = 0;
	__u64 value = limit;

	bpf_map_update_elem(&out, &key, &value, BPF_ANY);
	key = 1;
	value = other_limit();
	bpf_map_update_elem(&out, &key, &value, BPF_ANY);
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
